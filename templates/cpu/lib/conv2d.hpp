// Convolution with the lanes of a vector on output channels. A block of BLOCK_V vectors x BLOCK_X columns x BLOCK_N images stays
// in registers. The sum of one output runs over kernel rows, kernel columns, input channels in this order, whatever the blocks,
// from the bias on.
template <class S, int IMAGES, int COLUMNS>
using Sums = Vector<S::LANES>[IMAGES][COLUMNS][S::BLOCK_V];

template <class S, int IMAGES, int COLUMNS, class In>
INLINE void convolve(Sums<S, IMAGES, COLUMNS>& sum, const float* __restrict__ params, const In& in, int n, int channel, int y, int x) {
  typedef Vector<S::LANES> V;
  const int group = channel / S::GROUP_OUT, place = channel % S::GROUP_OUT;
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
            for (int v = 0; v < S::BLOCK_V; ++v) sum[i][p][v] = multiply_add(value, w[v], sum[i][p][v]);
          }
      }
}

template <class S, int IMAGES, int COLUMNS, class Out, class In>
INLINE void conv_block(const Out& out, const float* __restrict__ params, const In& in, int n, int c, int y, int x, int count) {
  const int channel = out.c0 + c;
  Sums<S, IMAGES, COLUMNS> sum;
  convolve<S, IMAGES, COLUMNS>(sum, params, in, n, channel, y, x);
#pragma GCC unroll 8
  for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 32
    for (int p = 0; p < COLUMNS; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < S::BLOCK_V; ++v)
        out.template put<S::LANES>(n + i, c + v * S::LANES, y, x + p,
                                   S::epilogue(sum[i][p][v], channel + v * S::LANES, params), count - v * S::LANES);
}

// A convolution whose output goes, in registers, into a pool P without overlap or padding.
template <class S, class P, int IMAGES, int COLUMNS, class Out, class In>
INLINE void pool_block(const Out& out, const float* __restrict__ params, const In& in, int n, int c, int y, int x, int count) {
  typedef Vector<S::LANES> V;
  constexpr int WIDTH = COLUMNS * P::KERNEL_X;
  const int channel = out.c0 + c;
  const V start = V{} + (P::MEAN ? 0.0f : -infinity());
  V pooled[IMAGES][COLUMNS][S::BLOCK_V];
#pragma GCC unroll 8
  for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 32
    for (int p = 0; p < COLUMNS; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < S::BLOCK_V; ++v) pooled[i][p][v] = start;
#pragma GCC unroll 1
  for (int row = 0; row < P::KERNEL_Y; ++row) {
    Sums<S, IMAGES, WIDTH> sum;
    convolve<S, IMAGES, WIDTH>(sum, params, in, n, channel, y * P::KERNEL_Y + row, x * P::KERNEL_X);
#pragma GCC unroll 8
    for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 32
      for (int p = 0; p < WIDTH; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < S::BLOCK_V; ++v) {
          const V value = S::epilogue(sum[i][p][v], channel + v * S::LANES, params);
          V& best = pooled[i][p / P::KERNEL_X][v];
          best = P::MEAN ? best + unfused(value) : larger(value, best);
        }
  }
#pragma GCC unroll 8
  for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 32
    for (int p = 0; p < COLUMNS; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < S::BLOCK_V; ++v) {
        const V value = P::MEAN ? pooled[i][p][v] / float(P::KERNEL_Y * P::KERNEL_X) : pooled[i][p][v];
        out.template put<S::LANES>(n + i, c + v * S::LANES, y, x + p, P::epilogue(value, channel + v * S::LANES, params),
                                   count - v * S::LANES);
      }
}

// Every block of a region: STEP columns of BLOCK_N images, a last one that starts early, single columns where the row is short.
// `block(images, columns, n, c, y, x, count)` gets the first two as constants; `count` channels from c on are to be stored.
template <class S, int STEP, class F>
INLINE void each_block(const Region& r, F block) {
  const auto row = [&](auto images, int n, int c, int y, int count) {
    if (r.right - r.left < STEP)
      for (int x = r.left; x < r.right; ++x) block(images, Constant<1>{}, n, c, y, x, count);
    else
      for (int x = r.left; x < r.right; x += STEP) block(images, Constant<STEP>{}, n, c, y, least(x, r.right - STEP), count);
  };
  for (int unit = 0; unit < S::CHANNELS; unit += S::UNIT)
    for (int part = 0; part < S::UNIT; part += S::LANES * S::BLOCK_V) {
      int n = 0;
      for (; n + S::BLOCK_N <= r.images; n += S::BLOCK_N)
        for (int y = r.top; y < r.bottom; ++y) row(Constant<S::BLOCK_N>{}, n, unit + part, y, S::UNIT - part);
      for (; n < r.images; ++n)
        for (int y = r.top; y < r.bottom; ++y) row(Constant<1>{}, n, unit + part, y, S::UNIT - part);
    }
}

template <class S, class Out, class In>
INLINE void conv2d(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  each_block<S, S::BLOCK_X>(r, [&](auto images, auto columns, int n, int c, int y, int x, int count) {
    conv_block<S, images.value, columns.value>(out, params, in, n, c, y, x, count);
  });
}

template <class S, class P, class Out, class In>
INLINE void conv2d_pool(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<P>(out);
  fill_border<P>(out, r);
  each_block<S, S::BLOCK_X / P::KERNEL_X>(r, [&](auto images, auto columns, int n, int c, int y, int x, int count) {
    pool_block<S, P, images.value, columns.value>(out, params, in, n, c, y, x, count);
  });
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
              sum = multiply_add(in.template lanes<S::LANES>(n, channel - in.c0, row + ky * S::DILATION_Y,
                                                             x * S::STRIDE_X + S::OFFSET_X + kx * S::DILATION_X),
                                 load<V>(weights), sum);
          out.template put<S::LANES>(n, c, y, x, S::epilogue(sum, channel, params), S::CHANNELS - c);
        }
      }
}
