// Fibres: many small stacks on one OS thread, switched by hand. Knows nothing of CUDA.
#pragma once

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define FUSEC_EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FUSEC_EMULATOR_ASAN 1
#endif
#endif

// x86-64 and AArch64 switch in a few instructions; elsewhere (or when asked to) swapcontext does it, with a system call each.
#if !defined(FUSEC_EMULATOR_UCONTEXT) && !(defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__)))
#define FUSEC_EMULATOR_UCONTEXT 1
#endif

#ifdef FUSEC_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace fusec_emulator {

struct Context {
#ifdef FUSEC_EMULATOR_UCONTEXT
    ucontext_t registers;
#else
    void* stack_pointer;  // the registers are saved on the stack itself
#endif
};

struct Fiber {
    Context context;
    char* stack;         // lowest usable address
    size_t stack_bytes;
    void* fake_stack;    // AddressSanitizer's, while the fibre is suspended
};

using FiberEntry = void (*)();  // never returns: it suspends for ever when its work is done

// The stacks of one launch: a mapping with an inaccessible page under each stack, so that an overflow faults.
class FiberPool {
public:
    FiberPool(unsigned count, FiberEntry entry);
    ~FiberPool();
    FiberPool(const FiberPool&) = delete;
    FiberPool& operator=(const FiberPool&) = delete;

    bool mapped() const { return mapping_ != nullptr; }
    void resume(unsigned index);  // from the launching stack: runs the fibre until it suspends

private:
    Fiber* fibers_ = nullptr;
    char* mapping_ = nullptr;
    size_t mapping_bytes_ = 0;
};

// From inside a fibre: back to the resume() that runs it; returns when the fibre is resumed.
void suspend();

}  // namespace fusec_emulator
