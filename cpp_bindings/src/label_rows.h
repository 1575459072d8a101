// label_rows.h: which class each logit cell has, and whether every value is finite. Part of level.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_LEVEL {
namespace {

// Copies one row of one channel to float32.
void read_row(const LabelJob& job, int channel, int row, float* values) {
  const int64 at = channel * job.channel_stride + row * job.row_stride, step = job.column_stride;
  if (job.is_half) {
    const uint16* from = static_cast<const uint16*>(job.logits) + at;
    if (step == 1) {
      for (int x = 0; x < job.width; ++x) values[x] = float_from_half(from[x]);
    } else {
      for (int x = 0; x < job.width; ++x) values[x] = float_from_half(from[x * step]);
    }
  } else {
    const float* from = static_cast<const float*>(job.logits) + at;
    for (int x = 0; x < job.width; ++x) values[x] = from[x * step];
  }
}

SEG_HD void store_labels(Ints labels, int n, uint16* to) {
  typedef uint16 Shorts __attribute__((vector_size(2 * SEGINFER_LANES)));
  const Shorts narrow = __builtin_convertvector(labels, Shorts);
  memcpy(to, &narrow, static_cast<size_t>(n) * sizeof(uint16));
}

// The values of one row, all channels; `stride` floats lie between channels. `zero` turns NaN where one is not finite.
// A row's end reads whole vectors, which the caller has room for.
struct RowLabels {
  const LabelJob& job;
  const float* values;
  int64 stride;
  uint16* labels;       // of the row
  int64 label_stride;   // between channels
  Floats zero;

  SEG_HD void largest(int x, int n) {
    Floats best = load<Floats>(values + x);
    Ints label = Ints{};
    zero += best * 0.0f;
    for (int c = 1; c < job.classes; ++c) {
      const Floats value = load<Floats>(values + c * stride + x);
      const Ints is_better = value > best;
      best = is_better ? value : best;
      label = is_better ? splat(c) : label;
      zero += value * 0.0f;
    }
    store_labels(label, n, labels + x);
  }

  SEG_HD void above_threshold(int x, int n) {
    for (int c = 0; c < job.classes; ++c) {
      const Floats value = load<Floats>(values + c * stride + x);
      zero += value * 0.0f;
      store_labels(Ints(value > splat(job.threshold)) & 1, n, labels + c * label_stride + x);
    }
  }

  SEG_HD void vector(int x, int n) { return job.is_threshold ? above_threshold(x, n) : largest(x, n); }
};

size_t label_scratch(const LabelJob& job) {
  return sizeof(float) * static_cast<size_t>(job.classes) * static_cast<size_t>(job.width + kSlack);
}

bool label(const LabelJob& job, int begin, int end, void* scratch) {
  const int64 plane = static_cast<int64>(job.height) * job.width, row_floats = job.width + kSlack;
  const int whole = job.width / kLanes * kLanes;
  float* rows = static_cast<float*>(scratch);
  memset(rows, 0, label_scratch(job));
  Floats zero = Floats{};
  for (int y = begin; y < end; ++y) {
    uint16* labels = job.labels + static_cast<int64>(y) * job.width;
    const bool is_direct = !job.is_half && job.column_stride == 1;
    if (is_direct) {
      const float* values = static_cast<const float*>(job.logits) + y * job.row_stride;
      RowLabels direct{job, values, job.channel_stride, labels, plane, zero};
      for (int x = 0; x < whole; x += kLanes) direct.vector(x, kLanes);
      zero = direct.zero;
      for (int c = 0; c < job.classes; ++c) {
        memcpy(rows + c * row_floats + whole, values + c * job.channel_stride + whole,
               static_cast<size_t>(job.width - whole) * sizeof(float));
      }
    } else {
      for (int c = 0; c < job.classes; ++c) read_row(job, c, y, rows + c * row_floats);
    }
    RowLabels copied{job, rows, row_floats, labels, plane, zero};
    for (int x = is_direct ? whole : 0; x < job.width; x += kLanes) {
      copied.vector(x, job.width - x < kLanes ? job.width - x : kLanes);
    }
    zero = copied.zero;
    for (int c = 0; job.planar && c < job.classes; ++c) {
      memcpy(job.planar + c * plane + static_cast<int64>(y) * job.width, rows + c * row_floats,
             static_cast<size_t>(job.width) * sizeof(float));
    }
  }
  for (int i = 0; i < kLanes; ++i) {
    if (!(zero[i] == 0.0f)) return false;
  }
  return true;
}

}  // namespace
}  // namespace SEGINFER_LEVEL
}  // namespace seginfer
