// Convolution. A thread computes BLOCK_C channels x BLOCK_X columns x BLOCK_N images in registers. The sum of one output runs
// over input channels, kernel rows, kernel columns in this order, whatever the blocks, from the bias on.

// `count` consecutive weights, in the widest loads their alignment allows.
template <int COUNT>
__device__ __forceinline__ void load_weights(float (&w)[COUNT], const float* __restrict__ p) {
  if constexpr (COUNT % 4 == 0) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
      const float4 v = __ldg(reinterpret_cast<const float4*>(p + i));
      w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
    }
  } else if constexpr (COUNT % 2 == 0) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 2) {
      const float2 v = __ldg(reinterpret_cast<const float2*>(p + i));
      w[i] = v.x, w[i + 1] = v.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) w[i] = __ldg(p + i);
  }
}

template <class S, class In>
__device__ __forceinline__ void accumulate(float (&sum)[S::BLOCK_N][S::BLOCK_C][S::BLOCK_X], const In& in,
                                           const float* __restrict__ weights, int n, int channel, int y, int x) {
  constexpr int SPAN = (S::BLOCK_X - 1) * S::STRIDE_X + (S::KERNEL_X - 1) * S::DILATION_X + 1;
#pragma unroll 1
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
        load_weights(w, weights + ((ci * S::KERNEL_Y + ky) * S::KERNEL_X + kx) * S::WEIGHT_PITCH);
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
__device__ __forceinline__ void accumulate_wide(float (&sum)[S::BLOCK_N][S::BLOCK_C][S::BLOCK_X], const In& in,
                                                const float* __restrict__ weights, int n, int channel, int y, int x) {
#pragma unroll 1
  for (int row = 0; row < S::GROUP_IN * S::KERNEL_Y; ++row) {
#pragma unroll 4
    for (int kx = 0; kx < S::KERNEL_X; ++kx) {
      float w[S::BLOCK_C];
      load_weights(w, weights + (row * S::KERNEL_X + kx) * S::WEIGHT_PITCH);
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

template <class S, class Out, class In>
__device__ __forceinline__ void conv2d(const Out& out, const float* __restrict__ params, const In& in) {
  fill_border<S>(out);
  constexpr int X_BLOCKS = (S::COLUMNS + S::BLOCK_X - 1) / S::BLOCK_X, C_BLOCKS = S::CHANNELS / S::BLOCK_C;
  constexpr int ITEMS = X_BLOCKS * S::ROWS * C_BLOCKS * (S::IMAGES / S::BLOCK_N);
#pragma unroll 1
  for (int item = threadIdx.x; item < ITEMS; item += blockDim.x) {
    const int block = item % X_BLOCKS * S::BLOCK_X;
    // the last block starts early instead of reading past the box
    const int column = block < S::COLUMNS - S::BLOCK_X ? block : S::COLUMNS - S::BLOCK_X;
    const int x = S::COLUMN + column, y = S::ROW + item / X_BLOCKS % S::ROWS;
    const int c = item / (X_BLOCKS * S::ROWS) % C_BLOCKS * S::BLOCK_C;
    const int n = item / (X_BLOCKS * S::ROWS * C_BLOCKS) * S::BLOCK_N;
    const int channel = out.c0 + c;
    float sum[S::BLOCK_N][S::BLOCK_C][S::BLOCK_X];
#pragma unroll
    for (int k = 0; k < S::BLOCK_C; ++k) {
      const float bias = S::BIAS < 0 ? 0.0f : __ldg(params + S::BIAS + channel + k);
#pragma unroll
      for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
        for (int p = 0; p < S::BLOCK_X; ++p) sum[i][k][p] = bias;
    }
    if (S::INSIDE || out.wanted(n, y, x, S::BLOCK_X)) {
      const float* weights = params + S::WEIGHTS + channel;
      const int first = channel / S::GROUP_OUT * S::GROUP_IN - in.c0;  // input channel, relative to the box that is read
      const int row = y * S::STRIDE_Y + S::OFFSET_Y, col = x * S::STRIDE_X + S::OFFSET_X;
      if constexpr (S::WIDE) accumulate_wide<S>(sum, in, weights, n, first, row, col);
      else accumulate<S>(sum, in, weights, n, first, row, col);
    }
#pragma unroll
    for (int i = 0; i < S::BLOCK_N; ++i)
#pragma unroll
      for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
        for (int p = 0; p < S::BLOCK_X; ++p)
          if (S::COLUMNS % S::BLOCK_X == 0 || column + p >= block)
            out.template store<S::INSIDE>(n + i, c + k, y, x + p, S::epilogue(sum[i][k][p], channel + k, params));
  }
}
