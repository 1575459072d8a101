// mask_strip.h: interpolates mask pixels, a few of a column at a time. Includes only headers of this folder.
#pragma once

#include "mask_pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

// Interpolated values of a column of kRows pixels from (x, y) on, one class at a time. Rows below the image repeat its
// last row. Rows that read the same logits share the interpolation along the logit rows.
template <int kTaps, class T, int kRows>
struct Strip {
  const T* logits;
  int64 plane_stride;
  int64 row_at[kRows][kTaps], col_at[kTaps];
  float row_weight[kRows][kTaps], col_weight[kTaps];
  bool is_new[kRows];

  SEG_HD Strip(const MaskPixel& job, int x, int y)
      : logits(static_cast<const T*>(job.logits)), plane_stride(job.plane_stride) {
    for (int t = 0; t < kTaps; ++t) {
      col_at[t] = job.col_at(t, x) * job.column_stride;
      col_weight[t] = loaded(job.col_weight + t * static_cast<int64>(job.cols) + x);
    }
    for (int r = 0; r < kRows; ++r) {
      const int row = y + r < job.rows ? y + r : job.rows - 1;
      is_new[r] = r == 0;
      for (int t = 0; t < kTaps; ++t) {
        row_at[r][t] = job.row_at(t, row) * job.row_stride;
        row_weight[r][t] = loaded(job.row_weight + t * static_cast<int64>(job.rows) + row);
        is_new[r] |= r > 0 && row_at[r][t] != row_at[r > 0 ? r - 1 : 0][t];
      }
    }
  }

  static SEG_HD float combined(const float* values, const float* weights) {
    if constexpr (kTaps == 2) {
      return interpolated(values[0], weights[0], values[1], weights[1]);
    } else {
      return interpolated(values[0], weights[0], values[1], weights[1], values[2], weights[2]);
    }
  }

  // Values of class c at every row.
  SEG_HD void at(int c, float* result) const {
    const T* plane = logits + c * plane_stride;
    float along[kTaps];
    SEG_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (is_new[r]) {
        for (int i = 0; i < kTaps; ++i) {
          float taps[kTaps];
          for (int k = 0; k < kTaps; ++k) taps[k] = float_from(loaded(plane + row_at[r][i] + col_at[k]));
          along[i] = combined(taps, col_weight);
        }
      }
      result[r] = combined(along, row_weight[r]);
    }
  }

  // Bounds of class c at every pixel of the strip. Interpolation errs by less than 64 units in the last place of the
  // largest corner, or by less than the smallest normal number.
  SEG_HD void bounds(int c, float& low, float& high) const {
    const T* plane = logits + c * plane_stride;
    low = high = float_from(loaded(plane + row_at[0][0] + col_at[0]));
    SEG_UNROLL
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < kTaps * kTaps && is_new[r]; ++i) {
        const float corner = float_from(loaded(plane + row_at[r][i / kTaps] + col_at[i % kTaps]));
        low = corner < low ? corner : low;
        high = corner > high ? corner : high;
      }
    }
    const float error = (high > -low ? high : -low) * (1.0f / (1 << 18)) + 1.2e-38f;
    low -= error;
    high += error;
  }
};

// The classes that a strip compares, in ascending order.
struct EveryClass {
  int count;
  SEG_HD int after(int c) const { return c + 1; }
};

struct ChosenClasses {
  const uint32* bits;
  int count;

  SEG_HD int after(int c) const {
    for (int next = c + 1; next < count; next = next / 32 * 32 + 32) {
      const uint32 rest = bits[next / 32] >> (next % 32);
#if defined(__CUDA_ARCH__)
      if (rest) return next + __ffs(static_cast<int>(rest)) - 1;
#else
      if (rest) return next + __builtin_ctz(rest);
#endif
    }
    return count;
  }
};

// Labels a strip. Of equal values the lowest class wins.
template <int kTaps, class T, int kRows, class Classes>
SEG_HD void decide_strip(const MaskPixel& job, const Classes& classes, int x, int y, int* labels) {
  const Strip<kTaps, T, kRows> strip(job, x, y);
  float best[kRows], values[kRows];
  const int first = classes.after(-1);
  strip.at(first, best);
  for (int r = 0; r < kRows; ++r) labels[r] = job.is_threshold ? best[r] > job.threshold : first;
  for (int c = classes.after(first); c < classes.count; c = classes.after(c)) {
    strip.at(c, values);
    for (int r = 0; r < kRows; ++r) {
      const bool is_better = values[r] > best[r];
      best[r] = is_better ? values[r] : best[r];
      labels[r] = is_better ? c : labels[r];
    }
  }
}

template <int kTaps, class T>
SEG_HD void MaskPixel::pixel(int x, int y) const {
  int label = agreed_label<kTaps>(x, y);
  if constexpr (kTaps > 1) {
    if (label == kMixed) decide_strip<kTaps, T, 1>(*this, EveryClass{classes}, x, y, &label);
  }
  write(x, y, label);
}

template <class Values>
SEG_HD float MaskPixel::confidence_of(const Values& values, float best, int label) const {
  switch (confidence_kind) {
    case Confidence::softmax: {
      float sum = 0, value;
      for (int c = 0; c < classes; ++c) {
        values.at(c, &value);
        sum += exp_of_negative<float, int>(value - best);
      }
      return 1.0f / sum;
    }
    case Confidence::sigmoid:
      return sigmoid(best);
    case Confidence::sigmoid_of_label:
      return label ? sigmoid(best) : 1.0f - sigmoid(best);
    case Confidence::value_of_label:
      return label ? best : 1.0f - best;
    default:
      return best;
  }
}

template <int kTaps, class T>
SEG_HD void MaskPixel::maps(int x, int y) const {
  const Strip<kTaps, T, 1> strip(*this, x, y);
  float best, value, second = float_from_bits(0xff800000u);
  strip.at(0, &best);
  int label = is_threshold && best > threshold ? 1 : 0;
  for (int c = 1; c < classes; ++c) {
    strip.at(c, &value);
    const bool is_better = value > best;
    second = is_better ? best : value > second ? value : second;
    best = is_better ? value : best;
    label = is_better ? c : label;
  }
  if (confidence) confidence[y * confidence_row_stride + x] = confidence_of(strip, best, label);
  if (margin) {
    const float other = label ? best - threshold : threshold - best;
    margin[y * margin_row_stride + x] = is_threshold ? other : best - second;
  }
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
