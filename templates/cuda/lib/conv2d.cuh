// Convolution. A thread computes BLOCK_C channels x BLOCK_X columns x BLOCK_N images in registers. The sum of one output runs
// over input channels, kernel rows, kernel columns in this order, whatever the blocks, from the bias on.

// BLOCK_C consecutive weights, in loads of WEIGHT_ALIGN; the last may reach into the padding of the row of weights.
template <class S>
__device__ __forceinline__ void load_weights(float (&w)[S::BLOCK_C], const float* p) {
  constexpr int ALIGN = S::WEIGHT_ALIGN;
#pragma unroll
  for (int i = 0; i < S::BLOCK_C; i += ALIGN) {
    float v[4];
    if constexpr (ALIGN == 4) {
      *reinterpret_cast<float4*>(v) = *reinterpret_cast<const float4*>(p + i);
    } else if constexpr (ALIGN == 2) {
      *reinterpret_cast<float2*>(v) = *reinterpret_cast<const float2*>(p + i);
    } else {
      v[0] = p[i];
    }
#pragma unroll
    for (int j = 0; j < ALIGN; ++j)
      if (i + j < S::BLOCK_C) w[i + j] = v[j];
  }
}

template <class S>
using Sums = float[S::BLOCK_N][S::BLOCK_C][S::BLOCK_X];

template <class S, class In>
__device__ __forceinline__ void accumulate(Sums<S>& sum, const In& in, const float* weights, int n, int channel, int y, int x) {
  constexpr int SPAN = (S::BLOCK_X - 1) * S::STRIDE_X + (S::KERNEL_X - 1) * S::DILATION_X + 1;
#pragma unroll S::UNROLL_C
  for (int ci = 0; ci < S::GROUP_IN; ++ci) {
#pragma unroll S::UNROLL_Y
    for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
      float window[S::BLOCK_N][SPAN];
#pragma unroll
      for (int i = 0; i < S::BLOCK_N; ++i) {
        const auto row = in.row(n + i, channel + ci, y + ky * S::DILATION_Y, 0.0f);
#pragma unroll
        for (int s = 0; s < SPAN; ++s) window[i][s] = row(x + s);
      }
#pragma unroll
      for (int kx = 0; kx < S::KERNEL_X; ++kx) {
        float w[S::BLOCK_C];
        load_weights<S>(w, weights + ((ci * S::KERNEL_Y + ky) * S::KERNEL_X + kx) * S::WEIGHT_PITCH);
#pragma unroll
        for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
          for (int c = 0; c < S::BLOCK_C; ++c)
#pragma unroll
            for (int p = 0; p < S::BLOCK_X; ++p)
              sum[i][c][p] = fmaf(window[i][p * S::STRIDE_X + kx * S::DILATION_X], w[c], sum[i][c][p]);
      }
    }
  }
}

// The same sums for kernels too wide to keep a window in registers.
template <class S, class In>
__device__ __forceinline__ void accumulate_wide(Sums<S>& sum, const In& in, const float* weights, int n, int channel, int y, int x) {
#pragma unroll 1
  for (int row = 0; row < S::GROUP_IN * S::KERNEL_Y; ++row) {
#pragma unroll 4
    for (int kx = 0; kx < S::KERNEL_X; ++kx) {
      float w[S::BLOCK_C];
      load_weights<S>(w, weights + (row * S::KERNEL_X + kx) * S::WEIGHT_PITCH);
#pragma unroll
      for (int i = 0; i < S::BLOCK_N; ++i) {
        const auto r = in.row(n + i, channel + row / S::KERNEL_Y, y + row % S::KERNEL_Y * S::DILATION_Y, 0.0f);
#pragma unroll
        for (int p = 0; p < S::BLOCK_X; ++p) {
          const float v = r(x + p * S::STRIDE_X + kx * S::DILATION_X);
#pragma unroll
          for (int c = 0; c < S::BLOCK_C; ++c) sum[i][c][p] = fmaf(v, w[c], sum[i][c][p]);
        }
      }
    }
  }
}

