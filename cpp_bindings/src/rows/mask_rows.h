// mask_rows.h: masks at the image's own pixels from logits at the network's resolution. Part of target.cpp.
#pragma once

// Interpolation is a convex combination: where the logit cells around a pixel all have the same label, so does the
// pixel. Output rows that read the same logit rows form a band. Within a band, every run of columns that read the same
// logit columns is either filled with a label or interpolated: once along the logit rows, then down for every row.

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

// Labels that all logit rows of a band share.
void agree(const MaskJob& job, const LogitRows& logits, int row, uint16* agreed) {
  memcpy(agreed, logits.labels_of(job.row_index[row]), static_cast<size_t>(job.width) * sizeof(uint16));
  for (int tap = 1; tap < job.taps; ++tap) {
    const uint16* other = logits.labels_of(job.row_index[tap * job.rows + row]);
    for (int x = 0; x < job.width; ++x) agreed[x] = agreed[x] == other[x] ? agreed[x] : kMixed;
  }
}

SEG_HD void fill_slack(uint16* labels, uint16 label) {
  typedef uint16 Row __attribute__((vector_size(2 * kSlack)));
  const Row row = Row{} + label;
  memcpy(labels, &row, sizeof(Row));
}

// Fills runs whose labels agree, and lists spans of the other columns, adjacent ones joined. Returns their number. The
// label of a run is not compared with its neighbour's, since that branch would be unpredictable in noise.
template <int kTaps>
int split(const MaskJob& job, const MaskScratch& scratch) {
  const int *runs = job.runs, *index = job.col_index;  // copies, since the stores below cannot alias them
  const int count = job.run_count, cols = job.cols;
  const uint16* agreed = scratch.agreed;
  uint16* filled = scratch.filled;
  Columns* spans = scratch.spans;
  int noted = 0;
  for (int r = 0; r < count; ++r) {
    const int begin = runs[r], end = runs[r + 1];
    uint16 label = agreed[index[begin]];
    for (int tap = 1; tap < kTaps; ++tap) label = agreed[index[tap * cols + begin]] == label ? label : kMixed;
    for (int x = begin; x < end; x += kSlack) fill_slack(filled + x, label);  // later runs overwrite the rest
    if (label != kMixed) continue;
    if (noted == 0 || spans[noted - 1].end != begin) spans[noted++] = {begin, end, r};
    spans[noted - 1].end = end;
  }
  return noted;
}

void write_labels(const MaskJob& job, int row, int column, const uint16* labels, int n) {
  const int64 at = row * job.mask_row_stride + column;
  if (job.mask_bytes == 1) {
    uint8* out = static_cast<uint8*>(job.mask) + at;
    if (job.table) {
      for (int i = 0; i < n; ++i) out[i] = static_cast<uint8>(job.table[labels[i]]);
    } else {
      for (int i = 0; i < n; ++i) out[i] = static_cast<uint8>(labels[i]);
    }
  } else {
    uint16* out = static_cast<uint16*>(job.mask) + at;
    for (int i = 0; i < n; ++i) out[i] = job.table ? job.table[labels[i]] : labels[i];
  }
}

void copy_labels(const MaskJob& job, int from_row, int to_row, int column, int n) {
  const size_t size = static_cast<size_t>(job.mask_bytes);
  char* mask = static_cast<char*>(job.mask);
  memcpy(mask + (to_row * job.mask_row_stride + column) * job.mask_bytes,
         mask + (from_row * job.mask_row_stride + column) * job.mask_bytes, static_cast<size_t>(n) * size);
}

// Interpolates columns [begin, end) of rows [first, last), which read the same logit rows.
template <int kTaps, bool kMaps>
void interpolate_span(const MaskJob& job, const LogitRows& logits, int first, int last, const Columns& span,
                      const MaskScratch& scratch) {
  float* values = scratch.values;
  alignas(64) uint16 labels[kMaskBlock + kSlack];
  int run = span.run;
  for (int x = span.begin; x < span.end; x += kMaskBlock) {
    const int n = span.end - x < kMaskBlock ? span.end - x : kMaskBlock;
    while (job.runs[run + 1] <= x) ++run;
    const Contenders who =
        kMaps || !has_contenders(job) ? every_class(job, scratch.chosen) : contenders(job, x, x + n, scratch);
    for (int tap = 0; tap < kTaps; ++tap) {
      interpolate_along<kTaps>(job, logits, who, job.row_index[tap * job.rows + first], run, x, x + n,
                               values + tap * job.classes * block_stride());
    }
    for (int y = first; y < last; ++y) {
      decide_block<kTaps, kMaps>(job, who, y, x, n, values, labels);
      write_labels(job, y, x, labels, n);
    }
  }
}

