// simd.h: vectors of SEGINFER_LANES numbers, in the compiler's own vector types (GCC, Clang; x86 and Arm).
#pragma once

#include <cstring>

#include "seginfer/pixel.h"

namespace seginfer {
inline namespace SEGINFER_LEVEL {

constexpr int kLanes = SEGINFER_LANES;

typedef float Floats __attribute__((vector_size(4 * SEGINFER_LANES)));
typedef int Ints __attribute__((vector_size(4 * SEGINFER_LANES)));

template <class V>
SEG_HD V load(const void* from) {
  V value;
  memcpy(&value, from, sizeof(V));
  return value;
}

template <class V>
SEG_HD void store(void* to, V value) {
  memcpy(to, &value, sizeof(V));
}

SEG_HD Floats splat(float value) { return Floats{} + value; }
SEG_HD Ints splat(int value) { return Ints{} + value; }
SEG_HD Floats floats_from(Ints values) { return __builtin_convertvector(values, Floats); }
SEG_HD Ints ints_from(Floats values) { return __builtin_convertvector(values, Ints); }

}  // namespace SEGINFER_LEVEL
}  // namespace seginfer
