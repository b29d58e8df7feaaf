// The scheduler: who runs next, who waits for whom, and what to say when nobody can go on.
#include "scheduler.hpp"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "copies.hpp"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace fusec_emulator {
namespace {

enum class State : unsigned char { READY, AT_BARRIER, IN_WARP_CALL, LEFT };

struct Thread {
    State state;
    uint3 index;
    int barrier_line;
    WarpCall call;
    uint64_t result;
};

Thread threads[MAX_THREADS];
uint32_t visit[MAX_THREADS];   // thread numbers in the order in which they run
uint32_t thread_count = 0;
uint32_t current = 0;
unsigned barriers = 0;         // passed by this block so far
void (*invoke)(void* const* arguments) = nullptr;
void* const* kernel_arguments = nullptr;

char error[4096];
char place_text[96];

void append(const char* format, va_list values) {
    const size_t used = strlen(error);
    vsnprintf(error + used, sizeof(error) - used, format, values);
}

void number_threads() {
    forget_copies();
    thread_count = blockDim.x * blockDim.y * blockDim.z;
    for (uint32_t t = 0; t < thread_count; ++t) {
        threads[t].state = State::READY;
        threads[t].index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
        visit[t] = t;
    }
}

void order_threads(Order order, Numbers& numbers) {
    if (order == Order::RANDOM) numbers.shuffle(visit, thread_count);
    if (order == Order::REVERSE) {
        for (uint32_t t = 0; t < thread_count; ++t) visit[t] = thread_count - 1 - t;
    }
}

// Runs every thread that can run, once; false when there was none.
bool run_ready(FiberPool& fibers) {
    bool any = false;
    for (uint32_t i = 0; i < thread_count; ++i) {
        Thread& thread = threads[visit[i]];
        if (thread.state != State::READY) continue;
        any = true;
        current = visit[i];
        threadIdx = thread.index;
        fibers.resume(current);
        if (error[0] != '\0') break;
    }
    return any;
}

// --- warp-wide operations -------------------------------------------------------------------------------------------------

bool same_call(const Thread& thread, const WarpCall& call) {
    return thread.state == State::IN_WARP_CALL && thread.call.mask == call.mask && thread.call.collective == call.collective &&
           strcmp(thread.call.name, call.name) == 0 && (call.collective != Collective::WHOLE || thread.call.line == call.line);
}

// The lanes of `call` that still live, as a mask; `complete` tells whether all of them have come. A whole warp's must all live.
unsigned gather(uint32_t first, const WarpCall& call, bool& complete) {
    unsigned members = 0;
    complete = true;
    for (unsigned l = 0; l < WARP && first + l < thread_count; ++l) {
        if ((call.mask >> l & 1u) == 0) continue;
        if (threads[first + l].state == State::LEFT && call.collective != Collective::WHOLE) continue;
        members |= 1u << l;
        complete = complete && same_call(threads[first + l], call);
    }
    return members;
}

uint64_t vote_result(const WarpCall& call, unsigned members, unsigned votes) {
    if (call.collective == Collective::ANY) return votes != 0;
    if (call.collective == Collective::ALL) return votes == members;
    return votes;
}

void do_whole(uint32_t first, const WarpCall& call) {
    void* parts[WARP];
    for (unsigned l = 0; l < WARP; ++l) parts[l] = threads[first + l].call.part;
    call.work(parts);
}

// Lets the lanes waiting for `call` in the warp that starts at thread `first` go on if all have come.
bool complete_call(uint32_t first, const WarpCall call) {
    bool complete = false;
    const unsigned members = gather(first, call, complete);
    if (!complete) return false;
    if (call.collective == Collective::WHOLE) do_whole(first, call);
    unsigned votes = 0;
    for (unsigned l = 0; l < WARP; ++l) {
        if (members >> l & 1u) votes |= static_cast<unsigned>(threads[first + l].call.value & 1u) << l;
    }
    for (unsigned l = 0; l < WARP; ++l) {
        if ((members >> l & 1u) == 0) continue;
        Thread& thread = threads[first + l];
        const unsigned source = thread.call.source;
        if (call.collective != Collective::SHUFFLE) {
            thread.result = vote_result(call, members, votes);
        } else if (members >> source & 1u) {
            thread.result = threads[first + source].call.value;
        } else {
            memset(&thread.result, POISON, sizeof(thread.result));
        }
        thread.state = State::READY;
    }
    return true;
}

// Lanes may have left since the others arrived: looks through all waiting calls again.
bool complete_calls() {
    bool any = false;
    for (uint32_t t = 0; t < thread_count; ++t) {
        if (threads[t].state == State::IN_WARP_CALL) any = complete_call(t / WARP * WARP, threads[t].call) || any;
    }
    return any;
}

// --- barriers -------------------------------------------------------------------------------------------------------------

bool release_barrier() {
    for (uint32_t t = 0; t < thread_count; ++t) {
        if (threads[t].state != State::AT_BARRIER || threads[t].barrier_line != threads[0].barrier_line) return false;
    }
    for (uint32_t t = 0; t < thread_count; ++t) threads[t].state = State::READY;
    ++barriers;
    return true;
}

bool all_left() {
    for (uint32_t t = 0; t < thread_count; ++t) {
        if (threads[t].state != State::LEFT) return false;
    }
    return true;
}

// --- messages -------------------------------------------------------------------------------------------------------------

bool wait_alike(const Thread& a, const Thread& b) {
    if (a.state != b.state) return false;
    if (a.state == State::AT_BARRIER) return a.barrier_line == b.barrier_line;
    return a.state != State::IN_WARP_CALL || (same_call(a, b.call) && a.call.line == b.call.line);
}

void describe_group(const Thread& first, uint32_t count) {
    report("\n  %u of %u threads ", count, thread_count);
    if (first.state == State::AT_BARRIER) report("wait at __syncthreads() on line %d", first.barrier_line);
    if (first.state == State::IN_WARP_CALL) {
        report("wait in %s(0x%08x) on line %d", first.call.name, first.call.mask, first.call.line);
    }
    if (first.state == State::LEFT) report("have left the kernel");
    report(", first: thread (%u, %u, %u)", first.index.x, first.index.y, first.index.z);
}

void describe_deadlock() {
    bool warp = false;
    for (uint32_t t = 0; t < thread_count; ++t) warp = warp || threads[t].state == State::IN_WARP_CALL;
    report("%s: %s", place(), warp ? "warp operation that not all lanes of its mask reach" : "divergent barrier");
    constexpr uint32_t MOST_GROUPS = 8;
    uint32_t groups = 0;
    for (uint32_t t = 0; t < thread_count && groups < MOST_GROUPS; ++t) {
        uint32_t count = 0;
        bool seen = false;
        for (uint32_t u = 0; u < t; ++u) seen = seen || wait_alike(threads[u], threads[t]);
        if (seen) continue;
        for (uint32_t u = t; u < thread_count; ++u) count += wait_alike(threads[u], threads[t]) ? 1 : 0;
        describe_group(threads[t], count);
        ++groups;
    }
}

}  // namespace

