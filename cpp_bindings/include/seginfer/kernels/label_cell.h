// label_cell.h: label of one cell of the network's output. Includes only enums.h and pixel.h.
#pragma once

#include "enums.h"
#include "pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr uint32 kNotFinite = 1, kNoClass = 2;  // values of LabelCell::faults

SEG_HD float float_from(float value) { return value; }
SEG_HD float float_from(uint16 half) { return float_from_half(half); }

struct LabelCell {
  const void* values;
  int64 channel_stride, row_stride, column_stride;  // in values
  uint16* labels;                                   // (height, width), or (classes, height, width) for a threshold
  uint32* faults;                                   // written only for a value that is not finite or an invalid id
  DType kind;
  int classes, height, width;
  int is_threshold;  // of each channel separately
  float threshold;

  // Labels cell (x, y).
  SEG_HD void operator()(int x, int y) const {
    switch (kind) {
      case DType::float32:
        return decide<float>(x, y);
      case DType::float16:
        return decide<uint16>(x, y);
      case DType::uint8:
        return copy<seginfer::uint8>(x, y);
      case DType::int32:
        return copy<int>(x, y);
      case DType::int64:
        return copy<seginfer::int64>(x, y);
    }
  }

  template <class T>
  SEG_HD const T* first_of(int x, int y) const {
    return static_cast<const T*>(values) + y * row_stride + x * column_stride;
  }

  template <class T>
  SEG_HD void decide(int x, int y) const {
    const T* from = first_of<T>(x, y);
    uint16* to = labels + static_cast<int64>(y) * width + x;
    float zero = 0, best = 0;  // zero becomes NaN if a value is not finite
    int label = 0;
    SEG_UNROLL
    for (int c = 0; c < classes; ++c, from += channel_stride) {
      const float value = float_from(loaded(from));
      zero += value * 0.0f;
      if (is_threshold) {
        to[static_cast<int64>(c) * height * width] = value > threshold;
      } else if (c == 0 || value > best) {
        best = value;
        label = c;
      }
    }
    if (!is_threshold) *to = static_cast<uint16>(label);
    if (!(zero == 0.0f)) *faults = kNotFinite;
  }

  template <class T>
  SEG_HD void copy(int x, int y) const {
    const auto id = static_cast<int64>(loaded(first_of<T>(x, y)));
    const bool is_class = id >= 0 && id < classes;
    labels[static_cast<int64>(y) * width + x] = is_class ? static_cast<uint16>(id) : uint16{0};
    if (!is_class) *faults = kNoClass;
  }
};

static_assert(sizeof(LabelCell) == 72, "seginfer/_cuda/kernel_args.py states the same layout");

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
