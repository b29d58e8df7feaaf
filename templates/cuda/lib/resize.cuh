// Where an output position lies: between two positions of the box that is read, both kept inside the image, and how near the
// second one it is.
struct Between {
  int low, high;
  float weight;
};

// `place` counts output positions from the first of those in read position `offset`; CENTRE is twice the distance, in output
// positions, from the middle of a read position to the place that stands for it, and the box begins at `origin` of `extent`.
template <int FACTOR, int CENTRE>
__device__ __forceinline__ Between between(int place, int offset, int origin, int extent) {
  const int side = place % FACTOR * 2 + CENTRE, pixel = place / FACTOR + offset - (side < 0), behind = pixel + (side != 0);
  const int first = -origin, last = extent - 1 - origin;
  return Between{pixel < first ? first : pixel > last ? last : pixel, behind < first ? first : behind > last ? last : behind,
                 float(side < 0 ? side + 2 * FACTOR : side) / float(2 * FACTOR)};
}

__device__ __forceinline__ float on_the_line(float a, float b, float weight) { return fmaf(b - a, weight, a); }

// Linear enlargement: along the columns, then along the rows.
template <class S, class Out, class In>
__device__ __forceinline__ void upsample_linear(const Out& out, const float* __restrict__ params, const In& in) {
  each_position<S>(out, [&](const Position<S>& o) {
    float v = 0.0f;
    if (S::INSIDE || out.inside(o.y, o.x)) {
      const int c = out.c0 + o.c - in.c0;
      const Between y = between<S::FACTOR_Y, S::CENTRE_Y>(o.y + S::PHASE_Y, S::OFFSET_Y, in.y0, in.height);
      const Between x = between<S::FACTOR_X, S::CENTRE_X>(o.x + S::PHASE_X, S::OFFSET_X, in.x0, in.width);
      const float above = on_the_line(in.at(o.n, c, y.low, x.low), in.at(o.n, c, y.low, x.high), x.weight);
      const float below = on_the_line(in.at(o.n, c, y.high, x.low), in.at(o.n, c, y.high, x.high), x.weight);
      v = on_the_line(above, below, y.weight);
    }
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, out.c0 + o.c, params));
  });
}
