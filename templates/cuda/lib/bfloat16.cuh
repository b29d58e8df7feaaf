// Elements of tensors: bfloat16, two of them in a register of a fragment.
typedef half_bits value_t;
__device__ __forceinline__ float value(value_t v) { return bfloat_to_float(v); }
__device__ __forceinline__ value_t rounded(float v) { return float_to_bfloat(v); }
__device__ __forceinline__ unsigned rounded_pair(float low, float high) { return floats_to_bfloat2(low, high); }
__device__ __forceinline__ unsigned rounded_pair_relu(float low, float high) { return floats_to_bfloat2_relu(low, high); }
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4]) {
  multiply_bf16_k16(d, a, b, c);
}
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]) {
  multiply_bf16_k8(d, a, b, c);
}
