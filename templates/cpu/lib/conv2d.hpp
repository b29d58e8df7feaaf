// Convolution with the lanes of a vector on output channels. A block of BLOCK_V vectors x BLOCK_X columns x BLOCK_N images stays
// in registers. The sum of one output runs over kernel rows, kernel columns, input channels in this order, whatever the blocks,
// from the bias on.
template <class S, int IMAGES, int COLUMNS, class Out, class In>
INLINE void conv_block(const Out& out, const float* __restrict__ params, const In& in, int n, int c, int y, int x, int count) {
  typedef Vector<S::LANES> V;
  V sum[IMAGES][COLUMNS][S::BLOCK_V];
  const int channel = out.c0 + c, group = channel / S::GROUP_OUT, place = channel % S::GROUP_OUT;
#pragma GCC unroll 8
  for (int v = 0; v < S::BLOCK_V; ++v) {
    const V bias = load<V>(params + S::BIAS + channel + v * S::LANES);
#pragma GCC unroll 8
    for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 32
      for (int p = 0; p < COLUMNS; ++p) sum[i][p][v] = bias;
  }
  const float* weights = params + S::WEIGHTS + group * S::GROUP_SIZE + place;
  const int first = group * S::GROUP_IN - in.c0, row = y * S::STRIDE_Y + S::OFFSET_Y, column = x * S::STRIDE_X + S::OFFSET_X;
  for (int ky = 0; ky < S::KERNEL_Y; ++ky)
    for (int kx = 0; kx < S::KERNEL_X; ++kx)
      for (int ci = 0; ci < S::GROUP_IN; ++ci, weights += S::WEIGHT_PITCH) {
        V w[S::BLOCK_V];
#pragma GCC unroll 8
        for (int v = 0; v < S::BLOCK_V; ++v) w[v] = load<V>(weights + v * S::LANES);
#pragma GCC unroll 8
        for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 32
          for (int p = 0; p < COLUMNS; ++p) {
            const float value = in.at(n + i, first + ci, row + ky * S::DILATION_Y, column + p * S::STRIDE_X + kx * S::DILATION_X);
#pragma GCC unroll 8
            for (int v = 0; v < S::BLOCK_V; ++v) sum[i][p][v] += value * w[v];
          }
      }
#pragma GCC unroll 8
  for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 32
    for (int p = 0; p < COLUMNS; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < S::BLOCK_V; ++v)
        out.template put<S::LANES>(n + i, c + v * S::LANES, y, x + p,
                                   S::epilogue(sum[i][p][v], channel + v * S::LANES, params), count - v * S::LANES);
}

// All columns of one row: whole blocks, a last one that starts early, or single columns where the row is short.
template <class S, int IMAGES, class Out, class In>
INLINE void conv_row(const Out& out, const float* __restrict__ params, const In& in, const Region& r, int n, int c, int y, int count) {
  if (r.right - r.left < S::BLOCK_X) {
    for (int x = r.left; x < r.right; ++x) conv_block<S, IMAGES, 1>(out, params, in, n, c, y, x, count);
    return;
  }
  for (int x = r.left; x < r.right; x += S::BLOCK_X)
    conv_block<S, IMAGES, S::BLOCK_X>(out, params, in, n, c, y, least(x, r.right - S::BLOCK_X), count);
}

template <class S, class Out, class In>
INLINE void conv2d(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  constexpr int STEP = S::LANES * S::BLOCK_V;
  for (int unit = 0; unit < S::CHANNELS; unit += S::UNIT)
    for (int part = 0; part < S::UNIT; part += STEP) {
      const int c = unit + part, count = S::UNIT - part;
      int n = 0;
      for (; n + S::BLOCK_N <= r.images; n += S::BLOCK_N)
        for (int y = r.top; y < r.bottom; ++y) conv_row<S, S::BLOCK_N>(out, params, in, r, n, c, y, count);
      if (S::BLOCK_N > 1)
        for (; n < r.images; ++n)
          for (int y = r.top; y < r.bottom; ++y) conv_row<S, 1>(out, params, in, r, n, c, y, count);
    }
}

// Depthwise: each lane is a channel of its own.
template <class S, class Out, class In>
INLINE void depthwise_conv2d(const Out& out, const float* __restrict__ params, const In& in) {
  typedef Vector<S::LANES> V;
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int c = 0; c < S::CHANNELS; c += S::LANES) {
        const int channel = out.c0 + c, row = y * S::STRIDE_Y + S::OFFSET_Y;
        for (int x = r.left; x < r.right; ++x) {
          V sum = load<V>(params + S::BIAS + channel);
          const float* weights = params + S::WEIGHTS + channel;
          for (int ky = 0; ky < S::KERNEL_Y; ++ky)
            for (int kx = 0; kx < S::KERNEL_X; ++kx, weights += S::WEIGHT_PITCH)
              sum += in.template lanes<S::LANES>(n, channel - in.c0, row + ky * S::DILATION_Y,
                                                 x * S::STRIDE_X + S::OFFSET_X + kx * S::DILATION_X) * load<V>(weights);
          out.template put<S::LANES>(n, c, y, x, S::epilogue(sum, channel, params), S::CHANNELS - c);
        }
      }
}