// --- called by the launcher -----------------------------------------------------------------------------------------------

uint64_t Numbers::next() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void Numbers::shuffle(uint32_t* values, uint32_t count) {
    for (uint32_t i = count; i > 1; --i) {
        const auto j = static_cast<uint32_t>(next() % i);
        const uint32_t held = values[i - 1];
        values[i - 1] = values[j];
        values[j] = held;
    }
}

const char* error_text() { return error; }

void clear_error() { error[0] = '\0'; }

void report(const char* format, ...) {
    va_list values;
    va_start(values, format);
    append(format, values);
    va_end(values);
}

const char* place() {
    snprintf(place_text, sizeof(place_text), "block (%u, %u, %u), after %u barriers", blockIdx.x, blockIdx.y, blockIdx.z, barriers);
    return place_text;
}

bool run_block(FiberPool& fibers, const Kernel& kernel, void* const* arguments, Order order, Numbers& numbers) {
    invoke = kernel.invoke;
    kernel_arguments = arguments;
    barriers = 0;
    number_threads();
    for (;;) {
        order_threads(order, numbers);
        const bool any = run_ready(fibers);
        if (error[0] != '\0') return false;
        if (any || complete_calls() || release_barrier()) continue;
        if (all_left()) return true;
        describe_deadlock();
        return false;
    }
}

void thread_main() {
    for (;;) {
        invoke(kernel_arguments);
        check_copies();
        threads[current].state = State::LEFT;
        suspend();
    }
}

// --- called by kernels ----------------------------------------------------------------------------------------------------

unsigned lane() { return current % WARP; }

unsigned thread_number() { return current; }

bool in_scratch(const void* address, size_t bytes) {
    const auto at = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(dynamic_shared);
    return bytes <= dynamic_shared_bytes && at <= dynamic_shared_bytes - bytes;
}

void block_barrier(int line) {
    threads[current].state = State::AT_BARRIER;
    threads[current].barrier_line = line;
    suspend();
}

uint64_t warp_call(const WarpCall& call) {
    if ((call.mask >> lane() & 1u) == 0) fail(call.line, "a lane takes part in a warp operation without being in its mask");
    Thread& thread = threads[current];
    thread.state = State::IN_WARP_CALL;
    thread.call = call;
    if (!complete_call(current / WARP * WARP, call)) suspend();
    return thread.result;
}

void warp_call_whole(const char* name, int line, void* part, WarpWork work) {
    if (current / WARP * WARP + WARP > thread_count) fail(line, name, " needs 32 lanes, the last warp of the block has fewer");
    warp_call({Collective::WHOLE, name, line, 0xFFFFFFFFu, 0, 0, part, work});
}

void fail(int line, const char* what, const char* more) {
    report("%s, thread (%u, %u, %u), line %d: %s%s", place(), threadIdx.x, threadIdx.y, threadIdx.z, line, what, more);
    for (;;) suspend();  // never resumed: the launch ends here
}

}  // namespace fusec_emulator
