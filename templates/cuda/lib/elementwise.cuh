// Layers that make each output of one value of every input: one output per thread and step. Inputs come `shifted`, or `spread`
// where their one channel or pixel goes with all of the stage's.
template <class In, bool ONE_CHANNEL, bool ONE_PIXEL, int Y, int X>
struct Spread {
  const In& in;
  __device__ __forceinline__ float at(int n, int c, int y, int x) const {
    return in.at(n, (ONE_CHANNEL ? 0 : c) - in.c0, ONE_PIXEL ? -in.y0 : y + Y, ONE_PIXEL ? -in.x0 : x + X);
  }
};
template <bool ONE_CHANNEL, bool ONE_PIXEL, int Y, int X, class In>
__device__ __forceinline__ Spread<In, ONE_CHANNEL, ONE_PIXEL, Y, X> spread(const In& in) {
  return Spread<In, ONE_CHANNEL, ONE_PIXEL, Y, X>{in};
}

// f(f(first, second), third) and so on for every position.
template <class S, class F, class Out, class First, class... Rest>
__device__ __forceinline__ void elementwise(F f, const Out& out, const float* __restrict__ params, const First& first,
                                            const Rest&... rest) {
  each_position<S>(out, [&](const Position<S>& o) {
    float v = first.at(o.n, out.c0 + o.c, o.y, o.x);
    ((v = f(v, rest.at(o.n, out.c0 + o.c, o.y, o.x))), ...);
    out.template store<S::INSIDE>(o.n, o.c, o.y, o.x, S::epilogue(v, out.c0 + o.c, params));
  });
}

template <class S, class Out, class... Ins>
__device__ __forceinline__ void add(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](float a, float b) { return a + b; }, out, params, ins...);
}
template <class S, class Out, class... Ins>
__device__ __forceinline__ void subtract(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](float a, float b) { return a - b; }, out, params, ins...);
}
template <class S, class Out, class... Ins>
__device__ __forceinline__ void multiply(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](float a, float b) { return a * b; }, out, params, ins...);
}
template <class S, class Out, class... Ins>
__device__ __forceinline__ void divide(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](float a, float b) { return __fdiv_rn(a, b); }, out, params, ins...);
}
// NaN wins in both.
template <class S, class Out, class... Ins>
__device__ __forceinline__ void minimum(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](float a, float b) { return b < a || b != b ? b : a; }, out, params, ins...);
}
template <class S, class Out, class... Ins>
__device__ __forceinline__ void maximum(const Out& out, const float* __restrict__ params, const Ins&... ins) {
  elementwise<S>([](float a, float b) { return b > a || b != b ? b : a; }, out, params, ins...);
}
