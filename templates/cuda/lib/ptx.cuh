// Words for single PTX instructions: 16-bit floats, matrices of a warp, copies that go on beside the arithmetic. Layouts are
// those of the PTX ISA. A word is there where the architecture has its instruction: bfloat16 from sm_80 on; on sm_75 a copy is
// a plain one. The tests' emulator has functions of the same names (tests/emulator/cuda_matrix.hpp): a host takes no PTX.
#ifndef FUSEC_EMULATOR

typedef unsigned short half_bits;  // a float16 or a bfloat16 as its bits

// --- conversions: to nearest even, past the largest to infinity --------------------------------------------------------------

__device__ __forceinline__ float half_to_float(half_bits v) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
  return f;
}
__device__ __forceinline__ half_bits float_to_half(float v) {
  half_bits h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
  return h;
}
// Two of them, `low` in bits 0 to 15.
__device__ __forceinline__ unsigned floats_to_half2(float low, float high) {
#if __CUDA_ARCH__ >= 800
  unsigned h;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(h) : "f"(high), "f"(low));
  return h;
#else
  return float_to_half(low) | unsigned(float_to_half(high)) << 16;
#endif
}
// The same of the larger of each and zero; NaN stays NaN.
__device__ __forceinline__ unsigned floats_to_half2_relu(float low, float high) {
#if __CUDA_ARCH__ >= 800
  unsigned h;
  asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(h) : "f"(high), "f"(low));
  return h;
#else
  return floats_to_half2(low < 0.0f ? 0.0f : low, high < 0.0f ? 0.0f : high);
#endif
}
__device__ __forceinline__ float bfloat_to_float(half_bits v) { return __int_as_float(int(unsigned(v) << 16)); }
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ half_bits float_to_bfloat(float v) {
  half_bits h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
  return h;
}
__device__ __forceinline__ unsigned floats_to_bfloat2(float low, float high) {
  unsigned h;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(h) : "f"(high), "f"(low));
  return h;
}
__device__ __forceinline__ unsigned floats_to_bfloat2_relu(float low, float high) {
  unsigned h;
  asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(h) : "f"(high), "f"(low));
  return h;
}
#endif

// --- matrices of a warp: all 32 lanes come to the word together --------------------------------------------------------------

// Load 8 x 8 matrices of 16-bit elements from scratch. Lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i, each of
// 16 aligned bytes; lane l gets elements 2 (l % 4) and the next of row l / 4. Lanes whose rows do not count give good addresses
// too: sm_75 asks for that. The clobbers keep a load between the stores and barriers it stands between.
__device__ __forceinline__ void load_matrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(unsigned(__cvta_generic_to_shared(row))) : "memory");
}
__device__ __forceinline__ void load_matrix_x2(unsigned (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(unsigned(__cvta_generic_to_shared(row))) : "memory");
}
__device__ __forceinline__ void load_matrix_x1(unsigned& r, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r) : "r"(unsigned(__cvta_generic_to_shared(row))) : "memory");
}

// Store them likewise, from sm_90 on: lane l gives elements 2 (l % 4) and the next of row l / 4 of each matrix.
#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void store_matrix_x4(void* row, const unsigned (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
               :: "r"(unsigned(__cvta_generic_to_shared(row))), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}
__device__ __forceinline__ void store_matrix_x2(void* row, const unsigned (&r)[2]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};"
               :: "r"(unsigned(__cvta_generic_to_shared(row))), "r"(r[0]), "r"(r[1]) : "memory");
}
#endif

// A matrix whose lanes hold elements 2 (l % 4) and the next of row l / 4, the other way round.
__device__ __forceinline__ unsigned transpose_matrix(unsigned r) {
  unsigned t;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(r));
  return t;
}

// d = a b + c for a of 16 x K and b of K x 8, K = 8 or 16. With g = lane / 4 and t = lane % 4: a[0] holds row g, a[1] row g + 8,
// both in columns 2 t and 2 t + 1; a[2] and a[3] the same 8 columns on. b[0] holds rows 2 t and 2 t + 1 of column g, b[1] those
// 8 rows on. d[0] and d[1] are columns 2 t and 2 t + 1 of row g, d[2] and d[3] of row g + 8; so for c, which may be d. The low
// half of a register comes first. Volatile, or the compiler would be free to move one behind a branch that only some lanes take;
// the assembler still orders them as it likes.
__device__ __forceinline__ void multiply_f16_k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void multiply_f16_k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                                const float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%10, %11, %12, %13};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
  const unsigned first[2] = {a[0], a[1]}, second[2] = {a[2], a[3]};
  multiply_f16_k8(d, first, b[0], c);
  multiply_f16_k8(d, second, b[1], d);
#endif
}
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void multiply_bf16_k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void multiply_bf16_k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                                 const float (&c)[4]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%10, %11, %12, %13};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
#endif

// --- registers ---------------------------------------------------------------------------------------------------------------

// Load from device memory into registers that keep their values: the compiler does not load them again where they are used.
__device__ __forceinline__ void load_kept_x2(unsigned (&v)[2], const void* global) {
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v[0]), "=r"(v[1]) : "l"(__cvta_generic_to_global(global)) : "memory");
}
__device__ __forceinline__ void load_kept_x4(float (&v)[4], const void* global) {
  asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3]) : "l"(__cvta_generic_to_global(global)) : "memory");
}

// --- copies from device memory into scratch that go on while the thread does -------------------------------------------------

// 16, 8 or 4 bytes, both addresses aligned to as many; zeros where not `inside`, and `global` is not read then. Copies belong
// to the group that copy_async_commit() closes. A thread sees its copies after copy_async_wait<N>(), which returns when all but
// the N newest groups are there; the others see them after a barrier behind that.
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void copy_async_16(void* scratch, const void* global, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(unsigned(__cvta_generic_to_shared(scratch))),
               "l"(__cvta_generic_to_global(global)), "r"(inside ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_8(void* scratch, const void* global, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" :: "r"(unsigned(__cvta_generic_to_shared(scratch))),
               "l"(__cvta_generic_to_global(global)), "r"(inside ? 8 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_4(void* scratch, const void* global, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" :: "r"(unsigned(__cvta_generic_to_shared(scratch))),
               "l"(__cvta_generic_to_global(global)), "r"(inside ? 4 : 0) : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }
#else
__device__ __forceinline__ void copy_async_16(void* scratch, const void* global, bool inside) {
  *static_cast<uint4*>(scratch) = inside ? *static_cast<const uint4*>(global) : uint4{};
}
__device__ __forceinline__ void copy_async_8(void* scratch, const void* global, bool inside) {
  *static_cast<uint2*>(scratch) = inside ? *static_cast<const uint2*>(global) : uint2{};
}
__device__ __forceinline__ void copy_async_4(void* scratch, const void* global, bool inside) {
  *static_cast<unsigned*>(scratch) = inside ? *static_cast<const unsigned*>(global) : 0u;
}
__device__ __forceinline__ void copy_async_commit() {}
template <int N>
__device__ __forceinline__ void copy_async_wait() {}
#endif

#endif  // FUSEC_EMULATOR
