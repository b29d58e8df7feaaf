// Pooling: one output per thread; taps outside the image are skipped (GUARDED) or hold the padding value in scratch.
template <class S, class Out, class In>
__device__ __forceinline__ void max_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  fill_border<S>(out);
  for (int item = threadIdx.x; item < Position<S>::COUNT; item += blockDim.x) {
    const Position<S> o(item);
    const int y = o.y * S::STRIDE_Y + S::OFFSET_Y, x = o.x * S::STRIDE_X + S::OFFSET_X;
    float best = -infinity();
#pragma unroll S::UNROLL_Y
    for (int ky = 0; ky < S::KERNEL_Y; ++ky)
#pragma unroll S::UNROLL_X
      for (int kx = 0; kx < S::KERNEL_X; ++kx) {
        const int iy = y + ky * S::DILATION_Y, ix = x + kx * S::DILATION_X;
        const float v = S::GUARDED ? in.guarded(o.n, out.c0 + o.c - in.c0, iy, ix, -infinity())
                                   : in.at(o.n, out.c0 + o.c - in.c0, iy, ix);
        best = v > best || v != v ? v : best;
      }
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(best, out.c0 + o.c, params));
  }
}

// Length of the part of the window from `start` that counts: inside the padded image, or inside the image alone; at least 0.
template <bool PADDING_COUNTS>
__device__ __forceinline__ int counted(int start, int kernel, int after, int size) {
  const int end = start + kernel < size + after ? start + kernel : size + after;
  const int length = PADDING_COUNTS ? end - start : (end < size ? end : size) - (start > 0 ? start : 0);
  return length > 0 ? length : 0;
}

template <class S, class Out, class In>
__device__ __forceinline__ void avg_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  fill_border<S>(out);
  for (int item = threadIdx.x; item < Position<S>::COUNT; item += blockDim.x) {
    const Position<S> o(item);
    const int y = o.y * S::STRIDE_Y + S::OFFSET_Y, x = o.x * S::STRIDE_X + S::OFFSET_X;
    float sum = 0.0f;
#pragma unroll S::UNROLL_Y
    for (int ky = 0; ky < S::KERNEL_Y; ++ky)
#pragma unroll S::UNROLL_X
      for (int kx = 0; kx < S::KERNEL_X; ++kx) sum += in.at(o.n, out.c0 + o.c - in.c0, y + ky, x + kx);
    const int count = counted<S::PADDING_COUNTS>(in.y0 + y, S::KERNEL_Y, S::AFTER_Y, in.height) *
                      counted<S::PADDING_COUNTS>(in.x0 + x, S::KERNEL_X, S::AFTER_X, in.width);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(count > 0 ? sum / float(count) : 0.0f, out.c0 + o.c, params));
  }
}
