// Pooling, channels innermost. Windows of max pooling are clipped to the image; averages divide by the positions that count.
struct Span {
  int from, to;
};
// Taps k in [from, to) of a window that starts at `start` (in the image) and lie inside it.
INLINE Span taps_inside(int start, int kernel, int dilation, int size) {
  const int from = start < 0 ? (-start + dilation - 1) / dilation : 0;
  const int to = start < size ? (size - start + dilation - 1) / dilation : 0;
  return Span{from, least(kernel, to)};
}

template <class S, class Out, class In>
INLINE void max_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  float best[S::CHANNELS];
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y) {
      const int row = y * S::STRIDE_Y + S::OFFSET_Y;
      const Span rows = taps_inside(in.y0 + row, S::KERNEL_Y, S::DILATION_Y, in.height);
      for (int x = r.left; x < r.right; ++x) {
        const int column = x * S::STRIDE_X + S::OFFSET_X;
        const Span columns = taps_inside(in.x0 + column, S::KERNEL_X, S::DILATION_X, in.width);
        for (int c = 0; c < S::CHANNELS; ++c) best[c] = -infinity();
        for (int ky = rows.from; ky < rows.to; ++ky)
          for (int kx = columns.from; kx < columns.to; ++kx)
            for (int c = 0; c < S::CHANNELS; ++c) {
              const float v = in.at(n, out.c0 + c - in.c0, row + ky * S::DILATION_Y, column + kx * S::DILATION_X);
              best[c] = (v > best[c]) | (v != v) ? v : best[c];
            }
        for (int c = 0; c < S::CHANNELS; ++c) out.put(n, c, y, x, S::epilogue(best[c], out.c0 + c, params));
      }
    }
}

// Length of the part of the window from `start` that counts: inside the padded image, or inside the image alone; at least 0.
template <bool PADDING_COUNTS>
INLINE int counted(int start, int kernel, int after, int size) {
  const int end = least(start + kernel, size + after);
  return most(0, PADDING_COUNTS ? end - start : least(end, size) - most(start, 0));
}

template <class S, class Out, class In>
INLINE void avg_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  float sum[S::CHANNELS];
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x) {
        const int row = y * S::STRIDE_Y + S::OFFSET_Y, column = x * S::STRIDE_X + S::OFFSET_X;
        for (int c = 0; c < S::CHANNELS; ++c) sum[c] = 0.0f;
        for (int ky = 0; ky < S::KERNEL_Y; ++ky)
          for (int kx = 0; kx < S::KERNEL_X; ++kx)
            for (int c = 0; c < S::CHANNELS; ++c) sum[c] += in.at(n, out.c0 + c - in.c0, row + ky, column + kx);
        const float count = float(counted<S::PADDING_COUNTS>(in.y0 + row, S::KERNEL_Y, S::AFTER_Y, in.height) *
                                  counted<S::PADDING_COUNTS>(in.x0 + column, S::KERNEL_X, S::AFTER_X, in.width));
        for (int c = 0; c < S::CHANNELS; ++c) out.put(n, c, y, x, S::epilogue(count > 0.0f ? sum[c] / count : 0.0f, out.c0 + c, params));
      }
}
