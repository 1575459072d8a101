// check_pool.cpp: the thread pool covers every item once, from any thread, and survives exceptions of its work.
#include <dirent.h>

#include <atomic>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "seginfer/error.h"
#include "seginfer/threads.h"

namespace {

using checks::expect;
using seginfer::Threads;

int running_threads() {
  int count = 0;
  DIR* folder = opendir("/proc/self/task");
  while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

bool covers_each_once(Threads& threads, int n, int grain) {
  std::vector<std::atomic<int>> times(static_cast<size_t>(n));
  std::atomic<bool> is_inside{true};
  threads.for_each_part(n, grain, [&](int begin, int end) {
    if (begin < 0 || begin >= end || end > n) return void(is_inside = false);
    for (int i = begin; i < end; ++i) ++times[static_cast<size_t>(i)];
  });
  for (const std::atomic<int>& one : times) {
    if (one != 1) return false;
  }
  return is_inside;
}

void check_coverage() {
  for (const int size : {1, 2, 3, 8, 17}) {
    Threads threads(size);
    for (const int n : {0, 1, 2, 3, 7, 64, 1000, 4097}) {
      for (const int grain : {-1, 0, 1, 3, 100, std::numeric_limits<int>::max()}) {
        expect(covers_each_once(threads, n, grain), "coverage of " + std::to_string(n));
      }
    }
  }
}

// Parts near the largest int neither wrap around nor leave a gap.
void check_large_counts() {
  constexpr int kMost = std::numeric_limits<int>::max();
  for (const int n : {kMost, kMost - 1, kMost / 2 + 1}) {
    for (const int grain : {0, n / 3, n - 1}) {
      Threads threads(8);
      std::atomic<long long> covered{0};
      threads.for_each_part(n, grain, [&](int begin, int end) {
        expect(begin >= 0 && begin < end && end <= n, "a part of " + std::to_string(n));
        covered += end - begin;
        std::this_thread::yield();
      });
      expect(covered == n, "coverage of " + std::to_string(n));
    }
  }
}

void check_a_pool_of_one_starts_no_thread() {
  std::thread([] {}).join();  // with the first thread, a sanitizer may start one of its own
  const int before = running_threads();
  Threads one(1), many(4);
  expect(covers_each_once(one, 1000, 1), "a pool of one");
  expect(running_threads() == before, "a pool of one, or without work, starts no thread");
  expect(covers_each_once(many, 1, 1), "one item");
  expect(running_threads() == before, "a single part starts no thread");
  expect(covers_each_once(many, 1000, 1), "a pool of four");
  expect(running_threads() == before + 3, "a pool of four starts three");
}

void check_many_pools() {
  const int before = running_threads();
  for (int i = 0; i < 100; ++i) {
    Threads threads(1 + i % 5);
    if (i % 3) expect(covers_each_once(threads, 100 + i, 1), "pool " + std::to_string(i));
  }
  expect(running_threads() == before, "a pool ends its threads");
}

// Threads share one pool, and its work uses that pool and another one.
void check_nested_use() {
  Threads shared(3), other(2);
  std::atomic<int> done{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        shared.for_each_part(8, 1, [&](int begin, int end) {
          for (int k = begin; k < end; ++k) {
            shared.for_each_part(5, 1, [&](int b, int e) { done += e - b; });
            other.for_each_part(5, 1, [&](int b, int e) { done += e - b; });
          }
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(done == 4 * 20 * 8 * 10, "nested use, " + std::to_string(done));
}

void check_exceptions() {
  for (const int size : {1, 2, 4}) {
    Threads threads(size);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> thrown{0};
      try {
        threads.for_each_part(100, 1, [&](int begin, int end) {
          if (begin <= round && round < end) {
            ++thrown;
            throw std::runtime_error("part " + std::to_string(round));
          }
        });
        expect(false, "an exception is thrown again");
      } catch (const std::runtime_error& error) {
        expect(error.what() == "part " + std::to_string(round) && thrown == 1,
               "the exception is the one that was thrown");
      }
      expect(covers_each_once(threads, 200, 1), "a pool is usable after an exception");
    }
    checks::expect_throw<std::runtime_error>(
        [&] { threads.for_each_part(50, 1, [](int, int) { throw std::runtime_error("all"); }); }, "all parts throw");
  }
}

void check_sizes() {
  for (const int size : {0, -1, 1025, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    checks::expect_throw<seginfer::InputError>([&] { Threads threads(size); }, "a size of " + std::to_string(size));
  }
}

}  // namespace

int main() {
  check_a_pool_of_one_starts_no_thread();
  check_sizes();
  check_coverage();
  check_large_counts();
  check_many_pools();
  check_nested_use();
  check_exceptions();
  return checks::report();
}
