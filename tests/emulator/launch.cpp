// Launching: checks the request, copies arrays into watched memory, runs the blocks, checks the guards, copies back.
#include "launch.hpp"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "scheduler.hpp"

#ifdef FUSEC_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace fusec_emulator {

alignas(1024) unsigned char dynamic_shared[SHARED_LIMIT + GUARD];
size_t dynamic_shared_bytes = 0;

namespace {

constexpr size_t ALIGNMENT = 256;  // what a device's allocator promises
constexpr uint32_t MOST_ARGUMENTS = 256;

#ifdef FUSEC_EMULATOR_ASAN
constexpr size_t MARGIN = 0;  // the allocator's own red zones begin at the exact end
#else
constexpr size_t MARGIN = GUARD;
#endif

// First byte in [from, to) that is no longer poison, or `to`.
size_t first_changed(const unsigned char* bytes, size_t from, size_t to) {
    while (from < to && bytes[from] == POISON) ++from;
    return from;
}

// --- the kernel's copy of an array ----------------------------------------------------------------------------------------

class DeviceArray {
public:
    ~DeviceArray() { free(base_); }

    bool copy_in(const Argument& argument) {
        bytes_ = argument.bytes;
        void* memory = nullptr;
        if (posix_memalign(&memory, ALIGNMENT, bytes_ + 2 * MARGIN) != 0) return false;
        base_ = static_cast<unsigned char*>(memory);
        memset(base_, POISON, MARGIN);
        if (bytes_ > 0) memcpy(data(), argument.data, bytes_);
        memset(data() + bytes_, POISON, MARGIN);
        return true;
    }

    bool guards_hold(unsigned index) const {
        const size_t before = first_changed(base_, 0, MARGIN);
        if (before < MARGIN) report("argument %u: the byte at offset -%zu from its start was written", index, MARGIN - before);
        const size_t after = first_changed(data() + bytes_, 0, MARGIN);
        if (after < MARGIN) report("argument %u: the byte at offset %zu behind its end was written", index, after);
        return before == MARGIN && after == MARGIN;
    }

