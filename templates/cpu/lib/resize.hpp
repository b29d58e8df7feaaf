// Where an output position lies: between two positions of the box that is read, both kept inside the image, and how near the
// second one it is.
struct Between {
  int low, high;
  float weight;
};

// `place` counts output positions from the first of those in read position `offset`; CENTRE is twice the distance, in output
// positions, from the middle of a read position to the place that stands for it, and the box begins at `origin` of `extent`.
template <int FACTOR, int CENTRE>
INLINE Between between(int place, int offset, int origin, int extent) {
  const int side = place % FACTOR * 2 + CENTRE, pixel = place / FACTOR + offset - (side < 0), behind = pixel + (side != 0);
  const int first = -origin, last = extent - 1 - origin;
  return Between{most(first, least(pixel, last)), most(first, least(behind, last)),
                 float(side < 0 ? side + 2 * FACTOR : side) / float(2 * FACTOR)};
}

template <class V>
INLINE V on_the_line(V a, V b, float weight) {
  return multiply_add(b - a, V{} + weight, a);
}

// Linear enlargement: along the columns, then along the rows.
template <class S, class Out, class In>
INLINE void upsample_linear(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int row = r.top; row < r.bottom; ++row) {
      const Between y = between<S::FACTOR_Y, S::CENTRE_Y>(row + S::PHASE_Y, S::OFFSET_Y, in.y0, in.height);
      for (int column = r.left; column < r.right; ++column) {
        const Between x = between<S::FACTOR_X, S::CENTRE_X>(column + S::PHASE_X, S::OFFSET_X, in.x0, in.width);
        for (int c = 0; c < S::CHANNELS; c += S::LANES) {
          const int channel = out.c0 + c, count = S::CHANNELS - c, from = channel - in.c0;
          const auto above = on_the_line(in.template some<S::LANES>(n, from, y.low, x.low, count),
                                         in.template some<S::LANES>(n, from, y.low, x.high, count), x.weight);
          const auto below = on_the_line(in.template some<S::LANES>(n, from, y.high, x.low, count),
                                         in.template some<S::LANES>(n, from, y.high, x.high, count), x.weight);
          out.template put<S::LANES>(n, c, row, column, S::epilogue(on_the_line(above, below, y.weight), channel, params), count);
        }
      }
    }
}
