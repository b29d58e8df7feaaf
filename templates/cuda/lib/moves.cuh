// Layers that move values: one output per thread and step.

// Channel c is channel START + c * STEP of the input, which comes `shifted`.
template <class S, class Out, class In>
__device__ __forceinline__ void slice_channels(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const int c = out.c0 + o.c;
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(in.at(o.n, S::START + c * S::STEP, o.y, o.x), c, params));
  });
}

// The input has DEPTH channels; those of one place in a block of BLOCK x BLOCK pixels lie together in the output.
template <class S, class Out, class In>
__device__ __forceinline__ void space_to_depth(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const int c = out.c0 + o.c, place = c / S::DEPTH;
    const float v = in.at(o.n, c % S::DEPTH - in.c0, o.y * S::BLOCK + S::OFFSET_Y + place / S::BLOCK,
                          o.x * S::BLOCK + S::OFFSET_X + place % S::BLOCK);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, c, params));
  });
}

// VALUE around the image.
template <class S, class Out, class In>
__device__ __forceinline__ void pad(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    const float v = in.guarded(o.n, out.c0 + o.c - in.c0, o.y + S::OFFSET_Y, o.x + S::OFFSET_X, S::VALUE);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, out.c0 + o.c, params));
  });
}
