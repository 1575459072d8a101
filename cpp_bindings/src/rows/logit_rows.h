// logit_rows.h: rows of the network's output as float32, with the label of every cell. Part of target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

SEG_HD size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

SEG_HD Floats load_some(const float* from, int n) {
  if (n >= kLanes) return load<Floats>(from);
  Floats values = Floats{};
  memcpy(&values, from, static_cast<size_t>(n) * sizeof(float));
  return values;
}

SEG_HD void store_labels(Ints labels, uint16* to) {
  typedef uint16 Shorts __attribute__((vector_size(2 * SEGINFER_LANES)));
  store(to, __builtin_convertvector(labels, Shorts));
}

// The rows that the current band reads; row r is in slot r % taps. A row is read when the mask first needs it, so that
// its values are still in the cache when they are interpolated.
struct LogitRows {
  const MaskJob& job;
  bool is_direct;    // float32 in planes: read where it is
  float* copies;     // (taps, classes, row_floats), unless direct
  uint16* labels;    // (taps, row_floats)
  float largest[3];  // by slot: the largest absolute value of the row
  int next;          // the first row that is not read yet
  Floats zero;       // NaN where a value was NaN or infinite

  static SEG_HD int64 row_floats(const MaskJob& job) { return job.width + kSlack; }
  static SEG_HD bool is_direct_output(const MaskJob& job) { return !job.is_half && job.column_stride == 1; }

  static size_t copy_bytes(const MaskJob& job) {
    const size_t row = static_cast<size_t>(job.taps) * static_cast<size_t>(row_floats(job)) * sizeof(float);
    return is_direct_output(job) ? 0 : rounded(row * static_cast<size_t>(job.classes));
  }

  static size_t label_bytes(const MaskJob& job) {
    return rounded(static_cast<size_t>(job.taps) * static_cast<size_t>(row_floats(job)) * sizeof(uint16));
  }

  // Values of class c are at values(row) + c * stride().
  SEG_HD int64 stride() const { return is_direct ? job.channel_stride : row_floats(job); }

  SEG_HD float* copy_of(int row) const { return copies + row % job.taps * job.classes * row_floats(job); }

  SEG_HD const float* values(int row) const {
    return is_direct ? static_cast<const float*>(job.logits) + row * job.row_stride : copy_of(row);
  }

  SEG_HD uint16* labels_of(int row) const { return labels + row % job.taps * row_floats(job); }

  SEG_HD float largest_of(int row) const { return largest[row % job.taps]; }

  void read_through(int row) {
    for (; next <= row; ++next) {
      if (!is_direct) copy(next);
      job.is_threshold ? label_by_threshold(next) : label_by_largest(next);
    }
  }

  bool is_finite() const { return !any(zero != 0.0f); }

 private:
  void copy(int row) const {
    const int64 step = job.column_stride;
    for (int c = 0; c < job.classes; ++c) {
      const int64 at = c * job.channel_stride + row * job.row_stride;
      float* to = copy_of(row) + c * row_floats(job);
      if (job.is_half) {
        const uint16* from = static_cast<const uint16*>(job.logits) + at;
        if (step == 1) {
          for (int x = 0; x < job.width; ++x) to[x] = float_from_half(from[x]);
        } else {
          for (int x = 0; x < job.width; ++x) to[x] = float_from_half(from[x * step]);
        }
      } else {
        const float* from = static_cast<const float*>(job.logits) + at;
        for (int x = 0; x < job.width; ++x) to[x] = from[x * step];
      }
    }
  }

  void label_by_largest(int row) {
    const float* first = values(row);
    const int64 distance = stride();
    const int width = job.width, classes = job.classes;
    uint16* to = labels_of(row);
    Floats sum = zero, high = Floats{}, low = Floats{};
    for (int x = 0; x < width; x += kLanes) {
      Floats best = load_some(first + x, width - x);
      Ints label = Ints{};
      sum += best * 0.0f;
      low = best < low ? best : low;
      for (int c = 1; c < classes; ++c) {
        const Floats value = load_some(first + c * distance + x, width - x);
        const Ints is_better = value > best;
        best = is_better ? value : best;
        label = is_better ? splat(c) : label;
        sum += value * 0.0f;
        low = value < low ? value : low;
      }
      high = best > high ? best : high;
      store_labels(label, to + x);
    }
    zero = sum;
    largest[row % job.taps] = largest_lane(high > -low ? high : -low);
  }

  void label_by_threshold(int row) {
    const float* first = values(row);
    for (int x = 0; x < job.width; x += kLanes) {
      const Floats value = load_some(first + x, job.width - x);
      zero += value * 0.0f;
      store_labels(Ints(value > splat(job.threshold)) & 1, labels_of(row) + x);
    }
  }
};

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
