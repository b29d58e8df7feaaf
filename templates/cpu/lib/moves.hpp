// Layers that move values.

// Channel c is channel START + c * STEP of the input, which comes `shifted`.
template <class S, class Out, class In>
INLINE void slice_channels(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x) {
        if constexpr (S::STEP == 1) {
          for (int c = 0; c < S::CHANNELS; c += S::LANES) {
            const auto v = in.template some<S::LANES>(n, S::START + out.c0 + c, y, x, S::CHANNELS - c);
            out.template put<S::LANES>(n, c, y, x, S::epilogue(v, out.c0 + c, params), S::CHANNELS - c);
          }
        } else {
          for (int c = 0; c < S::CHANNELS; ++c)
            out.put(n, c, y, x, S::epilogue(in.at(n, S::START + (out.c0 + c) * S::STEP, y, x), out.c0 + c, params));
        }
      }
}

// The input has DEPTH channels; those of one place in a block of BLOCK x BLOCK pixels lie together in the output.
template <class S, class Out, class In>
INLINE void space_to_depth(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x)
        for (int c = 0; c < S::CHANNELS; ++c) {
          const int channel = out.c0 + c, place = channel / S::DEPTH;
          const float v = in.at(n, channel % S::DEPTH - in.c0, y * S::BLOCK + S::OFFSET_Y + place / S::BLOCK,
                                x * S::BLOCK + S::OFFSET_X + place % S::BLOCK);
          out.put(n, c, y, x, S::epilogue(v, channel, params));
        }
}

// VALUE around the image.
template <class S, class Out, class In>
INLINE void pad(const Out& out, const float* __restrict__ params, const In& in) {
  typedef Vector<S::LANES> V;
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x) {
        const int row = y + S::OFFSET_Y, column = x + S::OFFSET_X;
        const bool inside = unsigned(in.y0 + row) < unsigned(in.height) && unsigned(in.x0 + column) < unsigned(in.width);
        for (int c = 0; c < S::CHANNELS; c += S::LANES) {
          const int channel = out.c0 + c, count = S::CHANNELS - c;
          const V v = inside ? in.template some<S::LANES>(n, channel - in.c0, row, column, count) : V{} + S::VALUE;
          out.template put<S::LANES>(n, c, y, x, S::epilogue(v, channel, params), count);
        }
      }
}
