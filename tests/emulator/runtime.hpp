// What a kernel's translation unit and the emulator's runtime know of each other.
//
// Included by cuda_emulator.hpp (so by every emulated kernel) and by the runtime's own sources. No standard library beyond the
// freestanding headers: a kernel's build time is mostly its own.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct uint3 {
    unsigned int x, y, z;
};

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Set by the scheduler whenever it resumes a thread; plain globals, because one OS thread runs the whole grid.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

namespace fusec_emulator {

constexpr unsigned WARP = 32;
constexpr unsigned MAX_THREADS = 1024;
constexpr size_t SHARED_LIMIT = 232448;   // bytes a block can have on the largest device (227 KiB)
constexpr size_t GUARD = 4096;            // bytes watched before and behind memory the kernel may write
constexpr unsigned char POISON = 0xFF;    // NaN as float or double, -1 as integer

// Dynamic shared memory; the bytes behind the launch's size are a guard zone (poisoned for AddressSanitizer).
alignas(1024) extern unsigned char dynamic_shared[SHARED_LIMIT + GUARD];
extern size_t dynamic_shared_bytes;   // that the launch asked for

enum class Collective { SYNC, SHUFFLE, BALLOT, ANY, ALL, WHOLE };

// What a whole warp does at once, given what each lane has brought.
using WarpWork = void (*)(void* const (&parts)[WARP]);

// One lane's part in a warp-wide operation.
struct WarpCall {
    Collective collective;
    const char* name;    // the CUDA word, for messages
    int line;            // of the kernel's source
    unsigned mask;
    unsigned source;     // shuffle: the lane to read from
    uint64_t value;
    void* part = nullptr;       // whole warp: the lane's own, on its stack
    WarpWork work = nullptr;
};

void block_barrier(int line);
uint64_t warp_call(const WarpCall& call);
// All 32 lanes come to the same line; the last one does the work for all. A warp that is not whole fails.
void warp_call_whole(const char* name, int line, void* part, WarpWork work);
unsigned lane();
unsigned thread_number();  // in the block
bool in_scratch(const void* address, size_t bytes);  // whether all of them lie in the block's dynamic shared memory
[[noreturn]] void fail(int line, const char* what, const char* more = "");

// One parameter of a kernel, as the launcher has to pass it.
struct Parameter {
    char role;       // 'v' value, 'r' pointer to const, 'w' pointer to writable memory
    char kind;       // 'i' signed, 'u' unsigned, 'f' floating point, 's' anything else
    uint32_t size;   // bytes of the value or of one element behind the pointer
};

struct Kernel {
    const Parameter* parameters;
    unsigned count;
    void (*invoke)(void* const* arguments);
};

}  // namespace fusec_emulator

#define FUSEC_EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))

// The one kernel of a kernel's library or of an executable; defined by FUSEC_EMULATOR_KERNEL.
FUSEC_EMULATOR_EXPORT const fusec_emulator::Kernel fusec_emulator_kernel;
