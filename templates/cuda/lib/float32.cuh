// Elements of tensors: float32.
typedef float value_t;
__device__ __forceinline__ float value(value_t v) { return v; }
__device__ __forceinline__ value_t rounded(float v) { return v; }
