// simd.h: vectors of SEGINFER_LANES numbers, as vector types of GCC and Clang, for x86 and Arm.
#pragma once

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "seginfer/kernels/pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

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

SEG_HD Ints lane_numbers() {
  Ints lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}

SEG_HD float largest_lane(Floats values) {
  float largest = values[0];
  for (int i = 1; i < kLanes; ++i) largest = values[i] > largest ? values[i] : largest;
  return largest;
}

// Whether a comparison holds in any lane.
SEG_HD bool any(Ints mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#elif defined(__SSE4_1__)
  return _mm_movemask_ps(reinterpret_cast<__m128>(mask)) != 0;
#else
  long long parts[sizeof(Ints) / 8];
  memcpy(parts, &mask, sizeof(Ints));
  long long all = 0;
  for (const long long part : parts) all |= part;
  return all != 0;
#endif
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
