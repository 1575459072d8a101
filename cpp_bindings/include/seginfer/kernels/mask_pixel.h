// mask_pixel.h: arguments of the mask kernels, and the label of one pixel where the cells around it agree. Includes
// only headers of this folder.
#pragma once

#include "label_cell.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

SEG_HD float sigmoid(float value) {
  const float power = exp_of_negative<float, int>(value < 0.0f ? value : -value);
  return (value < 0.0f ? power : 1.0f) / (1.0f + power);
}

// Interpolation is a convex combination: where the cells around a pixel all have the same label, so does the pixel.
// Only elsewhere are logits interpolated and compared.
struct MaskPixel {
  const void* logits;
  int64 plane_stride, row_stride, column_stride;  // in values
  const uint16* labels;                           // (height, width) of the logits
  const int* row_index;                           // (taps, rows)
  const float* row_weight;
  const int* col_index;  // (taps, cols)
  const float* col_weight;
  const uint16* table;  // mask value of each label, or null
  void* mask;           // first visible pixel, also of the maps
  int64 mask_row_stride;
  float* confidence;  // null if not requested
  int64 confidence_row_stride;
  float* margin;  // between the two best values, or to the threshold; null if not requested
  int64 margin_row_stride;
  DType kind;  // float32 or float16
  int classes, width;
  int taps;  // 2 or 3; 1 if the network's output is labels
  int rows, cols;
  int mask_bytes;  // per value
  int is_threshold;
  float threshold;
  Confidence confidence_kind;

  // The label that all cells around a pixel have, or kMixed.
  template <int kTaps>
  SEG_HD uint16 agreed_label(int x, int y) const {
    uint16 label = kMixed;
    for (int i = 0; i < kTaps; ++i) {
      const uint16* row = labels + static_cast<int64>(row_at(i, y)) * width;
      for (int k = 0; k < kTaps; ++k) {
        const uint16 other = loaded(row + col_at(k, x));
        if (i == 0 && k == 0) label = other;
        label = label == other ? label : kMixed;
      }
    }
    return label;
  }

  SEG_HD int row_at(int tap, int y) const { return loaded(row_index + tap * static_cast<int64>(rows) + y); }
  SEG_HD int col_at(int tap, int x) const { return loaded(col_index + tap * static_cast<int64>(cols) + x); }

  SEG_HD int mask_value(int label) const { return table ? loaded(table + label) : label; }

  SEG_HD void write(int x, int y, int label) const {
    const int64 at = y * mask_row_stride + x;
    if (mask_bytes == 1) {
      static_cast<uint8*>(mask)[at] = static_cast<uint8>(mask_value(label));
    } else {
      static_cast<uint16*>(mask)[at] = static_cast<uint16>(mask_value(label));
    }
  }

  // Writes the mask at one visible pixel. This and the next two are defined in mask_strip.h.
  template <int kTaps, class T>
  SEG_HD void pixel(int x, int y) const;

  // Writes confidence and margin at one visible pixel.
  template <int kTaps, class T>
  SEG_HD void maps(int x, int y) const;

  template <class Values>
  SEG_HD float confidence_of(const Values& values, float best, int label) const;
};

static_assert(sizeof(MaskPixel) == 168, "seginfer/_cuda/kernel_args.py states the same layout");

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
