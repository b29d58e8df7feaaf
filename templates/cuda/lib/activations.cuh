// More pointwise functions of epilogues. A comparison that NaN fails keeps NaN, as the reference does; sums are fused or rounded
// by name, so that they are the same in every kernel. No exponential of a large positive number is taken.
__device__ __forceinline__ float elu(float v, float alpha) { return v < 0.0f ? alpha * expm1f(v) : v; }
__device__ __forceinline__ float selu(float v, float alpha, float gamma) { return gamma * elu(v, alpha); }
__device__ __forceinline__ float hard_sigmoid(float v, float alpha, float beta) { return clip(fmaf(v, alpha, beta), 0.0f, 1.0f); }
__device__ __forceinline__ float hard_swish(float v) { return v * hard_sigmoid(v, 1.0f / 6.0f, 0.5f); }
__device__ __forceinline__ float softplus(float v) { return __fadd_rn(relu(v), log1pf(expf(-fabsf(v)))); }
__device__ __forceinline__ float mish(float v) { return v * tanhf(softplus(v)); }
__device__ __forceinline__ float gelu(float v) { return v * (0.5f * erfcf(v * -0.707106781f)); }
__device__ __forceinline__ float gelu_tanh(float v) { return v * sigmoid(1.59576912f * fmaf(0.044715f * v * v, v, v)); }
__device__ __forceinline__ float negative(float v) { return -v; }
__device__ __forceinline__ float absolute(float v) { return fabsf(v); }
__device__ __forceinline__ float square_root(float v) { return __fsqrt_rn(v); }
__device__ __forceinline__ float exponential(float v) { return expf(v); }
__device__ __forceinline__ float reciprocal(float v) { return __fdiv_rn(1.0f, v); }
__device__ __forceinline__ float power(float v, float exponent) { return powf(v, exponent); }

// v multiplied FACTORS times.
template <int FACTORS>
__device__ __forceinline__ float product(float v) {
  float result = 1.0f;
#pragma unroll
  for (int i = 0; i < FACTORS; ++i) result *= v;
  return result;
}
