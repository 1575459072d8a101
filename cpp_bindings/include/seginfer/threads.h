// threads.h: a thread pool of a given size, and memory that calls reuse. A pool of size 1 never starts a thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace seginfer {

// Sets a flag for its lifetime, unless the flag is already set.
class Claim {
 public:
  explicit Claim(std::atomic<bool>& flag) : flag_(flag), is_mine_(!flag.exchange(true)) {}
  ~Claim() {
    if (is_mine_) flag_ = false;
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  bool is_mine() const { return is_mine_; }

 private:
  std::atomic<bool>& flag_;
  const bool is_mine_;
};

class Threads {
 public:
  // `size` includes the caller's thread. Workers start with the first call that needs them, and sleep between calls.
  explicit Threads(int size);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int size() const { return size_; }

  // Calls work(begin, end) for parts of [0, n) of at least `grain`, and returns when all are done. The caller's thread
  // does all the work while another call uses the pool, and in a forked process, which has no workers. Rethrows the
  // first exception of `work`.
  template <class Work>
  void for_each_part(int n, int grain, const Work& work) {
    const auto call = [](const void* context, int begin, int end) { (*static_cast<const Work*>(context))(begin, end); };
    run(n, grain, call, &work);
  }

 private:
  struct Task;
  struct Workers;
  using Call = void (*)(const void* context, int begin, int end);

  void run(int n, int grain, Call call, const void* context);
  void start();
  bool is_forked() const;

  const int size_;
  std::atomic<bool> is_in_use_{false};
  std::atomic<long> started_in_{0};  // process id
  std::unique_ptr<Workers> workers_;
};

// Uninitialised memory, aligned to 64 bytes. It grows to the largest request and is then reused.
class Buffer {
 public:
  void* reserve(size_t bytes);
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  std::unique_ptr<void, Free> memory_;
  size_t size_ = 0;
};

// The calling thread's own scratch memory.
void* thread_scratch(size_t bytes);

}  // namespace seginfer
