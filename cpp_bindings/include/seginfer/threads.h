// threads.h: a pool of threads whose size the caller sets; a pool of one never starts a thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace seginfer {

// Holds a flag while it lives, unless another holds it already.
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
  // `size` counts the caller's own thread. Workers start with the first call that has work for them, and sleep between
  // calls.
  explicit Threads(int size);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int size() const { return size_; }

  // Calls work(begin, end) until [0, n) is covered, in parts of at least `grain`, and returns when all are done. Where
  // another call is using the pool, or in a forked process, which has no workers, the caller does everything itself.
  // Rethrows the first exception of `work`.
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

// Memory that grows to the largest request and is then reused: aligned to 64 bytes, contents undefined.
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
