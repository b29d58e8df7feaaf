// The words of templates/cuda/lib/ptx.cuh for the emulator: 16-bit floats, matrices of a warp, copies that end late; part of
// cuda_emulator.hpp. Same names and parameters; where a word can fail it takes its line as one more, which is filled in.
//
//   * Conversions have the bits of a GPU's, and its one NaN. So do load_matrix_*: elements are moved, not changed.
//   * multiply_*: products and their sum over k, ascending, are double, d is added last, and the result is rounded once to
//     float. A GPU's order and rounding are its own, so the bits of sums that are not exact may differ from a GPU's; sums of
//     integers that fit a float do not. All 32 lanes must come, to the word on the same line: no lane may have left.
//   * Each lane reads its row for load_matrix_* when it comes, and store_matrix_* writes all rows when the last one does: without a barrier or __syncwarp()
//     behind the stores, some order of threads shows it. Rows lie in dynamic shared memory, static arrays are refused.
//   * copy_async_*: the target is poison from the start of the copy to the wait that has to cover it; only then is the source
//     read. A thread that leaves with copies it has not waited for is an error. A barrier missing behind the wait is found as
//     any other is: by the order of threads.
#pragma once

#include "cuda_math.hpp"
#include "runtime.hpp"

typedef unsigned short half_bits;

// --- conversions ----------------------------------------------------------------------------------------------------------

inline float half_to_float(half_bits v) {
    using fusec_emulator::bits_as;
    const unsigned sign = (v & 0x8000u) << 16, magnitude = v & 0x7FFFu;
    if (magnitude > 0x7C00u) return bits_as<float>(0x7FFFFFFFu);
    if (magnitude == 0x7C00u) return bits_as<float>(sign | 0x7F800000u);
    // the exponent's bias is 15 there and 127 here; exact for subnormal numbers too
    return bits_as<float>(sign | bits_as<unsigned>(bits_as<float>(magnitude << 13) * 0x1p112f));
}

inline half_bits float_to_half(float v) {
    using fusec_emulator::bits_as;
    const unsigned bits = bits_as<unsigned>(v), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return 0x7FFF;
    if (magnitude >= 0x477FF000u) return static_cast<half_bits>(sign | 0x7C00u);  // from 65520 on, half a step past the largest
    if (magnitude < 0x38800000u) {  // below 2^-14; the step from 0.5f on, 2^-24, is that of subnormal float16
        return static_cast<half_bits>(sign | (bits_as<unsigned>(bits_as<float>(magnitude) + 0.5f) - 0x3F000000u));
    }
    const unsigned rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
    return static_cast<half_bits>(sign | (rounded - 0x38000000u) >> 13);
}

inline unsigned floats_to_half2(float low, float high) {
    return float_to_half(low) | static_cast<unsigned>(float_to_half(high)) << 16;
}

inline unsigned floats_to_half2_relu(float low, float high) {
    return floats_to_half2(low <= 0.0f ? 0.0f : low, high <= 0.0f ? 0.0f : high);
}

inline float bfloat_to_float(half_bits v) { return fusec_emulator::bits_as<float>(static_cast<unsigned>(v) << 16); }

