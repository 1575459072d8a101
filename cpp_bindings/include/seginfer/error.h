// error.h: exceptions of the library. Messages state what was expected, what was got, and the remedy.
#pragma once

#include <stdexcept>
#include <string>

namespace seginfer {

// An invalid argument. Nothing has been written, unless the message says otherwise.
class InputError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// A failed call of the CUDA runtime or driver.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws InputError unless a condition holds. It is a macro so that the message is built only when it is thrown.
#define SEG_REQUIRE(condition, ...)                              \
  do {                                                           \
    if (!(condition)) throw ::seginfer::InputError(__VA_ARGS__); \
  } while (false)

inline std::string size_text(long long height, long long width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

}  // namespace seginfer
