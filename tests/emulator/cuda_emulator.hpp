// A host emulator for generated CUDA C++: this header gives a plain C++17 compiler the CUDA words.
//
// In: the text of a kernel file, compiled with `-include cuda_emulator.hpp` and followed by FUSEC_EMULATOR_KERNEL(entry).
// Out: a shared library or an executable that runs the grid on one CPU thread. Used by the tests alone (tests/emulator).
//
// How it works
//   * Blocks run one after another; the threads of a block are fibres (fiber.cpp), each with its own small stack. A thread
//     runs until it reaches a barrier or a warp-wide operation, then the scheduler (scheduler.cpp) resumes the next one.
//   * The order in which threads (and blocks) run is selectable: forward, reverse, or pseudo-random by seed. Between two
//     barriers a correct kernel gives the same bits in any order; outputs that differ show a race.
//   * __syncthreads is told its line. A barrier that not all threads of the block reach, two different barriers reached at
//     once, a thread that leaves while others wait, a warp operation whose lanes never all come: each is an error that says
//     who waits where, never a hang. Loops that never reach a barrier do hang.
//   * Warp operations are carried out lane by lane when the last living lane of the mask arrives. A shuffle that reads a lane
//     outside the mask, or one that has left, gets poison.
//   * Matrix words (load_matrix_*, multiply_*) are carried out for the whole warp when its last lane arrives, asynchronous
//     copies when the wait that has to cover them comes; their targets are NaN until then (cuda_matrix.hpp).
//   * __shared__ is `static`. `extern __shared__ T name[];` cannot be one macro, so the Python side rewrites that one
//     declaration into FUSEC_EMULATOR_DYNAMIC_SHARED(T, name). Dynamic shared memory is filled with NaN (0xFF bytes) before
//     each block, and a guard zone behind its end is checked after each block.
//   * Arrays are copied into blocks of their exact size, aligned to 256 bytes as on a device, with guard zones (NaN too) on
//     both sides; under AddressSanitizer the allocator's red zones take their place, and reads are caught as well as writes.
//     A const array found changed is an error. So are memory faults and integer divisions by zero.
//   * __builtin_assume and assert are checked.
//
// Limits
//   * One translation unit, no standard headers, no inline PTX but the words of templates/cuda/lib/ptx.cuh, no texture, no
//     cooperative groups, no __activemask. __CUDA_ARCH__ and __CUDACC__ are not defined: FUSEC_EMULATOR is.
//   * Sums of multiply_* may differ in bits from a GPU's where they are not exact; matrix words and asynchronous copies know
//     dynamic shared memory alone, and no load is checked against a copy another thread has under way (cuda_matrix.hpp).
//   * Race detection has the grain of barriers: threads never interleave between two of them. Atomics are plain operations.
//   * Barriers and matrix words are told apart by line: one inside a helper that two branches call counts as the same barrier.
//   * Static __shared__ arrays keep their values from block to block and start as zero: a read before the first write shows
//     only when orders are compared. Their overruns are caught by AddressSanitizer alone.
//   * Fast intrinsics (__expf, __fdividef, ...) are as accurate as the host's libm, so bits may differ from a GPU's there.
//     fmaf is fused, a * b + c is not (-ffp-contract=off), like nvcc with --fmad=false.
//   * Misaligned vector loads are found by GCC's UBSan; Clang's lets copies of a whole float4 pass unchecked.
//   * Where neither x86-64's nor AArch64's switch applies, ucontext is used: ten times slower, a hundred times with
//     AddressSanitizer.
//   * __launch_bounds__ is not enforced; the device's limits (1024 threads, 227 KiB shared, grid extents) are.
#pragma once

#include <type_traits>
#include <utility>

#include "runtime.hpp"
#include "cuda_math.hpp"
#include "cuda_matrix.hpp"

#define FUSEC_EMULATOR 1  // leaves the PTX in templates/cuda/lib/ptx.cuh out

// --- declarations ---------------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static
#define FUSEC_EMULATOR_DYNAMIC_SHARED(type, name) \
    type* const name = reinterpret_cast<type*>(::fusec_emulator::dynamic_shared)

constexpr int warpSize = static_cast<int>(fusec_emulator::WARP);

// --- barriers, fences, checks ---------------------------------------------------------------------------------------------

#define __syncthreads() ::fusec_emulator::block_barrier(__LINE__)
#define __threadfence() static_cast<void>(0)
#define __threadfence_block() static_cast<void>(0)
#define __trap() ::fusec_emulator::fail(__LINE__, "__trap()")
#define __builtin_assume(...) ((__VA_ARGS__) ? void() : ::fusec_emulator::fail(__LINE__, "false assumption: " #__VA_ARGS__))
#define assert(...) ((__VA_ARGS__) ? void() : ::fusec_emulator::fail(__LINE__, "assertion failed: " #__VA_ARGS__))

