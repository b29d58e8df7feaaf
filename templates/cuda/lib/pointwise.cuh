// Layers that make each output of one position of each input: one output per thread and step. Inputs come `shifted`, so that
// they are asked for positions of the stage's own box.

// Copy a box into scratch, or a tensor that an activation alone changes.
template <class S, class Out, class In>
__device__ __forceinline__ void copy(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(in.at(o.n, out.c0 + o.c, o.y, o.x), out.c0 + o.c, params));
  });
}

// One operand of a concatenation: its CHANNELS channels go to FIRST and on.
template <class S, class Out, class In>
__device__ __forceinline__ void concat(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(channels_from<S::FIRST>(out), [&](const Position<S>& o) {
    const int c = S::FIRST + o.c;
    out.template store<S::INSIDE>(o.n, c, o.y, o.x, S::epilogue(in.at(o.n, o.c, o.y, o.x), c, params));
  });
}

// Nearest neighbour: output row y lies in read row (y + PHASE) / FACTOR + OFFSET.
template <class S, class Out, class In>
__device__ __forceinline__ void upsample(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const float v = in.at(o.n, out.c0 + o.c - in.c0, (o.y + S::PHASE_Y) / S::FACTOR_Y + S::OFFSET_Y,
                          (o.x + S::PHASE_X) / S::FACTOR_X + S::OFFSET_X);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, out.c0 + o.c, params));
  });
}

// Input channel = place in the block * PLACE_PITCH + output channel * CHANNEL_PITCH (orders DCR and CRD).
template <class S, class Out, class In>
__device__ __forceinline__ void depth_to_space(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const int y = o.y + S::PHASE_Y, x = o.x + S::PHASE_X;
    const int place = y % S::FACTOR_Y * S::FACTOR_X + x % S::FACTOR_X;
    const float v = in.at(o.n, place * S::PLACE_PITCH + o.c * S::CHANNEL_PITCH, y / S::FACTOR_Y + S::OFFSET_Y,
                          x / S::FACTOR_X + S::OFFSET_X);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, out.c0 + o.c, params));
  });
}

// Output channel c is element c of the image, row-major by channel, row, column.
template <class S, class Out, class In>
__device__ __forceinline__ void flatten(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const int c = out.c0 + o.c;
    const float v = in.at(o.n, c / (S::HEIGHT * S::WIDTH) - in.c0, c / S::WIDTH % S::HEIGHT - in.y0, c % S::WIDTH - in.x0);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, c, params));
  });
}

// v / (K + ALPHA / SIZE * sum of squares over SIZE neighbouring channels) ** BETA; the input has DEPTH channels.
template <class S, class Out, class In>
__device__ __forceinline__ void local_response_norm(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const int c = out.c0 + o.c;
    float squares = 0.0f;
    for (int k = c - S::BEFORE; k < c - S::BEFORE + S::SIZE; ++k) {
      const float v = k >= 0 && k < S::DEPTH ? in.at(o.n, k, o.y, o.x) : 0.0f;
      squares = fmaf(v, v, squares);
    }
    const float v = in.at(o.n, c, o.y, o.x) * powf(fmaf(S::ALPHA / S::SIZE, squares, S::K), -S::BETA);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, c, params));
  });
}
