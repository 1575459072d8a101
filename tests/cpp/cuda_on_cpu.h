// cuda_on_cpu.h: enough of CUDA to run kernels on the CPU. The threads of a block are fibers that switch at barriers.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x, y, z;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Counts how often each thread passes a place of a kernel.
#define SEG_TRIP                                          \
  do {                                                    \
    static cuda_on_cpu::Trip trip = {__FILE__, __LINE__}; \
    trip.pass();                                          \
  } while (0)
#define SEG_TRIP_OF(copies) SEG_TRIP

template <class T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}

template <class T>
void atomicMax(T* to, T value) {
  *to = std::max(*to, value);
}

template <class T>
void atomicOr(T* to, T value) {
  *to |= value;
}

namespace cuda_on_cpu {

constexpr size_t kStackBytes = 1 << 17;
constexpr unsigned kWarp = 32, kMaxThreads = 256;

// A marked place of a kernel. A warp passes it as often as the busiest of its threads.
struct Trip {
  const char* file;
  int line;
  bool is_known = false;
  unsigned of_threads[kMaxThreads] = {};
  unsigned long long of_warps = 0;

  void pass();
  void end_block() {
    for (unsigned warp = 0; warp < kMaxThreads; warp += kWarp) {
      of_warps += *std::max_element(of_threads + warp, of_threads + warp + kWarp);
    }
    std::fill_n(of_threads, kMaxThreads, 0u);
  }
};

inline std::vector<Trip*> known_trips;

inline void Trip::pass() {
  if (!is_known) known_trips.push_back(this);
  is_known = true;
  ++of_threads[threadIdx.y * blockDim.x + threadIdx.x];
}

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  dim3 index{};
  bool is_done = false;
};

inline ucontext_t scheduler;
inline Fiber* current;
inline const std::function<void()>* body;
inline const void* scheduler_stack;
inline size_t scheduler_stack_bytes;

inline void before_switch([[maybe_unused]] void** kept, [[maybe_unused]] const void* stack,
                          [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(kept, stack, bytes);
#endif
}

inline void after_switch([[maybe_unused]] void* kept, [[maybe_unused]] const void** stack,
                         [[maybe_unused]] size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(kept, stack, bytes);
#endif
}

inline void leave() {
  Fiber* self = current;
  void* kept = nullptr;
  before_switch(self->is_done ? nullptr : &kept, scheduler_stack, scheduler_stack_bytes);
  swapcontext(&self->context, &scheduler);
  after_switch(kept, nullptr, nullptr);
}

inline void enter() {
  after_switch(nullptr, &scheduler_stack, &scheduler_stack_bytes);
  (*body)();
  current->is_done = true;
  leave();
}

inline void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  void* kept = nullptr;
  before_switch(&kept, fiber.stack.get(), kStackBytes);
  swapcontext(&scheduler, &fiber.context);
  after_switch(kept, nullptr, nullptr);
}

[[gnu::noinline]] inline void prepare(Fiber& fiber) {
  fiber.is_done = false;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
}

inline void run_block(std::vector<Fiber>& fibers) {
  for (unsigned i = 0; i < fibers.size(); ++i) {
    fibers[i].index = {i % blockDim.x, i / blockDim.x, 0};
    prepare(fibers[i]);
  }
  for (size_t running = fibers.size(); running;) {
    running = 0;
    for (Fiber& fiber : fibers) {
      resume(fiber);
      running += !fiber.is_done;
    }
    if (running && running != fibers.size()) std::abort();  // a barrier that some threads of the block never reach
  }
  for (Trip* trip : known_trips) trip->end_block();
}

// kernel<<<grid, block>>>(arguments) for a `kernel` that holds its arguments.
inline void launch(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  static std::vector<Fiber> fibers;
  if (fibers.size() != block.x * block.y) fibers = std::vector<Fiber>(block.x * block.y);
  body = &kernel;
  gridDim = grid;
  blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block(fibers);
    }
  }
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::leave(); }