// --- warp-wide operations -------------------------------------------------------------------------------------------------

namespace fusec_emulator {

// Source lanes as the CUDA C++ Programming Guide defines them; segments are `width` lanes wide.
inline unsigned source_index(unsigned lane, int source, unsigned width) {
    return (lane & ~(width - 1)) | (static_cast<unsigned>(source) & (width - 1));
}
inline unsigned source_up(unsigned lane, unsigned delta, unsigned width) {
    return delta > (lane & (width - 1)) ? lane : lane - delta;
}
inline unsigned source_down(unsigned lane, unsigned delta, unsigned width) {
    return delta >= width - (lane & (width - 1)) ? lane : lane + delta;
}
inline unsigned source_xor(unsigned lane, int lane_mask, unsigned width) {
    const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
    return source > (lane | (width - 1)) ? lane : source;  // earlier segments may be read, later ones not
}

template <class T, class Operand, class Source>
T shuffle(const char* name, int line, Source source_of, unsigned mask, T value, Operand operand, int width = warpSize) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    if (width < 1 || width > warpSize || (width & (width - 1)) != 0) fail(line, "the width of a shuffle is a power of two up to 32");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    const unsigned source = source_of(lane(), operand, static_cast<unsigned>(width));
    bits = warp_call({Collective::SHUFFLE, name, line, mask, source, bits});
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}

inline unsigned vote(Collective collective, const char* name, int line, unsigned mask, int predicate) {
    return static_cast<unsigned>(warp_call({collective, name, line, mask, 0, predicate != 0}));
}

struct SyncWarp {
    int line;
    void operator()(unsigned mask = 0xFFFFFFFFu) const { warp_call({Collective::SYNC, "__syncwarp", line, mask, 0, 0}); }
};

}  // namespace fusec_emulator

#define __shfl_sync(...) ::fusec_emulator::shuffle("__shfl_sync", __LINE__, ::fusec_emulator::source_index, __VA_ARGS__)
#define __shfl_up_sync(...) ::fusec_emulator::shuffle("__shfl_up_sync", __LINE__, ::fusec_emulator::source_up, __VA_ARGS__)
#define __shfl_down_sync(...) ::fusec_emulator::shuffle("__shfl_down_sync", __LINE__, ::fusec_emulator::source_down, __VA_ARGS__)
#define __shfl_xor_sync(...) ::fusec_emulator::shuffle("__shfl_xor_sync", __LINE__, ::fusec_emulator::source_xor, __VA_ARGS__)
#define __ballot_sync(...) ::fusec_emulator::vote(::fusec_emulator::Collective::BALLOT, "__ballot_sync", __LINE__, __VA_ARGS__)
#define __any_sync(...) \
    static_cast<int>(::fusec_emulator::vote(::fusec_emulator::Collective::ANY, "__any_sync", __LINE__, __VA_ARGS__))
#define __all_sync(...) \
    static_cast<int>(::fusec_emulator::vote(::fusec_emulator::Collective::ALL, "__all_sync", __LINE__, __VA_ARGS__))
#define __syncwarp(...) ::fusec_emulator::SyncWarp{__LINE__}(__VA_ARGS__)

// --- the launcher ---------------------------------------------------------------------------------------------------------

namespace fusec_emulator {

template <class T>
constexpr char kind_of() {
    if (std::is_floating_point_v<T>) return 'f';
    if (std::is_integral_v<T> || std::is_enum_v<T>) return std::is_signed_v<T> ? 'i' : 'u';
    return 's';
}

template <class T>
constexpr uint32_t size_of() {
    if constexpr (std::is_void_v<T>) return 1;
    else return sizeof(T);
}

template <class P>
constexpr Parameter parameter_of() {
    using Element = std::remove_pointer_t<P>;
    if (!std::is_pointer_v<P>) return {'v', kind_of<P>(), size_of<P>()};
    return {std::is_const_v<Element> ? 'r' : 'w', kind_of<std::remove_cv_t<Element>>(), size_of<Element>()};
}

template <auto entry, class Function = decltype(entry)>
struct Entry;

// Unpacks an array of pointers to arguments into a call, with the types taken from the kernel's own function type.
template <auto entry, class... P>
struct Entry<entry, void (*)(P...)> {
    static constexpr Parameter parameters[sizeof...(P) + 1] = {parameter_of<P>()..., Parameter{}};

    template <size_t... I>
    static void call(void* const* arguments, std::index_sequence<I...>) {
        entry(*static_cast<P*>(arguments[I])...);
    }
    static void invoke(void* const* arguments) { call(arguments, std::index_sequence_for<P...>{}); }
    static constexpr Kernel kernel{parameters, sizeof...(P), invoke};
};

}  // namespace fusec_emulator

#define FUSEC_EMULATOR_KERNEL(entry) const fusec_emulator::Kernel fusec_emulator_kernel = fusec_emulator::Entry<&::entry>::kernel;
