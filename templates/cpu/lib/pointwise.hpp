// Layers that make each output of one position of each input. Inputs come `shifted`, so that they are asked for positions of the
// stage's own box.
template <class S, class Out, class F>
INLINE void each_position(const Out& out, int first, F f) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r, first);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x)
        for (int c = 0; c < S::CHANNELS; ++c) f(n, c, y, x);
}

// The same by vectors of channels: `count` of them are left from c on.
template <class S, class Out, class F>
INLINE void each_vector(const Out& out, int first, F f) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r, first);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x)
        for (int c = 0; c < S::CHANNELS; c += S::LANES) f(n, c, y, x, S::CHANNELS - c);
}

// Copy a box into scratch, or a tensor that an activation alone changes.
template <class S, class Out, class In>
INLINE void copy(const Out& out, const float* __restrict__ params, const In& in) {
  each_vector<S>(out, 0, [&](int n, int c, int y, int x, int count) {
    const int channel = out.c0 + c;
    const auto v = in.template some<S::LANES>(n, channel, y, x, count);
    out.template put<S::LANES>(n, c, y, x, S::epilogue(v, channel, params), count);
  });
}

// One operand of a concatenation: its CHANNELS channels go to FIRST and on.
template <class S, class Out, class In>
INLINE void concat(const Out& out, const float* __restrict__ params, const In& in) {
  each_vector<S>(out, S::FIRST, [&](int n, int c, int y, int x, int count) {
    const auto v = in.template some<S::LANES>(n, c, y, x, count);
    out.template put<S::LANES>(n, S::FIRST + c, y, x, S::epilogue(v, S::FIRST + c, params), count);
  });
}

// Nearest neighbour: output row y lies in read row (y + PHASE) / FACTOR + OFFSET.
template <class S, class Out, class In>
INLINE void upsample(const Out& out, const float* __restrict__ params, const In& in) {
  each_vector<S>(out, 0, [&](int n, int c, int y, int x, int count) {
    const int channel = out.c0 + c;
    const auto v = in.template some<S::LANES>(n, channel - in.c0, (y + S::PHASE_Y) / S::FACTOR_Y + S::OFFSET_Y,
                                              (x + S::PHASE_X) / S::FACTOR_X + S::OFFSET_X, count);
    out.template put<S::LANES>(n, c, y, x, S::epilogue(v, channel, params), count);
  });
}

// Input channel = place in the block * PLACE_PITCH + output channel * CHANNEL_PITCH (orders DCR and CRD).
template <class S, class Out, class In>
INLINE void depth_to_space(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, 0, [&](int n, int c, int row, int column) {
    const int y = row + S::PHASE_Y, x = column + S::PHASE_X, place = y % S::FACTOR_Y * S::FACTOR_X + x % S::FACTOR_X;
    const float v = in.at(n, place * S::PLACE_PITCH + c * S::CHANNEL_PITCH, y / S::FACTOR_Y + S::OFFSET_Y,
                          x / S::FACTOR_X + S::OFFSET_X);
    out.put(n, c, row, column, S::epilogue(v, out.c0 + c, params));
  });
}

// Output channel c is element c of the image, row-major by channel, row, column.
template <class S, class Out, class In>
INLINE void flatten(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, 0, [&](int n, int local, int y, int x) {
    const int c = out.c0 + local;
    const float v = in.at(n, c / (S::HEIGHT * S::WIDTH) - in.c0, c / S::WIDTH % S::HEIGHT - in.y0, c % S::WIDTH - in.x0);
    out.put(n, local, y, x, S::epilogue(v, c, params));
  });
}

// v / (K + ALPHA / SIZE * sum of squares over SIZE neighbouring channels) ** BETA; the input has DEPTH channels.
template <class S, class Out, class In>
INLINE void local_response_norm(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, 0, [&](int n, int local, int y, int x) {
    const int c = out.c0 + local;
    float squares = 0.0f;
    for (int k = most(0, c - S::BEFORE); k < least(S::DEPTH, c - S::BEFORE + S::SIZE); ++k) {
      const float v = in.at(n, k, y, x);
      squares = multiply_add(v, v, squares);
    }
    const float scale = std::pow(multiply_add(S::ALPHA / S::SIZE, squares, S::K), -S::BETA);
    out.put(n, local, y, x, S::epilogue(in.at(n, c, y, x) * scale, c, params));
  });
}
