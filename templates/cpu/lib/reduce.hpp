// The mean over the whole image, row by row in double precision, which the box that is read holds. At most one position of the box is written.
template <class S, class Out, class In>
INLINE void global_avg_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  if (r.top >= r.bottom || r.left >= r.right) return;
  double sum[S::CHANNELS];
  for (int n = 0; n < r.images; ++n) {
    for (int c = 0; c < S::CHANNELS; ++c) sum[c] = 0.0;
    for (int y = 0; y < in.height; ++y)
      for (int x = 0; x < in.width; ++x)
        for (int c = 0; c < S::CHANNELS; ++c) sum[c] += *in.pointer(n, out.c0 + c - in.c0, y - in.y0, x - in.x0);
    for (int c = 0; c < S::CHANNELS; ++c)
      out.put(n, c, r.top, r.left, S::epilogue(float(sum[c] / (double(in.height) * in.width)), out.c0 + c, params));
  }
}

// The largest value of the whole image, which the box that is read holds; NaN wins.
template <class S, class Out, class In>
INLINE void global_max_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  typedef Vector<S::LANES> V;
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  if (r.top >= r.bottom || r.left >= r.right) return;
  for (int n = 0; n < r.images; ++n)
    for (int c = 0; c < S::CHANNELS; c += S::LANES) {
      const int channel = out.c0 + c, count = S::CHANNELS - c;
      V best = V{} - infinity();
      for (int y = 0; y < in.height; ++y)
        for (int x = 0; x < in.width; ++x)
          best = larger(in.template some<S::LANES>(n, channel - in.c0, y - in.y0, x - in.x0, count), best);
      out.template put<S::LANES>(n, c, r.top, r.left, S::epilogue(best, channel, params), count);
    }
}

// f(x - max, sum of exp(x - max)) over all DEPTH channels of each position.
template <class S, class F, class Out, class In>
INLINE void over_channels(F f, const Out& out, const float* __restrict__ params, const In& in) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x) {
        float best = -infinity(), sum = 0.0f;
        for (int c = 0; c < S::DEPTH; ++c) best = std::fmax(best, in.at(n, c, y, x));
        for (int c = 0; c < S::DEPTH; ++c) sum += std::exp(in.at(n, c, y, x) - best);
        for (int c = 0; c < S::CHANNELS; ++c)
          out.put(n, c, y, x, S::epilogue(f(in.at(n, out.c0 + c, y, x) - best, sum), out.c0 + c, params));
      }
}

template <class S, class Out, class In>
INLINE void softmax(const Out& out, const float* __restrict__ params, const In& in) {
  over_channels<S>([](float below, float sum) { return std::exp(below) / sum; }, out, params, in);
}
template <class S, class Out, class In>
INLINE void log_softmax(const Out& out, const float* __restrict__ params, const In& in) {
  over_channels<S>([](float below, float sum) { return below - std::log(sum); }, out, params, in);
}
