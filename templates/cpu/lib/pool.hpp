// Pooling, channels innermost. Windows of max pooling are clipped to the image; averages divide by the taps that count.
struct Span {
  int from, to;
};
// Taps k in [from, to) of a window that starts at `start` lie in [low, high).
INLINE Span taps_within(int start, int kernel, int dilation, int low, int high) {
  const int from = start < low ? (low - start + dilation - 1) / dilation : 0;
  const int to = start < high ? (high - start + dilation - 1) / dilation : 0;
  return Span{from, most(from, least(kernel, to))};
}

template <class S, class Out, class In>
INLINE void max_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  typedef Vector<S::LANES> V;
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y) {
      const int row = y * S::STRIDE_Y + S::OFFSET_Y;
      const Span rows = taps_within(in.y0 + row, S::KERNEL_Y, S::DILATION_Y, 0, in.height);
      for (int x = r.left; x < r.right; ++x) {
        const int column = x * S::STRIDE_X + S::OFFSET_X;
        const Span columns = taps_within(in.x0 + column, S::KERNEL_X, S::DILATION_X, 0, in.width);
        for (int c = 0; c < S::CHANNELS; c += S::LANES) {
          const int channel = out.c0 + c, count = S::CHANNELS - c;
          V best = V{} - infinity();
          for (int ky = rows.from; ky < rows.to; ++ky)
            for (int kx = columns.from; kx < columns.to; ++kx)
              best = larger(in.template some<S::LANES>(n, channel - in.c0, row + ky * S::DILATION_Y,
                                                       column + kx * S::DILATION_X, count), best);
          out.template put<S::LANES>(n, c, y, x, S::epilogue(best, channel, params), count);
        }
      }
    }
}

// Averages divide by the taps inside the padded image, or inside the image alone.
template <class S, class Out, class In>
INLINE void avg_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  typedef Vector<S::LANES> V;
  constexpr int TOP = S::PADDING_COUNTS ? S::BEFORE_Y : 0, BOTTOM = S::PADDING_COUNTS ? S::AFTER_Y : 0;
  constexpr int LEFT = S::PADDING_COUNTS ? S::BEFORE_X : 0, RIGHT = S::PADDING_COUNTS ? S::AFTER_X : 0;
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x) {
        const int row = y * S::STRIDE_Y + S::OFFSET_Y, column = x * S::STRIDE_X + S::OFFSET_X;
        const Span rows = taps_within(in.y0 + row, S::KERNEL_Y, S::DILATION_Y, -TOP, in.height + BOTTOM);
        const Span columns = taps_within(in.x0 + column, S::KERNEL_X, S::DILATION_X, -LEFT, in.width + RIGHT);
        const float taps = float((rows.to - rows.from) * (columns.to - columns.from));
        for (int c = 0; c < S::CHANNELS; c += S::LANES) {
          const int channel = out.c0 + c, count = S::CHANNELS - c;
          V sum{};
          for (int ky = 0; ky < S::KERNEL_Y; ++ky)
            for (int kx = 0; kx < S::KERNEL_X; ++kx)
              sum += in.template padded<S::LANES>(n, channel - in.c0, row + ky * S::DILATION_Y, column + kx * S::DILATION_X,
                                                  count);
          out.template put<S::LANES>(n, c, y, x, S::epilogue(taps > 0.0f ? sum / taps : V{}, channel, params), count);
        }
      }
}