int band_end(const MaskJob& job, int row, int end) {
  int last = row + 1;
  for (; last < end; ++last) {
    for (int tap = 0; tap < job.taps; ++tap) {
      if (job.row_index[tap * job.rows + last] != job.row_index[tap * job.rows + row]) return last;
    }
  }
  return last;
}

// Fills the columns between the spans: the first row from labels, the others by copying it.
void fill_between(const MaskJob& job, const MaskScratch& scratch, int spans, int first, int last) {
  for (int s = 0; s <= spans; ++s) {
    const int begin = s ? scratch.spans[s - 1].end : 0, end = s < spans ? scratch.spans[s].begin : job.cols;
    if (begin == end) continue;
    write_labels(job, first, begin, scratch.filled + begin, end - begin);
    for (int y = first + 1; y < last; ++y) copy_labels(job, first, y, begin, end - begin);
  }
}

// Whether every pixel of a band is one logit cell, as with outputs of the image's own size.
SEG_HD bool is_copy(const MaskJob& job, int row) {
  bool is_one_row = job.first_column >= 0 && !job.confidence && !job.margin;
  for (int tap = 1; tap < job.taps; ++tap) {
    is_one_row = is_one_row && job.row_index[tap * job.rows + row] == job.row_index[row];
  }
  return is_one_row;
}

template <int kTaps>
void mask_band(const MaskJob& job, const LogitRows& logits, int first, int last, const MaskScratch& scratch) {
  if (is_copy(job, first)) {
    const uint16* labels = logits.labels_of(job.row_index[first]) + job.first_column;
    for (int y = first; y < last; ++y) write_labels(job, y, 0, labels, job.cols);
    return;
  }
  agree(job, logits, first, scratch.agreed);
  const int spans = split<kTaps>(job, scratch);
  if (job.confidence || job.margin) {  // maps need interpolated values everywhere; equal labels still fill the mask
    interpolate_span<kTaps, true>(job, logits, first, last, {0, job.cols, 0}, scratch);
  } else {
    if (spans && has_contenders(job)) {
      const int end = job.col_index[scratch.spans[spans - 1].end - 1];
      for (int cell = job.col_index[scratch.spans[0].begin]; cell <= end; cell += kMaskBlock) {
        find_contenders<kTaps>(job, logits, first, cell, scratch);
      }
    }
    for (int s = 0; s < spans; ++s) {
      interpolate_span<kTaps, false>(job, logits, first, last, scratch.spans[s], scratch);
    }
  }
  fill_between(job, scratch, spans, first, last);
}

// Computes rows [begin, end) of the mask. Returns false if a logit is not finite. Each logit row is checked once, also
// if no pixel reads it: by the call for the first rows that read it, or for the rows above it.
bool mask(const MaskJob& job, int begin, int end, void* memory) {
  Parts parts{static_cast<char*>(memory)};
  float* copies = parts.take<float>(LogitRows::copy_bytes(job));
  uint16* labels = parts.take<uint16>(LogitRows::label_bytes(job));
  const MaskScratch scratch = divide(job, parts);
  memset(scratch.values, 0, value_bytes(job));  // lanes past a block's end are computed and discarded
  LogitRows logits{job, LogitRows::is_direct_output(job), copies,  labels,
                   {},  begin ? job.row_index[begin] : 0, Floats{}};
  for (int first = begin; first < end;) {
    const int last = band_end(job, first, end);
    logits.read_through(job.row_index[(job.taps - 1) * job.rows + first]);
    (job.taps == 2 ? mask_band<2>(job, logits, first, last, scratch) : mask_band<3>(job, logits, first, last, scratch));
    first = last;
  }
  logits.read_through(end < job.rows ? job.row_index[end] - 1 : job.height - 1);
  return logits.is_finite();
}

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
