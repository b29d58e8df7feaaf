// Layers that make each output of one value of every input, by vectors of channels. Inputs come `shifted`, or `spread` where their
// one channel or pixel goes with all of the stage's.
template <class In, bool ONE_CHANNEL, bool ONE_PIXEL, int Y, int X>
struct Spread {
  const In& in;
  template <int LANES>
  INLINE Vector<LANES> some(int n, int c, int y, int x, int count) const {
    const int row = ONE_PIXEL ? -in.y0 : y + Y, column = ONE_PIXEL ? -in.x0 : x + X;
    if constexpr (ONE_CHANNEL) return *in.pointer(n, -in.c0, row, column) - Vector<LANES>{};  // less 0 keeps -0
    else return in.template some<LANES>(n, c - in.c0, row, column, count);
  }
};
template <bool ONE_CHANNEL, bool ONE_PIXEL, int Y, int X, class In>
INLINE Spread<In, ONE_CHANNEL, ONE_PIXEL, Y, X> spread(const In& in) {
  return Spread<In, ONE_CHANNEL, ONE_PIXEL, Y, X>{in};
}

// f(f(first, second), third) and so on for every position.
template <class S, class F, class Out, class First, class... Rest>
INLINE void elementwise(F f, const Out& out, const float* __restrict__ params, const First& first, const Rest&... rest) {
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x)
        for (int c = 0; c < S::CHANNELS; c += S::LANES) {
          const int channel = out.c0 + c, count = S::CHANNELS - c;
          auto v = first.template some<S::LANES>(n, channel, y, x, count);
          ((v = f(v, rest.template some<S::LANES>(n, channel, y, x, count))), ...);
          out.template put<S::LANES>(n, c, y, x, S::epilogue(v, channel, params), count);
        }
}

template <class S, class Out, class... Ins>
INLINE void add(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](auto a, auto b) { return a + b; }, out, params, ins...);
}
template <class S, class Out, class... Ins>
INLINE void subtract(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](auto a, auto b) { return a - b; }, out, params, ins...);
}
template <class S, class Out, class... Ins>
INLINE void multiply(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](auto a, auto b) { return a * b; }, out, params, ins...);
}
template <class S, class Out, class... Ins>
INLINE void divide(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](auto a, auto b) { return a / b; }, out, params, ins...);
}
// NaN wins in both.
template <class S, class Out, class... Ins>
INLINE void minimum(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](auto a, auto b) { return -larger(-b, -a); }, out, params, ins...);
}
template <class S, class Out, class... Ins>
INLINE void maximum(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](auto a, auto b) { return larger(b, a); }, out, params, ins...);
}