// Biases and products of one block; `channel` is its first output channel, (y, x) its first position in the convolution's box.
template <class S, class In>
__device__ __forceinline__ void convolve(Sums<S>& sum, const In& in, const float* weights, const float* bias, int n, int channel,
                                         int y, int x) {
#pragma unroll
  for (int k = 0; k < S::BLOCK_C; ++k) {
    const float start = S::BIAS ? bias[channel + k] : 0.0f;
#pragma unroll
    for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
      for (int p = 0; p < S::BLOCK_X; ++p) sum[i][k][p] = start;
  }
  const int first = channel / S::GROUP_OUT * S::GROUP_IN - in.c0;  // input channel, relative to the box that is read
  const int row = y * S::STRIDE_Y + S::OFFSET_Y, column = x * S::STRIDE_X + S::OFFSET_X;
  if constexpr (S::WIDE) accumulate_wide<S>(sum, in, weights + channel, n, first, row, column);
  else accumulate<S>(sum, in, weights + channel, n, first, row, column);
}

template <class S, class Out, class In>
__device__ __forceinline__ void conv2d(const Out& out, const float* __restrict__ params, const float* weights, const float* bias,
                                       const In& in) {
  each_block<S, S::BLOCK_N, S::BLOCK_C, S::BLOCK_X>(out, [&](const auto& b) {
    const int channel = out.c0 + b.c;
    Sums<S> sum = {};
    if (S::INSIDE || out.wanted(b.n, b.y, b.x, S::BLOCK_X)) convolve<S>(sum, in, weights, bias, b.n, channel, b.y, b.x);
#pragma unroll
    for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
      for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
        for (int p = 0; p < S::BLOCK_X; ++p)
          if (b.owns(b.x + p))
            out.template store<S::INSIDE>(b.n + i, b.c + k, b.y, b.x + p, S::epilogue(sum[i][k][p], channel + k, params));
  });
}

// A convolution whose output goes, in registers, into a pool P without overlap or padding. BLOCK_X counts the convolution's
// columns, P::KERNEL_X of them for each of the pool's.
template <class S, class P, class Out, class In>
__device__ __forceinline__ void conv2d_pool(const Out& out, const float* __restrict__ params, const float* weights,
                                            const float* bias, const In& in) {
  constexpr int POOLED = S::BLOCK_X / P::KERNEL_X;
  each_block<P, S::BLOCK_N, S::BLOCK_C, POOLED>(out, [&](const auto& b) {
    const int channel = out.c0 + b.c;
    float pooled[S::BLOCK_N][S::BLOCK_C][POOLED];
#pragma unroll
    for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
      for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
        for (int p = 0; p < POOLED; ++p) pooled[i][k][p] = P::MEAN ? 0.0f : -infinity();
    if (P::INSIDE || out.wanted(b.n, b.y, b.x, POOLED)) {
#pragma unroll 1
      for (int row = 0; row < P::KERNEL_Y; ++row) {
        Sums<S> sum;
        convolve<S>(sum, in, weights, bias, b.n, channel, b.y * P::KERNEL_Y + row, b.x * P::KERNEL_X);
#pragma unroll
        for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
          for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
            for (int p = 0; p < S::BLOCK_X; ++p) {
              const float v = S::epilogue(sum[i][k][p], channel + k, params);
              float& best = pooled[i][k][p / P::KERNEL_X];
              if (P::MEAN) best = __fadd_rn(best, v);  // never fused with a product in v, as it is not across a barrier
              else best = larger(v, best);
            }
      }
    }
#pragma unroll
    for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
      for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
        for (int p = 0; p < POOLED; ++p)
          if (b.owns(b.x + p)) {
            const float v = P::MEAN ? pooled[i][k][p] / float(P::KERNEL_Y * P::KERNEL_X) : pooled[i][k][p];
            out.template store<P::INSIDE>(b.n + i, b.c + k, b.y, b.x + p, P::epilogue(v, channel + k, params));
          }
  });
}
