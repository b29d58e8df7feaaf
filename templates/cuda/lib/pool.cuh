// Pooling: one output per thread; taps outside the image are skipped (GUARDED) or hold the padding value in scratch.
template <class S, class Out, class In>
__device__ __forceinline__ void max_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const int y = o.y * S::STRIDE_Y + S::OFFSET_Y, x = o.x * S::STRIDE_X + S::OFFSET_X;
    float best = -infinity();
#pragma unroll S::UNROLL_Y
    for (int ky = 0; ky < S::KERNEL_Y; ++ky)
#pragma unroll S::UNROLL_X
      for (int kx = 0; kx < S::KERNEL_X; ++kx) {
        const int iy = y + ky * S::DILATION_Y, ix = x + kx * S::DILATION_X;
        const float v = S::GUARDED ? in.guarded(o.n, out.c0 + o.c - in.c0, iy, ix, -infinity())
                                   : in.at(o.n, out.c0 + o.c - in.c0, iy, ix);
        best = larger(v, best);
      }
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(best, out.c0 + o.c, params));
  });
}

// How many of the window's taps lie in [low, high).
__device__ __forceinline__ int taps_within(int start, int kernel, int dilation, int low, int high) {
  const int from = start < low ? (low - start + dilation - 1) / dilation : 0;
  const int to = start < high ? (high - start + dilation - 1) / dilation : 0;
  const int last = to < kernel ? to : kernel;
  return last > from ? last - from : 0;
}

// Averages divide by the taps inside the padded image, or inside the image alone; the window starts at (y, x).
template <class S, class In>
__device__ __forceinline__ int taps_counted(const In& in, int y, int x) {
  constexpr int TOP = S::PADDING_COUNTS ? S::BEFORE_Y : 0, BOTTOM = S::PADDING_COUNTS ? S::AFTER_Y : 0;
  constexpr int LEFT = S::PADDING_COUNTS ? S::BEFORE_X : 0, RIGHT = S::PADDING_COUNTS ? S::AFTER_X : 0;
  return taps_within(in.y0 + y, S::KERNEL_Y, S::DILATION_Y, -TOP, in.height + BOTTOM) *
         taps_within(in.x0 + x, S::KERNEL_X, S::DILATION_X, -LEFT, in.width + RIGHT);
}

template <class S, class Out, class In>
__device__ __forceinline__ void avg_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const int y = o.y * S::STRIDE_Y + S::OFFSET_Y, x = o.x * S::STRIDE_X + S::OFFSET_X;
    float sum = 0.0f;
#pragma unroll S::UNROLL_Y
    for (int ky = 0; ky < S::KERNEL_Y; ++ky)
#pragma unroll S::UNROLL_X
      for (int kx = 0; kx < S::KERNEL_X; ++kx)
        sum += in.at(o.n, out.c0 + o.c - in.c0, y + ky * S::DILATION_Y, x + kx * S::DILATION_X);
    const int count = taps_counted<S>(in, y, x);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(count > 0 ? sum / float(count) : 0.0f, out.c0 + o.c, params));
  });
}
