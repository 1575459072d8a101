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

inline void require(bool is_met, const std::string& message) {
  if (!is_met) throw InputError(message);
}

inline std::string size_text(long long height, long long width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

}  // namespace seginfer
