// Fibres: the stacks, the switch, and what AddressSanitizer has to be told about it.
#include "fiber.hpp"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef FUSEC_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef FUSEC_EMULATOR_UCONTEXT

// fusec_emulator_switch(void** save, void* load): pushes the registers a call has to preserve, keeps the stack pointer in
// *save, takes the one in load and pops what was pushed there. Floating-point control words are the same for all fibres.
extern "C" void fusec_emulator_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
    .pushsection .text
    .hidden fusec_emulator_switch
    .globl fusec_emulator_switch
    .type fusec_emulator_switch, @function
fusec_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size fusec_emulator_switch, . - fusec_emulator_switch
    .popsection
)");
constexpr size_t FRAME_WORDS = 8;   // six registers, the address to return to, a null return address for the entry
constexpr size_t RETURN_WORD = 6;
#else
asm(R"(
    .pushsection .text
    .hidden fusec_emulator_switch
    .globl fusec_emulator_switch
    .type fusec_emulator_switch, %function
fusec_emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size fusec_emulator_switch, . - fusec_emulator_switch
    .popsection
)");
constexpr size_t FRAME_WORDS = 20;
constexpr size_t RETURN_WORD = 11;  // x30
#endif
#endif

namespace fusec_emulator {
namespace {

#ifdef FUSEC_EMULATOR_ASAN
constexpr size_t STACK_BYTES = 512 * 1024;  // red zones and unoptimised temporaries make frames large
#else
constexpr size_t STACK_BYTES = 128 * 1024;
#endif
constexpr size_t COLOURS = 16;  // tops are spread over a page, or all stacks would compete for the same cache sets
constexpr size_t COLOUR_BYTES = 192;

Context launching;        // the stack that called resume()
Fiber* running = nullptr;
FiberEntry fiber_entry = nullptr;

void switch_context(Context& save, Context& load) {
#ifdef FUSEC_EMULATOR_UCONTEXT
    swapcontext(&save.registers, &load.registers);
#else
    fusec_emulator_switch(&save.stack_pointer, load.stack_pointer);
#endif
}

#ifdef FUSEC_EMULATOR_ASAN
const void* launching_stack = nullptr;
size_t launching_bytes = 0;

void leave_for(void** keep_fake_stack, const void* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(keep_fake_stack, stack, bytes);
}
void arrive_in_fiber(void* fake_stack) { __sanitizer_finish_switch_fiber(fake_stack, &launching_stack, &launching_bytes); }
void arrive_in_launcher(void* fake_stack) { __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr); }
void leave_for_launcher(void** keep) { leave_for(keep, launching_stack, launching_bytes); }
#else
void leave_for(void**, const void*, size_t) {}
void arrive_in_fiber(void*) {}
void arrive_in_launcher(void*) {}
void leave_for_launcher(void**) {}
#endif

void first_frame() {
    arrive_in_fiber(nullptr);
    fiber_entry();
    abort();  // an entry never returns
}

void prepare(Fiber& fiber, size_t index) {
#ifdef FUSEC_EMULATOR_UCONTEXT
    (void)index;
    getcontext(&fiber.context.registers);
    fiber.context.registers.uc_stack.ss_sp = fiber.stack;
    fiber.context.registers.uc_stack.ss_size = fiber.stack_bytes;
    fiber.context.registers.uc_link = nullptr;
    makecontext(&fiber.context.registers, first_frame, 0);
#else
    char* top = fiber.stack + fiber.stack_bytes - index % COLOURS * COLOUR_BYTES;
    auto* frame = reinterpret_cast<uintptr_t*>(top) - FRAME_WORDS;
    memset(frame, 0, FRAME_WORDS * sizeof(uintptr_t));
    frame[RETURN_WORD] = reinterpret_cast<uintptr_t>(&first_frame);
    fiber.context.stack_pointer = frame;
#endif
}

}  // namespace

FiberPool::FiberPool(unsigned count, FiberEntry entry) {
    fiber_entry = entry;
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t stride = STACK_BYTES + page;
    mapping_bytes_ = count * stride;
    void* memory = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return;
    mapping_ = static_cast<char*>(memory);
    fibers_ = static_cast<Fiber*>(calloc(count, sizeof(Fiber)));
    for (size_t i = 0; i < count; ++i) {
        mprotect(mapping_ + i * stride, page, PROT_NONE);
        fibers_[i].stack = mapping_ + i * stride + page;
        fibers_[i].stack_bytes = STACK_BYTES;
        prepare(fibers_[i], i);
    }
}

FiberPool::~FiberPool() {
    if (mapping_ == nullptr) return;
#ifdef FUSEC_EMULATOR_ASAN
    __asan_unpoison_memory_region(mapping_, mapping_bytes_);  // fibres that never came to their end left red zones behind
#endif
    munmap(mapping_, mapping_bytes_);
    free(fibers_);
}

void FiberPool::resume(unsigned index) {
    Fiber& fiber = fibers_[index];
    running = &fiber;
    void* fake_stack = nullptr;
    leave_for(&fake_stack, fiber.stack, fiber.stack_bytes);
    switch_context(launching, fiber.context);
    arrive_in_launcher(fake_stack);
}

void suspend() {
    Fiber& fiber = *running;
    leave_for_launcher(&fiber.fake_stack);
    switch_context(fiber.context, launching);
    arrive_in_fiber(fiber.fake_stack);
}

}  // namespace fusec_emulator
