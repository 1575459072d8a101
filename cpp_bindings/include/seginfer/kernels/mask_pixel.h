// mask_pixel.h: arguments of the mask kernels, and the label of one cell of the network's output. Includes only headers
// of this folder.
#pragma once

#include "enums.h"
#include "pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr uint32 kNotFinite = 1, kNoClass = 2;  // values of MaskPixel::faults

SEG_HD float float_from(float value) { return value; }
SEG_HD float float_from(uint16 half) { return float_from_half(half); }

SEG_HD float sigmoid(float value) {
  const float power = exp_of_negative<float, int>(value < 0.0f ? value : -value);
  return (value < 0.0f ? power : 1.0f) / (1.0f + power);
}

// One plane of a mask. The output of an image has fewer than 2^31 values, and the strides are those of its values.
struct MaskPixel {
  const void* logits;    // or class ids
  const int* row_index;  // (taps, rows)
  const float* row_weight;
  const int* row_run;    // (rows): how many times an index of an earlier row changed
  const int* col_index;  // (taps, cols)
  const float* col_weight;
  const int* col_run;   // (cols)
  const uint16* table;  // mask value of each label, or null
  void* mask;           // first visible pixel, also of the maps
  float* confidence;    // null if not requested
  float* margin;        // between the two best values, or to the threshold; null if not requested
  uint32* faults;       // written only for a value that is not finite or an invalid id
  int64 mask_row_stride, confidence_row_stride, margin_row_stride;
  int plane_stride, row_stride, column_stride;
  DType kind;
  int classes, height, width;
  int taps;  // 2 or 3; 1 if the network's output is labels
  int rows, cols;
  int mask_bytes;  // per value
  int is_threshold;
  float threshold;
  Confidence confidence_kind;

  // Label of the cell whose first value is at `at`. `is_good` turns false for a value that the output may not have.
  template <class T>
  SEG_HD int cell_label(int at, bool& is_good) const;

  SEG_HD int mask_value(int label) const { return table ? loaded(table + label) : label; }
};

static_assert(sizeof(MaskPixel) == 176, "seginfer/_cuda/kernel_args.py states the same layout");

// The largest magnitude so far, or NaN after a NaN.
SEG_HD float largest_magnitude(float largest, float value) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(largest), "f"(fabsf(value)));
  return result;
#else
  const float magnitude = value < 0.0f ? -value : value;
  return largest >= magnitude || largest != largest ? largest : magnitude;
#endif
}

// The best class so far of a cell.
struct BestClass {
  float value, largest;
  int label;

  SEG_HD void compare(float other, int c) {
    largest = largest_magnitude(largest, other);
    const bool is_better = other > value;
    value = is_better ? other : value;
    label = is_better ? c : label;
  }
};

template <class T>
SEG_HD int MaskPixel::cell_label(int at, bool& is_good) const {
  constexpr int kBatch = 6;  // values that are read before the first is compared
  const T* from = static_cast<const T*>(logits) + at;
  const float first = float_from(loaded(from));
  BestClass best = {first, largest_magnitude(0.0f, first), is_threshold && first > threshold};
  int c = 1;
  SEG_NO_UNROLL
  for (; c + kBatch <= classes; c += kBatch) {
    SEG_TRIP;
    float values[kBatch];
    for (float& value : values) value = float_from(loaded(from += plane_stride));
    for (int i = 0; i < kBatch; ++i) best.compare(values[i], c + i);
  }
  SEG_NO_UNROLL
  for (; c < classes; ++c) {
    SEG_TRIP;
    best.compare(float_from(loaded(from += plane_stride)), c);
  }
  is_good = best.largest < float_from_bits(0x7f800000u);
  return best.label;
}

template <class T>
SEG_HD int id_label(const MaskPixel& job, int at, bool& is_good) {
  const auto id = static_cast<int64>(loaded(static_cast<const T*>(job.logits) + at));
  is_good = id >= 0 && id < job.classes;
  return is_good ? static_cast<int>(id) : 0;
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
