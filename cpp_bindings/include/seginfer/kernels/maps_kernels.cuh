// maps_kernels.cuh: kernel that computes confidences and margins from the network's output.
#pragma once

#include "grid.cuh"
#include "mask_strip.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kMapRows = 4 * kBlockY;  // of the maps, by kBlockX columns, that a block writes

// exp(x) for x <= 0. PTX promises a relative error of 2^-22. A sum of n terms between 0 and 1, one of them 1, then errs
// by at most 2^-22 * n times itself where all are near 1, so that 1 / sum is within 1e-6.
SEG_HD float fast_exp(float x) {
#if defined(__CUDA_ARCH__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * 1.44269504f));
  return power;
#else
  return exp_of_negative<float, int>(x);
#endif
}

// The two best values of a pixel, and the sum of exp(value - best) over the classes so far.
struct Ranking {
  float best, second, sum;

  SEG_HD void add(float value, bool has_sum) {
    const float change = value - best;
    const bool is_better = change > 0.0f;
    if (has_sum) {
      const float power = fast_exp(is_better ? -change : change);
      sum = is_better ? sum * power + 1.0f : sum + power;
    }
    second = is_better ? best : value > second ? value : second;
    best = is_better ? value : best;
  }
};

// Confidences of other kinds than softmax.
SEG_HD float confidence_of(const MaskPixel& job, const Ranking& rank, int label) {
  switch (job.confidence_kind) {
    case Confidence::sigmoid:
      return sigmoid(rank.best);
    case Confidence::sigmoid_of_label:
      return label ? sigmoid(rank.best) : 1.0f - sigmoid(rank.best);
    case Confidence::value_of_label:
      return label ? rank.best : 1.0f - rank.best;
    default:
      return rank.best;
  }
}

// A column of kRows pixels from (x, y) on, whose rows may read different cells. Rows below the image repeat its last
// row.
template <int kTaps, class T, int kRows>
struct MapStrip {
  const T* logits;
  int row_at[kRows][kTaps], col_at[kTaps];
  float row_weight[kRows][kTaps], col_weight[kTaps];
  bool is_new[kRows];

  SEG_DEVICE MapStrip(const MaskPixel& job, int x, int y) : logits(static_cast<const T*>(job.logits)) {
    for (int t = 0; t < kTaps; ++t) {
      const int64 col = t * static_cast<int64>(job.cols) + x;
      col_at[t] = loaded(job.col_index + col) * job.column_stride;
      col_weight[t] = loaded(job.col_weight + col);
    }
    int before = -1;
    for (int r = 0; r < kRows; ++r) {
      const int row = y + r < job.rows ? y + r : job.rows - 1, run = loaded(job.row_run + row);
      is_new[r] = run != before;
      before = run;
      for (int t = 0; t < kTaps; ++t) {
        const int64 at = t * static_cast<int64>(job.rows) + row;
        row_at[r][t] = loaded(job.row_index + at) * job.row_stride;
        row_weight[r][t] = loaded(job.row_weight + at);
      }
    }
  }

  // Values at every row of the class at `plane`.
  SEG_DEVICE void at(int plane, float* result) const {
    float along[kTaps];
    for (int r = 0; r < kRows; ++r) {
      if (is_new[r]) {
        SEG_TRIP_OF(4);
        for (int i = 0; i < kTaps; ++i) {
          float values[kTaps];
          for (int k = 0; k < kTaps; ++k) values[k] = float_from(loaded(logits + (row_at[r][i] + col_at[k] + plane)));
          along[i] = combined<kTaps>(values, col_weight);
        }
      }
      result[r] = combined<kTaps>(along, row_weight[r]);
    }
  }
};

// Confidences and margins, four rows of a column per thread. A class is interpolated once.
template <int kTaps, class T>
SEG_DEVICE void maps(const MaskPixel* records) {
  constexpr int kRows = kMapRows / kBlockY;
  const MaskPixel job = records[blockIdx.z];
  const int x = column(), y = row_of_block(kMapRows) + kRows * static_cast<int>(threadIdx.y);
  if (x >= job.cols || y >= job.rows) return;
  const MapStrip<kTaps, T, kRows> strip(job, x, y);
  const bool has_sum = job.confidence && job.confidence_kind == Confidence::softmax;
  constexpr uint32 kLowest = 0xff800000u;  // minus infinity
  Ranking ranks[kRows];
  for (Ranking& rank : ranks) rank = {float_from_bits(kLowest), float_from_bits(kLowest), 0.0f};
  SEG_NO_UNROLL
  for (int c = 0; c < job.classes; ++c) {
    SEG_TRIP;
    float values[kRows];
    strip.at(c * job.plane_stride, values);
    for (int r = 0; r < kRows; ++r) ranks[r].add(values[r], has_sum);
  }
  for (int r = 0; r < kRows; ++r) {
    if (y + r >= job.rows) return;
    const Ranking& rank = ranks[r];
    const bool is_above = job.is_threshold && rank.best > job.threshold;
    if (job.confidence) {
      float& confidence = job.confidence[(y + r) * job.confidence_row_stride + x];
      if (has_sum) {
        confidence = 1.0f / rank.sum;
      } else {
        SEG_TRIP_OF(4);
        confidence = confidence_of(job, rank, is_above);
      }
    }
    if (job.margin) {
      SEG_TRIP_OF(4);
      const float distance = is_above ? rank.best - job.threshold : job.threshold - rank.best;
      job.margin[(y + r) * job.margin_row_stride + x] = job.is_threshold ? distance : rank.best - rank.second;
    }
  }
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
