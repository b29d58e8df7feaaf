// Runs blocks: threads as fibres, barriers and warp-wide operations as meeting points.
#pragma once

#include "fiber.hpp"
#include "runtime.hpp"

namespace fusec_emulator {

enum class Order : uint32_t { FORWARD = 0, REVERSE = 1, RANDOM = 2 };

// A reproducible sequence of numbers (splitmix64).
class Numbers {
public:
    explicit Numbers(uint64_t seed) : state_(seed) {}
    uint64_t next();
    void shuffle(uint32_t* values, uint32_t count);

private:
    uint64_t state_;
};

// The first thing that went wrong since clear_error(), or the empty string.
const char* error_text();
void clear_error();
void report(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Where the launch is right now: "block (x, y, z), after n barriers"; for messages.
const char* place();

// Makes the block of gridDim and blockDim at blockIdx run to its end; false after an error.
bool run_block(FiberPool& fibers, const Kernel& kernel, void* const* arguments, Order order, Numbers& numbers);

// What each fibre of the pool runs, block after block.
void thread_main();

}  // namespace fusec_emulator
