// One launch of the kernel: what both ways of calling it (from Python in-process, as an executable) hand over.
#pragma once

#include "runtime.hpp"

namespace fusec_emulator {

// A value's bytes, or an array the kernel gets a pointer to.
struct Argument {
    void* data;
    uint64_t bytes;
    int32_t same_as;   // earlier argument that is this very array, or -1
    uint32_t unused;
};

struct Request {
    uint32_t grid[3];
    uint32_t block[3];
    uint64_t shared_bytes;
    uint64_t seed;
    uint32_t order;
    uint32_t count;
    Argument* arguments;
};

}  // namespace fusec_emulator

// "v i 4, r f 4, ..." : role, kind and size of each parameter.
FUSEC_EMULATOR_EXPORT void fusec_emulator_signature(const fusec_emulator::Kernel* kernel, char* text, size_t capacity);

// Runs the grid; returns the empty string, or what went wrong (valid until the next launch). Arrays the kernel may write are
// written back only after success.
FUSEC_EMULATOR_EXPORT const char* fusec_emulator_launch(const fusec_emulator::Kernel* kernel, const fusec_emulator::Request* request);
