// interpolate.h: interpolates a block of pixels, first along the logit rows and then down, and labels it. Part of
// target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

// Interpolates columns [begin, end) of a row of one class, whose taps differ from pixel to pixel.
template <int kTaps>
SEG_HD void interpolate_columns(const MaskJob& job, const float* row, int begin, int end, float* values) {
  const int *i0 = job.col_index + begin, *i1 = i0 + job.cols, *i2 = i0 + (kTaps - 1) * job.cols;
  const float *w0 = job.col_weight + begin, *w1 = w0 + job.col_stride, *w2 = w0 + (kTaps - 1) * job.col_stride;
  for (int x = 0; x < end - begin; ++x) {
    if constexpr (kTaps == 2) {
      values[x] = interpolated(row[i0[x]], w0[x], row[i1[x]], w1[x]);
    } else {
      values[x] = interpolated(row[i0[x]], w0[x], row[i1[x]], w1[x], row[i2[x]], w2[x]);
    }
  }
}

// The same where runs of pixels share their taps.
template <int kTaps>
SEG_HD void interpolate_runs(const MaskJob& job, const float* row, int first_run, int begin, int end, float* values) {
  for (int r = first_run; job.runs[r] < end; ++r) {
    const int left = job.runs[r] > begin ? job.runs[r] : begin;
    const int right = job.runs[r + 1] < end ? job.runs[r + 1] : end;
    Floats tap[kTaps];
    for (int t = 0; t < kTaps; ++t) tap[t] = splat(row[job.col_index[t * job.cols + left]]);
    for (int x = left; x < right; x += kLanes) {  // the next run overwrites the values past this one
      const float* w = job.col_weight + x;
      const int stride = job.col_stride;
      if constexpr (kTaps == 2) {
        store(values + x - begin, interpolated(tap[0], load<Floats>(w), tap[1], load<Floats>(w + stride)));
      } else {
        store(values + x - begin, interpolated(tap[0], load<Floats>(w), tap[1], load<Floats>(w + stride), tap[2],
                                               load<Floats>(w + 2 * stride)));
      }
    }
  }
}

// Interpolates columns [begin, end) along one logit row, for every contender.
template <int kTaps>
void interpolate_along(const MaskJob& job, const LogitRows& logits, const Contenders& who, int logit_row, int first_run,
                       int begin, int end, float* values) {
  const int quarter = first_run + (end - begin) / 4;  // the last run if runs are four pixels long
  const bool has_short_runs = quarter < job.run_count && job.runs[quarter] < end;
  for (int k = 0; k < who.count; ++k, values += block_stride()) {
    const float* row = logits.values(logit_row) + who.classes[k] * logits.stride();
    if (has_short_runs) {
      interpolate_columns<kTaps>(job, row, begin, end, values);
    } else {
      interpolate_runs<kTaps>(job, row, first_run, begin, end, values);
    }
  }
}

// Values of the contenders in one output row of a block, interpolated down the logit rows.
template <int kTaps>
struct Down {
  const Contenders& who;
  const float* values;
  int64 row_stride;
  Floats weight[kTaps];

  Down(const MaskJob& job, const Contenders& contenders, const float* block, int row)
      : who(contenders), values(block), row_stride(job.classes * block_stride()) {
    for (int t = 0; t < kTaps; ++t) weight[t] = splat(job.row_weight[t * job.rows + row]);
  }

  // Of contender k.
  SEG_HD Floats at(int k, int x) const {
    const float* from = values + k * block_stride() + x;
    const Floats first = load<Floats>(from), second = load<Floats>(from + row_stride);
    if constexpr (kTaps == 2) {
      return interpolated(first, weight[0], second, weight[1]);
    } else {
      return interpolated(first, weight[0], second, weight[1], load<Floats>(from + 2 * row_stride), weight[2]);
    }
  }
};

SEG_HD void store_part(float* to, Floats values, int n) {
  if (n >= kLanes) {
    store(to, values);
  } else {
    memcpy(to, &values, static_cast<size_t>(n) * sizeof(float));
  }
}

SEG_HD Floats sigmoid(Floats value) {
  const Floats power = exp_of_negative<Floats, Ints>(value < 0.0f ? value : -value);
  return (value < 0.0f ? power : splat(1.0f)) / (1.0f + power);
}

template <int kTaps>
SEG_HD Floats confidence_of(const MaskJob& job, const Down<kTaps>& down, int x, Floats best, Ints label) {
  switch (job.confidence_kind) {
    case Confidence::softmax: {
      Floats sum = Floats{}, lost = Floats{};  // Kahan's summation: rounding would show with hundreds of classes
      for (int c = 0; c < job.classes; ++c) {
        const Floats term = exp_of_negative<Floats, Ints>(down.at(c, x) - best) - lost;
        const Floats larger = sum + term;
        lost = (larger - sum) - term;
        sum = larger;
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

// Labels n pixels of one row from `x` of the block on; with kMaps, writes confidences and margins too.
template <int kTaps, bool kMaps>
SEG_HD void decide(const MaskJob& job, const Down<kTaps>& down, int row, int column, int x, int n, uint16* labels) {
  Floats best = down.at(0, x), second = splat(-__builtin_inff());
  Ints label = splat(down.who.classes[0]);
  if (job.is_threshold) label = Ints(best > splat(job.threshold)) & 1;
  for (int k = 1; k < down.who.count; ++k) {
    const Floats value = down.at(k, x);
    const Ints is_better = value > best;
    if constexpr (kMaps) second = is_better ? best : value > second ? value : second;
    best = is_better ? value : best;
    label = is_better ? splat(down.who.classes[k]) : label;
  }
  store_labels(label, labels + x);
  if constexpr (kMaps) {
    const int64 at = column + x;
    if (job.confidence) {
      store_part(job.confidence + row * job.confidence_row_stride + at, confidence_of(job, down, x, best, label), n);
    }
    if (job.margin) {
      const Floats threshold = splat(job.threshold);
      const Floats other = job.is_threshold ? (label ? best - threshold : threshold - best) : best - second;
      store_part(job.margin + row * job.margin_row_stride + at, other + 0.0f, n);  // no negative zero
    }
  }
}

template <int kTaps, bool kMaps>
void decide_block(const MaskJob& job, const Contenders& who, int row, int column, int n, const float* values,
                  uint16* labels) {
  const Down<kTaps> down(job, who, values, row);
  for (int x = 0; x < n; x += kLanes) decide<kTaps, kMaps>(job, down, row, column, x, n - x, labels);
}

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
