// check.h: a count of failures, random numbers from a seed or from bytes, and heap blocks of exact size.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>

namespace checks {

inline std::atomic<int> failures{0};
inline std::atomic<long> checked{0};

// Prints only the first failures; the exit status counts all.
inline bool expect(bool is_right, const std::string& what) {
  ++checked;
  if (!is_right && ++failures <= 20) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  return is_right;
}

template <class Error, class Call>
void expect_throw(const Call& call, const std::string& what) {
  try {
    call();
  } catch (const Error&) {
    return void(expect(true, what));
  }
  expect(false, what + ": nothing was thrown");
}

inline int report() {
  std::printf("%ld checks, %d failures\n", checked.load(), failures.load());
  return failures ? 1 : 0;
}

// Numbers from a seed, or from the bytes of a fuzzer, and where they end, from a seed.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  Random(const uint8_t* data, size_t size) : engine_(static_cast<unsigned>(size)), data_(data), left_(size) {}

  unsigned below(unsigned n) {
    if (!left_) return static_cast<unsigned>(engine_()) % n;
    unsigned value = 0;
    for (unsigned span = n - 1; span && left_; span >>= 8, --left_) value = value << 8 | *data_++;
    return value % n;
  }
  int between(int low, int high) { return low + static_cast<int>(below(static_cast<unsigned>(high - low + 1))); }
  bool coin() { return below(2) == 0; }
  bool chance(unsigned one_in) { return below(one_in) + 1 == one_in; }
  float value() { return static_cast<float>(between(-2000, 2000)) / 256.0f; }
  void fill(void* memory, size_t bytes) {
    std::mt19937 noise(below(1 << 16));
    for (size_t i = 0; i < bytes; ++i) static_cast<uint8_t*>(memory)[i] = static_cast<uint8_t>(noise());
  }

  template <class T, size_t n>
  const T& one_of(const T (&values)[n]) {
    return values[below(n)];
  }

 private:
  std::mt19937 engine_;
  const uint8_t* data_ = nullptr;
  size_t left_ = 0;
};

// A heap block without room around its values, so that AddressSanitizer reports a single byte outside.
template <class T>
class Block {
 public:
  explicit Block(int64_t count)
      : size_(static_cast<size_t>(count)), values_(static_cast<T*>(std::malloc(size_ * sizeof(T))), &std::free) {
    std::memset(values_.get(), 0xA5, bytes());
  }

  T* data() { return values_.get(); }
  const T* data() const { return values_.get(); }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](int64_t i) { return values_.get()[i]; }
  const T& operator[](int64_t i) const { return values_.get()[i]; }
  bool operator==(const Block& other) const {
    return bytes() == other.bytes() && std::memcmp(data(), other.data(), bytes()) == 0;
  }

 private:
  size_t size_;
  std::unique_ptr<T, void (*)(void*)> values_;
};

}  // namespace checks
