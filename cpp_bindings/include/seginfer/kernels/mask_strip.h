// mask_strip.h: interpolates mask pixels, a few of a column at a time. Includes only headers of this folder.
#pragma once

#include "mask_pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

template <int kTaps>
SEG_HD float combined(const float* values, const float* weights) {
  if constexpr (kTaps == 2) {
    return interpolated(values[0], weights[0], values[1], weights[1]);
  } else {
    return interpolated(values[0], weights[0], values[1], weights[1], values[2], weights[2]);
  }
}

// The cells of one class that a pixel is interpolated from.
template <int kTaps, class T>
struct Corners {
  const T* logits;
  int at[kTaps][kTaps];
  float value[kTaps][kTaps];

  // Reads the cells of the class at `plane`, the class times the plane's stride.
  SEG_HD void read(int plane) {
    for (int i = 0; i < kTaps; ++i) {
      for (int k = 0; k < kTaps; ++k) value[i][k] = float_from(loaded(logits + (at[i][k] + plane)));
    }
  }

  // Bounds of the class at every pixel between the cells. Interpolation errs by less than 64 units in the last place of
  // the largest corner, or by less than the smallest normal number.
  SEG_HD void bounds(float& low, float& high) const {
    low = high = value[0][0];
    for (int i = 0; i < kTaps; ++i) {
      for (int k = 0; k < kTaps; ++k) {
        low = value[i][k] < low ? value[i][k] : low;
        high = value[i][k] > high ? value[i][k] : high;
      }
    }
    const float error = (high > -low ? high : -low) * (1.0f / (1 << 18)) + 1.2e-38f;
    low -= error;
    high += error;
  }
};

// Interpolated values of kRows pixels of a column, one class at a time. All rows read the same cells.
template <int kTaps, class T, int kRows>
struct Strip {
  Corners<kTaps, T> corners;
  float row_weight[kRows][kTaps], col_weight[kTaps];

  // Values at every row of the class at `plane`.
  SEG_HD void at(int plane, float* result) {
    corners.read(plane);
    float along[kTaps];
    for (int i = 0; i < kTaps; ++i) along[i] = combined<kTaps>(corners.value[i], col_weight);
    for (int r = 0; r < kRows; ++r) result[r] = combined<kTaps>(along, row_weight[r]);
  }
};

// The classes that a strip compares: every bit stands for `step` of them, in ascending order.
struct Classes {
  uint32 bits;
  int step, count;
};

constexpr int kClassBits = 32;

SEG_HD int class_step(int classes) { return (classes + kClassBits - 1) / kClassBits; }

SEG_HD int lowest_bit(uint32 bits) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(bits)) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

// Labels a strip. Of equal values the lowest class wins.
template <int kTaps, class T, int kRows>
SEG_HD void decide_strip(const MaskPixel& job, Strip<kTaps, T, kRows>& strip, const Classes& classes, int* labels) {
  float best[kRows], values[kRows];
  for (int r = 0; r < kRows; ++r) {
    best[r] = float_from_bits(0xff800000u);
    labels[r] = 0;
  }
  if (job.is_threshold) {
    SEG_TRIP;
    strip.at(0, best);
    for (int r = 0; r < kRows; ++r) labels[r] = best[r] > job.threshold;
    return;
  }
  SEG_NO_UNROLL
  for (uint32 bits = classes.bits; bits; bits &= bits - 1) {
    SEG_TRIP;
    const int first = lowest_bit(bits) * classes.step;
    const int end = first + classes.step < classes.count ? first + classes.step : classes.count;
    SEG_NO_UNROLL
    for (int c = first; c < end; ++c) {
      SEG_TRIP;
      strip.at(c * job.plane_stride, values);
      for (int r = 0; r < kRows; ++r) {
        const bool is_better = values[r] > best[r];
        best[r] = is_better ? values[r] : best[r];
        labels[r] = is_better ? c : labels[r];
      }
    }
  }
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
