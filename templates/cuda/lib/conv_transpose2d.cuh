// Transposed convolution as a gather: output position y is fed by tap k where (y + PHASE - k * DILATION) divides by STRIDE.
// A thread computes BLOCK_C channels of one position; the sum runs over input channels, kernel rows, kernel columns.
template <class S, class Out, class In>
__device__ __forceinline__ void conv_transpose2d(const Out& out, const float* __restrict__ params, const In& in) {
  each_block<S, 1, S::BLOCK_C, 1>(out, [&](const auto& b) {
    const int channel = out.c0 + b.c;
    float sum[S::BLOCK_C];
#pragma unroll
    for (int k = 0; k < S::BLOCK_C; ++k) sum[k] = S::BIAS < 0 ? 0.0f : __ldg(params + S::BIAS + channel + k);
    if (S::INSIDE || out.wanted(b.n, b.y, b.x, 1)) {
      const int first = channel / S::GROUP_OUT * S::GROUP_IN - in.c0;
#pragma unroll 1
      for (int ci = 0; ci < S::GROUP_IN; ++ci) {
#pragma unroll 1
        for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
          const int ty = b.y + S::PHASE_Y - ky * S::DILATION_Y;
          if (ty < 0 || ty % S::STRIDE_Y != 0) continue;
          const auto row = in.row(b.n, first + ci, ty / S::STRIDE_Y + S::OFFSET_Y, 0.0f);
#pragma unroll 1
          for (int kx = 0; kx < S::KERNEL_X; ++kx) {
            const int tx = b.x + S::PHASE_X - kx * S::DILATION_X;
            if (tx < 0 || tx % S::STRIDE_X != 0) continue;
            const float v = row(tx / S::STRIDE_X + S::OFFSET_X);
            const float* w = params + S::WEIGHTS + ((ci * S::KERNEL_Y + ky) * S::KERNEL_X + kx) * S::WEIGHT_PITCH + channel;
#pragma unroll
            for (int k = 0; k < S::BLOCK_C; ++k) sum[k] = fmaf(v, __ldg(w + k), sum[k]);
          }
        }
      }
    }
#pragma unroll
    for (int k = 0; k < S::BLOCK_C; ++k)
      out.template store<S::INSIDE>(b.n, b.c + k, b.y, b.x, S::epilogue(sum[k], channel + k, params));
  });
}
