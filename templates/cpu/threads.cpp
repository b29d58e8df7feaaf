// The thread pool of a generated model: one foreign call runs the whole list of its launches.
//
// A run is walked by the calling thread and by the workers in the same way: take tiles of the first launch until there are
// none, wait until the last of them is done, go on to the next launch. Nobody waits for a worker that wakes late: it finds the
// tiles gone and follows. Nothing is thrown across the border; what can fail (memory, threads) costs workers or is returned.

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <pthread.h>
#include <sched.h>
#include <thread>
#include <vector>

typedef void (*FusecKernel)(const float* const* inputs, float* output, const float* params, const int* sizes, long long tile,
                            float* scratch);

struct FusecLaunch { // all members are 8 bytes wide: the caller fills it as an array of 64-bit words
    FusecKernel entry;
    const float* const* inputs;
    float* output;
    const float* params;
    const int* sizes;
    long long tiles;
    long long scratch; // floats
};

namespace {

enum Status { ok = 0, no_memory = 1, broken = 2 };

const int spins_before_yield = 2000;   // waiting for others: some ten microseconds
const int spins_before_sleep = 2000;   // waiting for the next run
const long long grabs_per_thread = 16; // small enough for balance, few enough for the counter
const std::size_t alignment = 64;

void relax(int spins) {
    if (spins >= spins_before_yield) {
        sched_yield(); // there may be more threads than processors
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Scratch of one thread: grows, is kept between runs, and goes with the thread.
struct Scratch {
    void* memory = nullptr;
    std::size_t bytes = 0;

    ~Scratch() { std::free(memory); }

    float* get(long long floats) {
        const std::size_t wanted = static_cast<std::size_t>(floats) * sizeof(float);
        if (wanted > bytes) {
            std::free(memory);
            memory = nullptr;
            bytes = 0;
            if (posix_memalign(&memory, alignment, wanted) != 0) {
                memory = nullptr;
                return nullptr;
            }
            bytes = wanted;
        }
        return static_cast<float*>(memory);
    }
};

thread_local Scratch own_scratch;

struct alignas(64) Progress { // of one launch
    std::atomic<long long> taken{0};
    alignas(64) std::atomic<long long> done{0};
};

struct Run {
    const FusecLaunch* launches;
    int count;
    int threads;
    long long scratch;
    std::unique_ptr<Progress[]> progress;

    void work(float* memory) {
        for (int i = 0; i < count; ++i) {
            const FusecLaunch& launch = launches[i];
            Progress& state = progress[i];
            const long long share = launch.tiles / (threads * grabs_per_thread);
            const long long grab = share < 1 ? 1 : share;
            for (;;) {
                const long long first = state.taken.fetch_add(grab, std::memory_order_relaxed);
                if (first >= launch.tiles) break;
                const long long last = first + grab < launch.tiles ? first + grab : launch.tiles;
                for (long long tile = first; tile < last; ++tile)
                    launch.entry(launch.inputs, launch.output, launch.params, launch.sizes, tile, memory);
                state.done.fetch_add(last - first, std::memory_order_release);
            }
            for (int spins = 0; state.done.load(std::memory_order_acquire) < launch.tiles; ++spins) relax(spins);
        }
    }
};

class Pool {
public:
    int run(Run& run) {
        std::lock_guard<std::mutex> one_at_a_time(running_);
        float* memory = own_scratch.get(run.scratch);
        if (run.scratch > 0 && memory == nullptr) return no_memory;
        hire(run.threads - 1);
        bool sleepers;
        {
            std::lock_guard<std::mutex> guard(mutex_);
            current_ = &run;
            generation_.fetch_add(1, std::memory_order_release);
            sleepers = asleep_ > 0;
        }
        if (sleepers) wake_.notify_all();
        run.work(memory);
        {
            std::lock_guard<std::mutex> guard(mutex_);
            current_ = nullptr; // from here on nobody enters, and those inside see only finished launches
        }
        for (int spins = 0; inside_.load(std::memory_order_acquire) > 0; ++spins) relax(spins);
        return ok;
    }

    // For the end of the process: sends the workers home, unless a thread that outlives main is still in a run.
    void retire() {
        if (!running_.try_lock()) return; // kept for good: no run begins any more
        {
            std::lock_guard<std::mutex> guard(mutex_);
            stop_.store(true, std::memory_order_release);
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
        workers_.clear();
    }

private:
    void hire(int wanted) {
        while (static_cast<int>(workers_.size()) < wanted) {
            try {
                workers_.reserve(workers_.size() + 1);
                workers_.emplace_back(&Pool::serve, this, static_cast<int>(workers_.size()));
            } catch (...) {
                return; // no more threads to be had: those there are do the work
            }
        }
    }

    void serve(int index) {
        unsigned long long seen = 0;
        for (;;) {
            for (int spins = 0; spins < spins_before_sleep && news(seen) == 0; ++spins) relax(spins);
            Run* run;
            {
                std::unique_lock<std::mutex> guard(mutex_);
                ++asleep_;
                wake_.wait(guard, [&] { return news(seen) != 0; });
                --asleep_;
                if (stop_.load(std::memory_order_relaxed)) return;
                seen = generation_.load(std::memory_order_relaxed);
                run = current_;
                if (run == nullptr || index >= run->threads - 1) continue;
                inside_.fetch_add(1, std::memory_order_relaxed);
            }
            float* memory = own_scratch.get(run->scratch);
            if (run->scratch == 0 || memory != nullptr) run->work(memory);
            inside_.fetch_sub(1, std::memory_order_release);
        }
    }

    int news(unsigned long long seen) const {
        return stop_.load(std::memory_order_acquire) || generation_.load(std::memory_order_acquire) != seen;
    }

    std::mutex running_; // held for a whole run: Python threads come one after another
    std::mutex mutex_;   // guards current_ and asleep_
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
    Run* current_ = nullptr;
    int asleep_ = 0;
    std::atomic<int> inside_{0};
    std::atomic<unsigned long long> generation_{0};
    std::atomic<bool> stop_{false};
};

std::atomic<Pool*> the_pool{nullptr};

// A forked child has none of the parent's workers, and locks in an unknown state: it starts anew, and lets the old pool be.
void forget_pool() { the_pool.store(nullptr); }

Pool& pool() {
    Pool* known = the_pool.load(std::memory_order_acquire);
    if (known == nullptr) {
        Pool* made = new Pool;
        if (the_pool.compare_exchange_strong(known, made)) known = made;
        else delete made;
    }
    return *known;
}

struct Lifetime {
    Lifetime() { pthread_atfork(nullptr, nullptr, forget_pool); }
    ~Lifetime() {
        if (Pool* known = the_pool.load()) known->retire(); // the pool itself stays: another thread may be waiting for it
    }
} lifetime;

} // namespace

#define FUSEC_EXPORT extern "C" __attribute__((visibility("default")))

// Runs `count` launches in order on up to `threads` threads, the caller among them. Returns 0, 1 (out of memory; outputs are
// then undefined) or 2 (no lock or no thread could be had at all).
FUSEC_EXPORT int fusec_pool_run(const FusecLaunch* launches, int count, int threads) {
    try {
        long long scratch = 0, widest = 0;
        for (int i = 0; i < count; ++i) {
            if (launches[i].scratch > scratch) scratch = launches[i].scratch;
            if (launches[i].tiles > widest) widest = launches[i].tiles;
        }
        if (widest < threads) threads = static_cast<int>(widest);
        if (threads > 1) {
            Run run{launches, count, threads, scratch, std::unique_ptr<Progress[]>(new Progress[static_cast<std::size_t>(count)])};
            return pool().run(run);
        }
        float* memory = own_scratch.get(scratch);
        if (scratch > 0 && memory == nullptr) return no_memory;
        for (int i = 0; i < count; ++i) {
            const FusecLaunch& launch = launches[i];
            for (long long tile = 0; tile < launch.tiles; ++tile)
                launch.entry(launch.inputs, launch.output, launch.params, launch.sizes, tile, memory);
        }
        return ok;
    } catch (const std::bad_alloc&) {
        return no_memory;
    } catch (...) {
        return broken;
    }
}