    unsigned char* data() const { return base_ + MARGIN; }

private:
    unsigned char* base_ = nullptr;
    size_t bytes_ = 0;
};

// --- dynamic shared memory ------------------------------------------------------------------------------------------------

void watch_shared(size_t bytes) {
#ifdef FUSEC_EMULATOR_ASAN
    __asan_unpoison_memory_region(dynamic_shared, sizeof(dynamic_shared));
    __asan_poison_memory_region(dynamic_shared + bytes, sizeof(dynamic_shared) - bytes);
#else
    memset(dynamic_shared + bytes, POISON, GUARD);
#endif
}

bool shared_guard_holds(size_t bytes) {
    if (MARGIN == 0) return true;
    const size_t at = first_changed(dynamic_shared + bytes, 0, GUARD);
    if (at == GUARD) return true;
    report("%s: the byte at offset %zu behind the %zu bytes of dynamic shared memory was written", place(), at, bytes);
    return false;
}

// --- memory faults --------------------------------------------------------------------------------------------------------

#ifndef FUSEC_EMULATOR_ASAN
sigjmp_buf before_fault;

void on_fault(int signal_number) { siglongjmp(before_fault, signal_number); }

const char* fault_name(int signal_number) {
    if (signal_number == SIGFPE) return "arithmetic fault (integer division by zero?)";
    if (signal_number == SIGILL) return "illegal instruction";
    return "memory fault (bad or misaligned address, or stack overflow)";
}

// While it lives, faults jump to before_fault; their handler has its own stack, for those that overflow one.
class FaultHandlers {
public:
    FaultHandlers() {
        stack_t stack{};
        stack.ss_sp = stack_;
        stack.ss_size = sizeof(stack_);
        sigaltstack(&stack, &old_stack_);
        struct sigaction action {};
        action.sa_handler = on_fault;
        action.sa_flags = SA_ONSTACK;
        for (size_t i = 0; i < COUNT; ++i) sigaction(SIGNALS[i], &action, &old_[i]);
    }
    ~FaultHandlers() {
        for (size_t i = 0; i < COUNT; ++i) sigaction(SIGNALS[i], &old_[i], nullptr);
        sigaltstack(&old_stack_, nullptr);
    }

private:
    static constexpr size_t COUNT = 4;
    static constexpr int SIGNALS[COUNT] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    char stack_[64 * 1024];
    stack_t old_stack_;
    struct sigaction old_[COUNT];
};
#endif

// --- the grid -------------------------------------------------------------------------------------------------------------

bool run_grid(FiberPool& fibers, const Kernel& kernel, const Request& request, void* const* arguments, uint32_t* block_order, uint32_t blocks) {
    const auto order = static_cast<Order>(request.order);
    Numbers numbers(request.seed);
    for (uint32_t i = 0; i < blocks; ++i) block_order[i] = order == Order::REVERSE ? blocks - 1 - i : i;
    if (order == Order::RANDOM) numbers.shuffle(block_order, blocks);
    dynamic_shared_bytes = request.shared_bytes;
    watch_shared(request.shared_bytes);
    for (uint32_t i = 0; i < blocks; ++i) {
        const uint32_t b = block_order[i];
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        memset(dynamic_shared, POISON, request.shared_bytes);
        if (!run_block(fibers, kernel, arguments, order, numbers) || !shared_guard_holds(request.shared_bytes)) return false;
    }
    return true;
}

void run_watched(const Kernel& kernel, const Request& request, void* const* arguments, uint32_t* block_order, uint32_t blocks) {
    FiberPool fibers(blockDim.x * blockDim.y * blockDim.z, thread_main);
    if (!fibers.mapped()) return report("no memory for the stacks of the block's threads");
#ifdef FUSEC_EMULATOR_ASAN
    run_grid(fibers, kernel, request, arguments, block_order, blocks);
#else
    const FaultHandlers handlers;
    const int fault = sigsetjmp(before_fault, 1);
    if (fault == 0) {
        run_grid(fibers, kernel, request, arguments, block_order, blocks);
    } else {
        report("%s, thread (%u, %u, %u): %s", place(), threadIdx.x, threadIdx.y, threadIdx.z, fault_name(fault));
    }
#endif
}

// --- the request ----------------------------------------------------------------------------------------------------------

bool configuration_legal(const Request& request) {
    const uint32_t grid_limits[3] = {0x7FFFFFFF, 65535, 65535};
    const uint32_t block_limits[3] = {1024, 1024, 64};
    uint64_t threads = 1;
    uint64_t blocks = 1;
    for (int i = 0; i < 3; ++i) {
        const char axis = "xyz"[i];
        if (request.grid[i] < 1 || request.grid[i] > grid_limits[i]) report("grid.%c is %u; ", axis, request.grid[i]);
        if (request.block[i] < 1 || request.block[i] > block_limits[i]) report("block.%c is %u; ", axis, request.block[i]);
        threads *= request.block[i];
        blocks *= request.grid[i];
    }
    if (threads > MAX_THREADS) report("%llu threads in a block; ", static_cast<unsigned long long>(threads));
    if (blocks > 0xFFFFFFFFu) report("%llu blocks are too many to emulate; ", static_cast<unsigned long long>(blocks));
    if (request.shared_bytes > SHARED_LIMIT) {
        report("%llu bytes of shared memory; ", static_cast<unsigned long long>(request.shared_bytes));
    }
    if (error_text()[0] != '\0') report("no device can launch this");
    return error_text()[0] == '\0';
}

bool arguments_fit(const Kernel& kernel, const Request& request) {
    if (request.count != kernel.count || request.count > MOST_ARGUMENTS) {
        report("the kernel takes %u arguments, %u were given", kernel.count, request.count);
        return false;
    }
    for (uint32_t i = 0; i < request.count; ++i) {
        const Argument& argument = request.arguments[i];
        const Parameter& parameter = kernel.parameters[i];
        if (parameter.role == 'v' && argument.bytes != parameter.size) {
            report("argument %u has %llu bytes, not %u", i, static_cast<unsigned long long>(argument.bytes), parameter.size);
        }
        if (argument.same_as >= static_cast<int32_t>(i)) report("argument %u names argument %d as its like", i, argument.same_as);
    }
    return error_text()[0] == '\0';
}

bool copy_in(const Kernel& kernel, const Request& request, DeviceArray* arrays, void** pointers, void** values) {
    for (uint32_t i = 0; i < request.count; ++i) {
        const Argument& argument = request.arguments[i];
        values[i] = argument.data;
        if (kernel.parameters[i].role == 'v') continue;
        if (argument.same_as < 0 && !arrays[i].copy_in(argument)) {
            report("no memory for argument %u", i);
            return false;
        }
        pointers[i] = argument.same_as < 0 ? arrays[i].data() : pointers[argument.same_as];
        values[i] = &pointers[i];
    }
    return true;
}

// Whether any argument allows writing into the array of argument `i`.
bool writable(const Kernel& kernel, const Request& request, uint32_t i) {
    for (uint32_t j = i; j < request.count; ++j) {
        const bool same = j == i || request.arguments[j].same_as == static_cast<int32_t>(i);
        if (same && kernel.parameters[j].role == 'w') return true;
    }
    return false;
}

void check_arrays(const Kernel& kernel, const Request& request, const DeviceArray* arrays) {
    for (uint32_t i = 0; i < request.count; ++i) {
        const Argument& argument = request.arguments[i];
        if (kernel.parameters[i].role == 'v' || argument.same_as >= 0 || !arrays[i].guards_hold(i)) continue;
        if (!writable(kernel, request, i) && argument.bytes > 0 && memcmp(argument.data, arrays[i].data(), argument.bytes) != 0) {
            report("argument %u is a pointer to const, but its array was written", i);
        }
    }
}

void copy_back(const Kernel& kernel, const Request& request, const DeviceArray* arrays) {
    for (uint32_t i = 0; i < request.count; ++i) {
        const Argument& argument = request.arguments[i];
        if (kernel.parameters[i].role == 'v' || argument.same_as >= 0 || !writable(kernel, request, i)) continue;
        if (argument.bytes > 0) memcpy(argument.data, arrays[i].data(), argument.bytes);
    }
}

void launch(const Kernel& kernel, const Request& request) {
    if (!configuration_legal(request) || !arguments_fit(kernel, request)) return;
    DeviceArray arrays[MOST_ARGUMENTS];
    void* pointers[MOST_ARGUMENTS];
    void* values[MOST_ARGUMENTS];
    if (!copy_in(kernel, request, arrays, pointers, values)) return;
    gridDim = {request.grid[0], request.grid[1], request.grid[2]};
    blockDim = {request.block[0], request.block[1], request.block[2]};
    const uint32_t blocks = gridDim.x * gridDim.y * gridDim.z;
    auto* block_order = static_cast<uint32_t*>(malloc(sizeof(uint32_t) * blocks));
    if (block_order == nullptr) return report("no memory for the order of %u blocks", blocks);
    run_watched(kernel, request, values, block_order, blocks);
    free(block_order);
    if (error_text()[0] != '\0') return;
    check_arrays(kernel, request, arrays);
    if (error_text()[0] == '\0') copy_back(kernel, request, arrays);
}

}  // namespace

long long nanoseconds() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

}  // namespace fusec_emulator

void fusec_emulator_signature(const fusec_emulator::Kernel* kernel, char* text, size_t capacity) {
    using namespace fusec_emulator;
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < kernel->count && used < capacity; ++i) {
        const Parameter& p = kernel->parameters[i];
        used += static_cast<size_t>(snprintf(text + used, capacity - used, "%s%c %c %u", i ? ", " : "", p.role, p.kind, p.size));
    }
}

const char* fusec_emulator_launch(const fusec_emulator::Kernel* kernel, const fusec_emulator::Request* request) {
    fusec_emulator::clear_error();
    fusec_emulator::launch(*kernel, *request);
    return fusec_emulator::error_text();
}
