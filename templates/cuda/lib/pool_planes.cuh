// Pools of tensors in planes of eight channels: eight channels of a position per thread, in the order and with the borders of
// pool.cuh.

// f(values) for every tap of the window at (y, x), rows first.
template <class S, class In, class F>
__device__ __forceinline__ void each_tap(const In& in, int n, int c, int y, int x, float padding, F f) {
#pragma unroll S::UNROLL_Y
  for (int ky = 0; ky < S::KERNEL_Y; ++ky)
#pragma unroll S::UNROLL_X
    for (int kx = 0; kx < S::KERNEL_X; ++kx) {
      const int iy = y + ky * S::DILATION_Y, ix = x + kx * S::DILATION_X;
      f(!In::IN_SCRATCH || !S::GUARDED || in.inside(iy, ix) ? load_octet(in, n, c, iy, ix, padding) : octet_of(padding));
    }
}

template <class S, class Out, class In>
__device__ __forceinline__ void max_pool2d_planes(const Out& out, const float* __restrict__ params, const In& in) {
  each_octet<S, 1>(out, [&](const auto& o) {
    Octet best = octet_of(-infinity());
    each_tap<S>(in, o.n, out.c0 + o.c - in.c0, o.y * S::STRIDE_Y + S::OFFSET_Y, o.x * S::STRIDE_X + S::OFFSET_X,
                S::GUARDED ? -infinity() : 0.0f, [&](const Octet& v) {
#pragma unroll
      for (int i = 0; i < 8; ++i) best.v[i] = larger(v.v[i], best.v[i]);
    });
    store_octet<S>(out, params, o.n, o.c, o.y, o.x, best);
  });
}

template <class S, class Out, class In>
__device__ __forceinline__ void avg_pool2d_planes(const Out& out, const float* __restrict__ params, const In& in) {
  each_octet<S, 1>(out, [&](const auto& o) {
    const int y = o.y * S::STRIDE_Y + S::OFFSET_Y, x = o.x * S::STRIDE_X + S::OFFSET_X;
    Octet sum = octet_of(0.0f);
    each_tap<S>(in, o.n, out.c0 + o.c - in.c0, y, x, 0.0f, [&](const Octet& v) {
#pragma unroll
      for (int i = 0; i < 8; ++i) sum.v[i] += v.v[i];
    });
    const int count = taps_counted<S>(in, y, x);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum.v[i] = count > 0 ? sum.v[i] / float(count) : 0.0f;
    store_octet<S>(out, params, o.n, o.c, o.y, o.x, sum);
  });
}
