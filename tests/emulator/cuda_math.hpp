// CUDA's vector types, arithmetic functions and loads for the emulator; part of cuda_emulator.hpp.
//
// The C library's functions are declared here rather than included: <cmath> would cost more time than most kernels, and its
// private names (__expf and others) are CUDA's public ones.
#pragma once

#include "runtime.hpp"

// --- vector types ---------------------------------------------------------------------------------------------------------

#define FUSEC_EMULATOR_VECTORS(name, type)                                                                   \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                                 \
    struct alignas(4 * sizeof(type)) name##4 { type x, y, z, w; };                                           \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                         \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

FUSEC_EMULATOR_VECTORS(float, float)
FUSEC_EMULATOR_VECTORS(int, int)
FUSEC_EMULATOR_VECTORS(uint, unsigned int)
#undef FUSEC_EMULATOR_VECTORS

struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

// --- the C library's part -------------------------------------------------------------------------------------------------

extern "C" {
float acosf(float) noexcept;
float atanf(float) noexcept;
float ceilf(float) noexcept;
float copysignf(float, float) noexcept;
float cosf(float) noexcept;
float erfcf(float) noexcept;
float erff(float) noexcept;
float exp2f(float) noexcept;
float expf(float) noexcept;
float expm1f(float) noexcept;
float fabsf(float) noexcept;
float floorf(float) noexcept;
float fmaf(float, float, float) noexcept;
float fmaxf(float, float) noexcept;
float fminf(float, float) noexcept;
float fmodf(float, float) noexcept;
float log1pf(float) noexcept;
float log2f(float) noexcept;
float logf(float) noexcept;
float powf(float, float) noexcept;
float rintf(float) noexcept;
float roundf(float) noexcept;
float sinf(float) noexcept;
float sqrtf(float) noexcept;
float tanhf(float) noexcept;
float truncf(float) noexcept;
double exp(double) noexcept;
double fabs(double) noexcept;
double fma(double, double, double) noexcept;
double fmax(double, double) noexcept;
double fmin(double, double) noexcept;
double sqrt(double) noexcept;
int abs(int) noexcept;
int printf(const char*, ...);
}

// Macros, because the host's library may declare functions of these names.
#define __expf expf
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define rsqrtf ::fusec_emulator::reciprocal_square_root

namespace fusec_emulator {
inline float reciprocal_square_root(float x) { return 1.0f / sqrtf(x); }
long long nanoseconds();
}  // namespace fusec_emulator

// --- arithmetic with a stated rounding ------------------------------------------------------------------------------------

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return fminf(fmaxf(a, 0.0f), 1.0f); }

#define FUSEC_EMULATOR_MIN_MAX(type)                               \
    inline type min(type a, type b) { return b < a ? b : a; }      \
    inline type max(type a, type b) { return a < b ? b : a; }

FUSEC_EMULATOR_MIN_MAX(int)
FUSEC_EMULATOR_MIN_MAX(unsigned int)
FUSEC_EMULATOR_MIN_MAX(long)
FUSEC_EMULATOR_MIN_MAX(unsigned long)
FUSEC_EMULATOR_MIN_MAX(long long)
FUSEC_EMULATOR_MIN_MAX(unsigned long long)
#undef FUSEC_EMULATOR_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// --- bits and integers ----------------------------------------------------------------------------------------------------

namespace fusec_emulator {
template <class To, class From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "a change of type keeps the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}
}  // namespace fusec_emulator

inline int __float_as_int(float x) { return fusec_emulator::bits_as<int>(x); }
inline unsigned int __float_as_uint(float x) { return fusec_emulator::bits_as<unsigned int>(x); }
inline float __int_as_float(int x) { return fusec_emulator::bits_as<float>(x); }
inline float __uint_as_float(unsigned int x) { return fusec_emulator::bits_as<float>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline int __popc(unsigned int x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned int>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned int __umulhi(unsigned int a, unsigned int b) { return static_cast<unsigned int>((uint64_t{a} * b) >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>((int64_t{a} * b) >> 32); }

// --- memory ---------------------------------------------------------------------------------------------------------------

template <class T>
inline T __ldg(const T* address) {
    return *address;
}
template <class T>
inline T __ldcg(const T* address) {
    return *address;
}
template <class T>
inline T __ldcs(const T* address) {
    return *address;
}
template <class T>
inline void __stcs(T* address, T value) {
    *address = value;
}
template <class T>
inline void __stcg(T* address, T value) {
    *address = value;
}

// Plain operations: no other thread of the grid runs until this one comes to a barrier.
#define FUSEC_EMULATOR_ATOMIC(name, type, expression)   \
    inline type name(type* address, type value) {       \
        const type old = *address;                      \
        *address = expression;                          \
        return old;                                     \
    }

FUSEC_EMULATOR_ATOMIC(atomicAdd, int, old + value)
FUSEC_EMULATOR_ATOMIC(atomicAdd, unsigned int, old + value)
FUSEC_EMULATOR_ATOMIC(atomicAdd, unsigned long long, old + value)
FUSEC_EMULATOR_ATOMIC(atomicAdd, float, old + value)
FUSEC_EMULATOR_ATOMIC(atomicAdd, double, old + value)
FUSEC_EMULATOR_ATOMIC(atomicMax, int, max(old, value))
FUSEC_EMULATOR_ATOMIC(atomicMin, int, min(old, value))
FUSEC_EMULATOR_ATOMIC(atomicExch, int, value)
FUSEC_EMULATOR_ATOMIC(atomicExch, float, value)
#undef FUSEC_EMULATOR_ATOMIC

// Nanoseconds rather than cycles.
inline long long clock64() { return fusec_emulator::nanoseconds(); }
