// preprocess_rows.h: computes rows of the network input: resamples across rows, normalises and writes. Part of
// target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

// Combines rows of cells and normalises: one channel of one output row, padded to whole vectors.
template <class Policy, int kTaps>
SEG_HD void finish_row(const PreprocessJob& job, int row, int channel, const float* const* rows, float* values) {
  using Cell = typename Policy::Cell;
  const int taps = kTaps ? kTaps : job.row_taps;
  const float* few[kTaps ? kTaps : 1];
  for (int tap = 0; tap < kTaps; ++tap) few[tap] = rows[tap];
  const float* const* cells = kTaps ? few : rows;
  const int64 offset = static_cast<int64>(channel) * cell_stride(job);
  const Floats gain = splat(job.gain[channel]), bias = splat(job.bias[channel]);
  for (int x = 0; x < job.content_width; x += kLanes) {
    Cell sum = Policy::begin_column();
    for (int tap = 0; tap < taps; ++tap)
      sum = Policy::add_cell(job, sum, load<Cell>(cells[tap] + offset + x), tap, row);
    store(values + x, normalized(Policy::end_column(sum), gain, bias));
  }
}

// Writes n values of one channel into the batch; `column` counts from the left of the input.
SEG_HD void write_values(const PreprocessJob& job, int row, int channel, int column, const float* values, int n) {
  const int64 at = channel * job.channel_stride + row * job.row_stride + column * job.column_stride;
  const int64 step = job.column_stride;
  if (job.bytes_per_value == 4) {
    float* out = static_cast<float*>(job.out) + at;
    if (step == 1) {
      memcpy(out, values, static_cast<size_t>(n) * sizeof(float));
    } else {
      for (int i = 0; i < n; ++i) out[i * step] = values[i];
    }
  } else if (job.bytes_per_value == 2) {
    uint16* out = static_cast<uint16*>(job.out) + at;
    if (step == 1) {
      for (int i = 0; i < n; ++i) out[i] = half_from_float(values[i]);
    } else {
      for (int i = 0; i < n; ++i) out[i * step] = half_from_float(values[i]);
    }
  } else {
    uint8* out = static_cast<uint8*>(job.out) + at;
    for (int i = 0; i < n; ++i) out[i * step] = static_cast<uint8>(values[i]);
  }
}

void write_padding(const PreprocessJob& job, int row, int begin, int end) {
  float values[kBlock];
  for (int c = 0; c < job.channels; ++c) {
    for (int i = 0; i < kBlock; ++i) values[i] = job.padding[c];
    for (int x = begin; x < end; x += kBlock) {
      write_values(job, row, c, x, values, end - x < kBlock ? end - x : kBlock);
    }
  }
}

// Cells of the source rows that the current output row reads; row r is in slot r % slots. A source row is resampled
// along its length once and kept while output rows read it.
struct Ring {
  float* cells;
  int* rows;  // the row in each slot, or -1
  int slots;
  int64 row_floats;
};

Ring make_ring(const PreprocessJob& job, void* scratch, float** values) {
  const int64 row_floats = static_cast<int64>(job.channels) * cell_stride(job);
  Ring ring{static_cast<float*>(scratch), nullptr, job.row_taps, row_floats};
  *values = ring.cells + ring.slots * row_floats;
  ring.rows = reinterpret_cast<int*>(*values + cell_stride(job));
  for (int i = 0; i < ring.slots; ++i) ring.rows[i] = -1;
  return ring;
}

size_t preprocess_scratch(const PreprocessJob& job) {
  const size_t row = static_cast<size_t>(cell_stride(job));
  const size_t taps = static_cast<size_t>(job.row_taps);
  return sizeof(float) * (taps * static_cast<size_t>(job.channels) * row + row) + taps * (sizeof(int) + sizeof(void*)) +
         64;
}

// A planar float32 row that whole vectors fit is written directly, without a copy; null for others.
SEG_HD float* direct_row(const PreprocessJob& job, int row, int channel) {
  if (job.bytes_per_value != 4 || job.column_stride != 1 || job.content_width % kLanes != 0) return nullptr;
  return static_cast<float*>(job.out) + channel * job.channel_stride + row * job.row_stride + job.left;
}

template <class Policy, Source kSource, int kTaps>
void fill_content(const PreprocessJob& shared, int begin, int end, void* scratch) {
  const PreprocessJob job = shared;  // a copy for inlined functions, which stays in registers
  float* values;
  Ring ring = make_ring(shared, scratch, &values);
  const size_t after = reinterpret_cast<size_t>(ring.rows + ring.slots + 1) & ~size_t{7};
  const float** rows = reinterpret_cast<const float**>(after);
  for (int y = begin; y < end; ++y) {
    for (int tap = 0; tap < job.row_taps; ++tap) {
      const int source = job.row_index[tap * job.content_height + y], slot = source % ring.slots;
      float* cells = ring.cells + slot * ring.row_floats;
      if (ring.rows[slot] != source) {
        resample_row<Policy, kSource, kTaps>(shared, source, cells);
        ring.rows[slot] = source;
      }
      rows[tap] = cells;
    }
    for (int c = 0; c < job.channels; ++c) {
      float* direct = direct_row(job, job.top + y, c);
      finish_row<Policy, kTaps>(job, y, c, rows, direct ? direct : values);
      if (!direct) write_values(job, job.top + y, c, job.left, values, job.content_width);
    }
  }
}

template <class Policy, int kTaps>
void fill_content(const PreprocessJob& job, int begin, int end, void* scratch) {
  switch (job.source) {
    case Source::packed3:
      return fill_content<Policy, Source::packed3, kTaps>(job, begin, end, scratch);
    case Source::packed4:
      return fill_content<Policy, Source::packed4, kTaps>(job, begin, end, scratch);
    case Source::gray:
      return fill_content<Policy, Source::gray, kTaps>(job, begin, end, scratch);
    case Source::yuv:
      return fill_content<Policy, Source::yuv, kTaps>(job, begin, end, scratch);
  }
}

// Computes rows [begin, end) of the network input.
void preprocess(const PreprocessJob& job, int begin, int end, void* scratch) {
  const int bottom = job.top + job.content_height, right = job.left + job.content_width;
  for (int y = begin; y < end; ++y) {
    const bool is_content = job.top <= y && y < bottom;
    if (is_content) {
      write_padding(job, y, 0, job.left);
      write_padding(job, y, right, job.width);
    } else {
      write_padding(job, y, 0, job.width);
    }
  }
  const int first = (begin > job.top ? begin : job.top) - job.top, last = (end < bottom ? end : bottom) - job.top;
  if (first >= last || job.content_width == 0) return;
  switch (job.filter) {
    case Filter::pick:
      return fill_content<Pick, 1>(job, first, last, scratch);
    case Filter::opencv:
      return fill_content<OpenCV, 2>(job, first, last, scratch);
    case Filter::pillow:
      return fill_content<Pillow, 0>(job, first, last, scratch);
    case Filter::weighted:
      return job.row_taps == 2 && job.col_taps == 2 ? fill_content<Weighted, 2>(job, first, last, scratch)
                                                    : fill_content<Weighted, 0>(job, first, last, scratch);
  }
}

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
