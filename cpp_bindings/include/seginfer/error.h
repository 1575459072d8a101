// error.h: what the library throws. Messages say what was expected, what was got, and the remedy.
#pragma once

#include <stdexcept>
#include <string>

namespace seginfer {

// An argument that the call does not accept. Nothing has been written then, unless the message says otherwise.
class InputError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// The CUDA driver or runtime refused a call.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws InputError unless a condition holds. A macro, since messages cost more than most checks: they are made only to
// be thrown.
#define SEG_REQUIRE(condition, ...)                              \
  do {                                                           \
    if (!(condition)) throw ::seginfer::InputError(__VA_ARGS__); \
  } while (false)

inline std::string size_text(long long height, long long width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

}  // namespace seginfer
