// threads.cpp: thread pool and reusable memory.
#include "seginfer/threads.h"

#include <unistd.h>
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "seginfer/error.h"

namespace seginfer {

struct Threads::Task {
  Call call;
  const void* context;
  int n;
  int step;
  std::atomic<int64_t> next{0};  // may exceed n by one step per thread
  std::mutex mutex;
  std::exception_ptr error;

  void run() {
    try {
      for (int64_t begin; (begin = next.fetch_add(step)) < n;) {
        call(context, static_cast<int>(begin), static_cast<int>(std::min<int64_t>(n, begin + step)));
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
      next.store(n);
    }
  }
};

// State shared by the threads of a process. A forked process has no such threads, and locks that they held stay locked
// for ever, so it must neither use nor destroy this object.
struct Threads::Workers {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake, done;
  Task* task = nullptr;
  int active = 0;
  bool is_closing = false;
  int caller_processor = -1;

  ~Workers() {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      is_closing = true;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  void start(int count) {
    threads.reserve(static_cast<size_t>(count));
    try {
      while (static_cast<int>(threads.size()) < count) threads.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // The system has no more threads. Those that started do the work, with the caller.
    }
  }

  // Keeps workers off the caller's processor. After a long sleep of the other processors, as virtual ones have between
  // camera frames, schedulers wake a worker on the processor of its waker, and the two share it. The pool, and threads
  // that run after it, would then work at half speed for many frames.
  void make_way() {
#if defined(__linux__)
    const int processor = sched_getcpu();
    cpu_set_t others;
    if (processor < 0 || processor == caller_processor || sched_getaffinity(0, sizeof(others), &others) != 0) return;
    CPU_CLR(static_cast<size_t>(processor), &others);
    if (CPU_COUNT(&others) == 0) return;  // a caller bound to one processor shares it
    for (std::thread& thread : threads) pthread_setaffinity_np(thread.native_handle(), sizeof(others), &others);
    caller_processor = processor;
#endif
  }

  void run(Task& one) {
    make_way();
    {
      const std::lock_guard<std::mutex> lock(mutex);
      task = &one;
    }
    wake.notify_all();
    one.run();
    std::unique_lock<std::mutex> lock(mutex);
    task = nullptr;  // workers that have not begun stay asleep
    done.wait(lock, [this] { return active == 0; });
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      wake.wait(lock, [this] { return is_closing || (task && task->next.load() < task->n); });
      if (is_closing) return;
      Task* one = task;
      ++active;
      lock.unlock();
      one->run();
      lock.lock();
      if (--active == 0) done.notify_all();
    }
  }
};

Threads::Threads(int size) : size_(size) {
  SEG_REQUIRE(size >= 1 && size <= 1024, "a pool takes 1..1024 threads, got " + std::to_string(size));
}

Threads::~Threads() {
  if (is_forked()) (void)workers_.release();
}

bool Threads::is_forked() const {
  const long process = started_in_.load();
  return process != 0 && process != getpid();
}

void Threads::start() {
  workers_ = std::make_unique<Workers>();
  started_in_ = getpid();
  workers_->start(size_ - 1);
}

void Threads::run(int n, int grain, Call call, const void* context) {
  if (n <= 0) return;
  // Four parts per thread balance the load when another process takes time of a core.
  const int step = std::max({1, grain, static_cast<int>((n + 4LL * size_ - 1) / (4LL * size_))});
  if (size_ == 1 || step >= n || is_forked()) return call(context, 0, n);
  const Claim claim(is_in_use_);
  if (!claim.is_mine()) return call(context, 0, n);
  if (!workers_) start();
  Task task{call, context, n, step, {}, {}, {}};
  workers_->run(task);
  if (task.error) std::rethrow_exception(task.error);
}

void Buffer::Free::operator()(void* memory) const { std::free(memory); }

void* Buffer::reserve(size_t bytes) {
  if (bytes > size_) {
    memory_.reset();
    size_ = 0;
    const size_t rounded = (bytes + 63) / 64 * 64;
    memory_.reset(std::aligned_alloc(64, rounded));
    if (!memory_) throw std::bad_alloc();
    size_ = rounded;
  }
  return memory_.get();
}

void* thread_scratch(size_t bytes) {
  thread_local Buffer buffer;
  return buffer.reserve(bytes);
}

}  // namespace seginfer
