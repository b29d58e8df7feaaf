// More pointwise functions of epilogues, on floats and vectors. A comparison that NaN fails keeps NaN, as the reference does; sums
// of products are `multiply_add`, so that they are the same in every kernel. No exponential of a large positive number is taken.
INLINE float expm1_below(float v, float alpha) { return v < 0.0f ? alpha * std::expm1(v) : v; }
INLINE float softplus_of(float v) { return relu(v) + std::log1p(std::exp(-std::fabs(v))); }

template <class V>
INLINE V elu(V v, float alpha) {
  return each_lane(v, [=](float x) { return expm1_below(x, alpha); });
}
template <class V>
INLINE V selu(V v, float alpha, float gamma) {
  return gamma * elu(v, alpha);
}
template <class V>
INLINE V hard_sigmoid(V v, float alpha, float beta) {
  return clip(multiply_add(v, V{} + alpha, V{} + beta), 0.0f, 1.0f);
}
template <class V>
INLINE V hard_swish(V v) {
  return v * hard_sigmoid(v, 1.0f / 6.0f, 0.5f);
}
template <class V>
INLINE V softplus(V v) {
  return each_lane(v, softplus_of);
}
template <class V>
INLINE V mish(V v) {
  return v * each_lane(v, [](float x) { return std::tanh(softplus_of(x)); });
}
template <class V>
INLINE V gelu(V v) {
  return v * each_lane(v, [](float x) { return 0.5f * std::erfc(x * -0.707106781f); });
}
template <class V>
INLINE V gelu_tanh(V v) {
  return v * sigmoid(1.59576912f * multiply_add(0.044715f * v * v, v, v));
}
template <class V>
INLINE V negative(V v) {
  return -v;
}
template <class V>
INLINE V absolute(V v) {
  const V zero = V{};
  return v <= zero ? zero - v : v;
}
template <class V>
INLINE V square_root(V v) {
  return each_lane(v, [](float x) { return std::sqrt(x); });
}
template <class V>
INLINE V exponential(V v) {
  return each_lane(v, [](float x) { return std::exp(x); });
}
template <class V>
INLINE V reciprocal(V v) {
  return 1.0f / v;
}
template <class V>
INLINE V power(V v, float exponent) {
  return each_lane(v, [=](float x) { return std::pow(x, exponent); });
}

// v multiplied FACTORS times.
template <int FACTORS, class V>
INLINE V product(V v) {
  V result = V{} + 1.0f;
  for (int i = 0; i < FACTORS; ++i) result *= v;
  return result;
}
