// threads.cpp: the thread pool and the memory that is kept between calls.
#include "seginfer/threads.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <string>

#include "seginfer/error.h"

namespace seginfer {

struct Threads::Task {
  Call call;
  const void* context;
  int n;
  int step;
  std::atomic<int> next{0};
  std::mutex mutex;
  std::exception_ptr error;

  void run() {
    try {
      for (int begin; (begin = next.fetch_add(step)) < n;) call(context, begin, std::min(n, begin + step));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
      next.store(n);
    }
  }
};

Threads::Threads(int size) : size_(size) {
  require(size >= 1 && size <= 1024, "a pool takes 1..1024 threads, got " + std::to_string(size));
}

Threads::~Threads() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closing_ = true;
  }
  wake_.notify_all();
  const bool is_forked = !workers_.empty() && started_in_ != getpid();
  for (std::thread& worker : workers_) is_forked ? worker.detach() : worker.join();
}

void Threads::start() {
  started_in_ = getpid();
  workers_.reserve(static_cast<size_t>(size_ - 1));
  try {
    while (static_cast<int>(workers_.size()) < size_ - 1) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    // The system gives no more threads; those that are there, and the caller, do the work.
  }
}

void Threads::run(int n, int grain, Call call, const void* context) {
  if (n <= 0) return;
  // Four parts per thread even out what other processes take from one of the cores.
  const int step = std::max({1, grain, static_cast<int>((n + 4LL * size_ - 1) / (4LL * size_))});
  std::unique_lock<std::mutex> use(in_use_, std::defer_lock);
  if (size_ == 1 || step >= n || !use.try_lock()) return call(context, 0, n);
  if (workers_.empty()) start();

  Task task{call, context, n, step, {}, {}, {}};
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    task_ = &task;
  }
  wake_.notify_all();
  task.run();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    task_ = nullptr;  // who has not begun will not
    if (started_in_ == getpid()) done_.wait(lock, [this] { return active_ == 0; });
  }
  if (task.error) std::rethrow_exception(task.error);
}

void Threads::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return is_closing_ || (task_ && task_->next.load() < task_->n); });
    if (is_closing_) return;
    Task* task = task_;
    ++active_;
    lock.unlock();
    task->run();
    lock.lock();
    if (--active_ == 0) done_.notify_all();
  }
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
