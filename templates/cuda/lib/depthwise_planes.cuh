// Depthwise convolution of tensors in planes of eight channels. A thread computes eight channels of BLOCK_X columns. The sum of
// one output runs over kernel rows and kernel columns in this order, whatever the block, from the bias on, as in `conv2d`.

// The products of one kernel row: each value under it is loaded once for all columns of the block.
template <class S, class Row>
__device__ __forceinline__ void add_row(Octet (&sum)[S::BLOCK_X], const Row& row, const float* weights, int x) {
  constexpr int SPAN = (S::BLOCK_X - 1) * S::STRIDE_X + (S::KERNEL_X - 1) * S::DILATION_X + 1;
  Octet w[S::KERNEL_X];
#pragma unroll
  for (int kx = 0; kx < S::KERNEL_X; ++kx) w[kx] = octet_of(weights + kx * S::WEIGHT_PITCH);
#pragma unroll
  for (int s = 0; s < SPAN; ++s) {
    const Octet v = octet_in(row, x + s);
#pragma unroll
    for (int p = 0; p < S::BLOCK_X; ++p)
#pragma unroll
      for (int kx = 0; kx < S::KERNEL_X; ++kx)
        if (p * S::STRIDE_X + kx * S::DILATION_X == s) {
#pragma unroll
          for (int i = 0; i < 8; ++i) sum[p].v[i] = fmaf(v.v[i], w[kx].v[i], sum[p].v[i]);
        }
  }
}

// The same for kernels too wide to keep a row of weights in registers.
template <class S, class Row>
__device__ __forceinline__ void add_wide_row(Octet (&sum)[S::BLOCK_X], const Row& row, const float* weights, int x) {
#pragma unroll 1
  for (int kx = 0; kx < S::KERNEL_X; ++kx) {
    const Octet w = octet_of(weights + kx * S::WEIGHT_PITCH);
#pragma unroll
    for (int p = 0; p < S::BLOCK_X; ++p) {
      const Octet v = octet_in(row, x + p * S::STRIDE_X + kx * S::DILATION_X);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[p].v[i] = fmaf(v.v[i], w.v[i], sum[p].v[i]);
    }
  }
}

template <class S, class Out, class In>
__device__ __forceinline__ void depthwise_planes(const Out& out, const float* __restrict__ params, const In& in) {
  each_octet<S, S::BLOCK_X>(out, [&](const auto& b) {
    const int channel = out.c0 + b.c;
    Octet sum[S::BLOCK_X];
#pragma unroll
    for (int p = 0; p < S::BLOCK_X; ++p) sum[p] = S::BIAS < 0 ? octet_of(0.0f) : octet_of(params + S::BIAS + channel);
    if (S::INSIDE || out.wanted(b.n, b.y, b.x, S::BLOCK_X)) {
      const int y = b.y * S::STRIDE_Y + S::OFFSET_Y, x = b.x * S::STRIDE_X + S::OFFSET_X;
#pragma unroll S::UNROLL_Y
      for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
        const float* w = params + S::WEIGHTS + ky * S::KERNEL_X * S::WEIGHT_PITCH + channel;
        const auto row = in.row(b.n, channel - in.c0, y + ky * S::DILATION_Y, 0.0f);
        if constexpr (S::WIDE) add_wide_row<S>(sum, row, w, x);
        else add_row<S>(sum, row, w, x);
      }
    }
#pragma unroll
    for (int p = 0; p < S::BLOCK_X; ++p)
      if (b.owns(b.x + p)) store_octet<S>(out, params, b.n, b.c, b.y, b.x + p, sum[p]);
  });
}
