// Asynchronous copies: each thread's own, in groups, carried out as late as the PTX ISA allows (cp.async).
#include "copies.hpp"

#include <string.h>

#include <vector>

#include "cuda_matrix.hpp"

namespace fusec_emulator {
namespace {

struct Copy {
    const char* name;
    int line;
    void* scratch;
    const void* global;
    unsigned bytes;
    bool inside;
    uint64_t group;
};

struct Thread {
    std::vector<Copy> pending;  // oldest first
    uint64_t groups = 0;        // committed so far
};

Thread threads[MAX_THREADS];

void carry_out(const Copy& copy) {
    if (copy.inside) memcpy(copy.scratch, copy.global, copy.bytes);
    else memset(copy.scratch, 0, copy.bytes);
}

// Lets a bad source be found on the line of the copy rather than on that of the wait.
void touch(const void* memory, unsigned bytes) {
    const auto* watched = static_cast<const volatile unsigned char*>(memory);
    static_cast<void>(watched[0]);
    static_cast<void>(watched[bytes - 1]);
}

bool aligned(const void* address, unsigned bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

}  // namespace

void start_copy(const char* name, int line, void* scratch, const void* global, unsigned bytes, bool inside) {
    if (!in_scratch(scratch, bytes)) fail(line, name, ": the target is not in the block's dynamic shared memory");
    if (!aligned(scratch, bytes)) fail(line, name, ": the target's address is not aligned to the bytes copied");
    if (!aligned(global, bytes)) fail(line, name, ": the source's address is not aligned to the bytes copied");
    if (inside && in_scratch(global, 1)) fail(line, name, ": the source is not in device memory");
    if (inside) touch(global, bytes);
    memset(scratch, POISON, bytes);
    Thread& thread = threads[thread_number()];
    thread.pending.push_back({name, line, scratch, global, bytes, inside, thread.groups});
}

void commit_copies() { ++threads[thread_number()].groups; }

void wait_for_copies(unsigned newest) {
    Thread& thread = threads[thread_number()];
    auto copy = thread.pending.begin();
    for (; copy != thread.pending.end() && copy->group + newest < thread.groups; ++copy) carry_out(*copy);
    thread.pending.erase(thread.pending.begin(), copy);
}

void forget_copies() {
    for (Thread& thread : threads) {
        thread.pending.clear();
        thread.groups = 0;
    }
}

void check_copies() {
    const Thread& thread = threads[thread_number()];
    if (thread.pending.empty()) return;
    const Copy& copy = thread.pending.front();
    const bool committed = copy.group < thread.groups;
    fail(copy.line, copy.name, committed ? " is never waited for" : " is never waited for: its group is not committed");
}

}  // namespace fusec_emulator