inline half_bits float_to_bfloat(float v) {
    const unsigned bits = fusec_emulator::bits_as<unsigned>(v);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
    return static_cast<half_bits>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

inline unsigned floats_to_bfloat2(float low, float high) {
    return float_to_bfloat(low) | static_cast<unsigned>(float_to_bfloat(high)) << 16;
}

inline unsigned floats_to_bfloat2_relu(float low, float high) {
    return floats_to_bfloat2(low <= 0.0f ? 0.0f : low, high <= 0.0f ? 0.0f : high);
}

// --- matrices of a warp ---------------------------------------------------------------------------------------------------

namespace fusec_emulator {

enum class Element { FLOAT16, BFLOAT16 };

// matrix.cpp. `count` matrices of 8 x 8 into or from r[count]; d[4] = a[depth / 4] b[depth / 8] + c[4], registers as in ptx.cuh.
void load_matrix(const char* name, int line, unsigned count, unsigned* r, const void* row);
void store_matrix(const char* name, int line, unsigned count, void* row, const unsigned* r);
unsigned transpose_matrix(const char* name, int line, unsigned r);
void multiply(const char* name, int line, Element element, unsigned depth, float* d, const unsigned* a, const unsigned* b,
              const float* c);

}  // namespace fusec_emulator

inline void load_matrix_x4(unsigned (&r)[4], const void* row, int line = __builtin_LINE()) {
    fusec_emulator::load_matrix("load_matrix_x4", line, 4, r, row);
}
inline void load_matrix_x2(unsigned (&r)[2], const void* row, int line = __builtin_LINE()) {
    fusec_emulator::load_matrix("load_matrix_x2", line, 2, r, row);
}
inline void load_matrix_x1(unsigned& r, const void* row, int line = __builtin_LINE()) {
    fusec_emulator::load_matrix("load_matrix_x1", line, 1, &r, row);
}

inline void store_matrix_x4(void* row, const unsigned (&r)[4], int line = __builtin_LINE()) {
    fusec_emulator::store_matrix("store_matrix_x4", line, 4, row, r);
}
inline void store_matrix_x2(void* row, const unsigned (&r)[2], int line = __builtin_LINE()) {
    fusec_emulator::store_matrix("store_matrix_x2", line, 2, row, r);
}

inline unsigned transpose_matrix(unsigned r, int line = __builtin_LINE()) {
    return fusec_emulator::transpose_matrix("transpose_matrix", line, r);
}

inline void multiply_f16_k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4],
                            int line = __builtin_LINE()) {
    fusec_emulator::multiply("multiply_f16_k8", line, fusec_emulator::Element::FLOAT16, 8, d, a, &b, c);
}
inline void multiply_f16_k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4],
                             int line = __builtin_LINE()) {
    fusec_emulator::multiply("multiply_f16_k16", line, fusec_emulator::Element::FLOAT16, 16, d, a, b, c);
}
inline void multiply_bf16_k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4],
                             int line = __builtin_LINE()) {
    fusec_emulator::multiply("multiply_bf16_k8", line, fusec_emulator::Element::BFLOAT16, 8, d, a, &b, c);
}
inline void multiply_bf16_k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4],
                              int line = __builtin_LINE()) {
    fusec_emulator::multiply("multiply_bf16_k16", line, fusec_emulator::Element::BFLOAT16, 16, d, a, b, c);
}

inline void load_kept_x2(unsigned (&v)[2], const void* global) { __builtin_memcpy(v, global, sizeof v); }
inline void load_kept_x4(float (&v)[4], const void* global) { __builtin_memcpy(v, global, sizeof v); }

// --- asynchronous copies --------------------------------------------------------------------------------------------------

namespace fusec_emulator {

// copies.cpp
void start_copy(const char* name, int line, void* scratch, const void* global, unsigned bytes, bool inside);
void commit_copies();
void wait_for_copies(unsigned newest);

}  // namespace fusec_emulator

inline void copy_async_16(void* scratch, const void* global, bool inside, int line = __builtin_LINE()) {
    fusec_emulator::start_copy("copy_async_16", line, scratch, global, 16, inside);
}
inline void copy_async_8(void* scratch, const void* global, bool inside, int line = __builtin_LINE()) {
    fusec_emulator::start_copy("copy_async_8", line, scratch, global, 8, inside);
}
inline void copy_async_4(void* scratch, const void* global, bool inside, int line = __builtin_LINE()) {
    fusec_emulator::start_copy("copy_async_4", line, scratch, global, 4, inside);
}
inline void copy_async_commit() { fusec_emulator::commit_copies(); }
template <int N>
inline void copy_async_wait() {
    static_assert(N >= 0, "as many groups may be under way");
    fusec_emulator::wait_for_copies(N);
}
