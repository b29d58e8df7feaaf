// Convolution with the lanes of a vector on output channels. A block of BLOCK_V vectors x BLOCK_X columns x BLOCK_N images stays
// in registers, and as many rows as the window of a pool behind it has. The sum of one output runs over kernel rows, kernel
// columns, input channels in this order, whatever the blocks, from the bias on.
template <class S, int IMAGES, int ROWS, int COLUMNS>
using Sums = Vector<S::LANES>[IMAGES][ROWS][COLUMNS][S::BLOCK_V];

// f(image, row, column, vector) for all of a block, unrolled.
template <int IMAGES, int ROWS, int COLUMNS, int VECTORS, class F>
INLINE void each_sum(F f) {
#pragma GCC unroll 8
  for (int i = 0; i < IMAGES; ++i)
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 32
      for (int p = 0; p < COLUMNS; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) f(i, r, p, v);
}

template <class S, int IMAGES, int ROWS, int COLUMNS, class In>
INLINE void convolve(Sums<S, IMAGES, ROWS, COLUMNS>& sum, const float* __restrict__ params, const In& in, int n, int channel,
                     int y, int x) {
  typedef Vector<S::LANES> V;
  const int group = channel / S::GROUP_OUT, place = channel % S::GROUP_OUT;
  each_sum<IMAGES, ROWS, COLUMNS, S::BLOCK_V>([&](int i, int r, int p, int v) {
    sum[i][r][p][v] = load<V>(params + S::BIAS + channel + v * S::LANES);
  });
  const float* weights = params + S::WEIGHTS + group * S::GROUP_SIZE + weight_place<S>(place);
  const int first = group * S::GROUP_IN - in.c0, row = y * S::STRIDE_Y + S::OFFSET_Y, column = x * S::STRIDE_X + S::OFFSET_X;
  for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
    typename In::Row start[ROWS];
    for (int r = 0; r < ROWS; ++r) start[r] = in.row(n, first, row + r * S::STRIDE_Y + ky * S::DILATION_Y, column);
    for (int kx = 0; kx < S::KERNEL_X; ++kx) {
      typename In::Row read[ROWS];
      for (int r = 0; r < ROWS; ++r) read[r] = start[r].from(kx * S::DILATION_X);
      for (int ci = 0; ci < S::GROUP_IN; ++ci, weights += S::WEIGHT_LANES) {
        V w[S::BLOCK_V];
#pragma GCC unroll 8
        for (int v = 0; v < S::BLOCK_V; ++v)
          w[v] = in_register(load<V>(weights + (S::LANES == S::WEIGHT_LANES
                                                    ? v * S::VECTOR_SIZE
                                                    : weight_place<S>(place + v * S::LANES) - weight_place<S>(place))));
        each_sum<IMAGES, ROWS, COLUMNS, 1>([&](int i, int r, int p, int) {
          const float value = read[r].at(i, p * S::STRIDE_X);
#pragma GCC unroll 8
          for (int v = 0; v < S::BLOCK_V; ++v) sum[i][r][p][v] = multiply_add(value, w[v], sum[i][r][p][v]);
        });
        for (int r = 0; r < ROWS; ++r) read[r].next_channel();
      }
    }
  }
}

template <class S, int IMAGES, int COLUMNS, class Out, class In>
INLINE void conv_block(const Out& out, const float* __restrict__ params, const In& in, const Region& r, int n, int c, int y, int x,
                       int count) {
  const int channel = out.c0 + c;
  Sums<S, IMAGES, 1, COLUMNS> sum;
  convolve<S, IMAGES, 1, COLUMNS>(sum, params, in, n, channel, y, x);
  each_sum<IMAGES, 1, COLUMNS, S::BLOCK_V>([&](int i, int, int p, int v) {
    if (x + p < r.left || x + p >= r.right) return;
    out.template put<S::LANES>(n + i, c + v * S::LANES, y, x + p, S::epilogue(sum[i][0][p][v], channel + v * S::LANES, params),
                               count - v * S::LANES);
  });
}

// A convolution whose output goes, in registers, into a pool P without overlap or padding: whole windows at once.
template <class S, class P, int IMAGES, int COLUMNS, class Out, class In>
INLINE void pool_block(const Out& out, const float* __restrict__ params, const In& in, const Region& region, int n, int c, int y,
                       int x, int count) {
  typedef Vector<S::LANES> V;
  constexpr int ROWS = P::KERNEL_Y, WIDTH = COLUMNS * P::KERNEL_X;
  const int channel = out.c0 + c;
  Sums<S, IMAGES, ROWS, WIDTH> sum;
  convolve<S, IMAGES, ROWS, WIDTH>(sum, params, in, n, channel, y * ROWS, x * P::KERNEL_X);
  each_sum<IMAGES, 1, COLUMNS, S::BLOCK_V>([&](int i, int, int p, int v) {
    if (x + p < region.left || x + p >= region.right) return;
    const int first = channel + v * S::LANES;
    V pooled = V{} + (P::MEAN ? 0.0f : -infinity());
    each_sum<1, ROWS, P::KERNEL_X, 1>([&](int, int r, int k, int) {
      const V value = S::epilogue(sum[i][r][p * P::KERNEL_X + k][v], first, params);
      pooled = P::MEAN ? pooled + unfused(value) : larger(value, pooled);
    });
    if (P::MEAN) pooled = pooled / float(ROWS * P::KERNEL_X);
    out.template put<S::LANES>(n + i, c + v * S::LANES, y, x + p, P::epilogue(pooled, first, params), count - v * S::LANES);
  });
}

// Every block of a region: STEP columns of BLOCK_N images. The last one of a row starts early; where the region is narrower than a
// block, the block starts with the box, which is not, and what lies outside the region is computed but not stored.
// `block(images, n, c, y, x, count)` gets the first as a constant; `count` channels from c on are to be stored.
template <class S, int STEP, class F>
INLINE void each_block(const Region& r, F block) {
  const auto row = [&](auto images, int n, int c, int y, int count) {
    for (int x = r.left; x < r.right; x += STEP) block(images, n, c, y, most(0, least(x, r.right - STEP)), count);
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
  each_block<S, S::BLOCK_X>(r, [&](auto images, int n, int c, int y, int x, int count) {
    conv_block<S, images.value, S::BLOCK_X>(out, params, in, r, n, c, y, x, count);
  });
}

template <class S, class P, class Out, class In>
INLINE void conv2d_pool(const Out& out, const float* __restrict__ params, const In& in) {
  constexpr int COLUMNS = S::BLOCK_X / P::KERNEL_X;
  const Region r = clip_region<P>(out);
  fill_border<P>(out, r);
  each_block<S, COLUMNS>(r, [&](auto images, int n, int c, int y, int x, int count) {
    pool_block<S, P, images.value, COLUMNS>(out, params, in, r, n, c, y, x, count);
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
