// mask_rows.h: a mask at the image's own pixels from logits at the network's resolution. Part of level.cpp.
//
// Interpolation is a convex combination: where the logit cells around a pixel all have the same label, so does the
// pixel. Output rows that read the same logit rows make a band. In a band every run of columns that read the same
// logit columns is either filled, or interpolated: along the logit rows once for the band, then down for every row.
#pragma once

namespace seginfer {
inline namespace SEGINFER_LEVEL {
namespace {

constexpr int kMaskBlock = 64;  // columns interpolated at a time; their values stay in the first-level cache

// Columns [begin, end), of which the first lies in run `run`.
struct Span {
  int begin, end, run;
};

// Scratch of one thread.
struct MaskScratch {
  float* values;      // (taps, classes, kMaskBlock + kSlack)
  int* chosen;        // (classes): those that a block has to interpolate
  uint16* agreed;     // (width): the label that all logit rows of the band have, or kMixed
  uint16* filled;     // (cols): labels of filled pixels
  uint32* bits;       // (classes / 32, width + kMaskBlock): the classes that can win in each logit cell
  Span* spans;        // what is interpolated, from left to right
};

SEG_HD int64 block_stride() { return kMaskBlock + kSlack; }

SEG_HD int bit_words(const MaskJob& job) { return (job.classes + 31) / 32; }

SEG_HD int64 bit_stride(const MaskJob& job) { return job.width + kMaskBlock; }

SEG_HD size_t bit_bytes(const MaskJob& job) {
  return sizeof(uint32) * static_cast<size_t>(bit_words(job)) * static_cast<size_t>(bit_stride(job));
}

SEG_HD size_t value_bytes(const MaskJob& job) {
  return rounded(sizeof(float) * static_cast<size_t>(job.taps) * static_cast<size_t>(job.classes) *
                 static_cast<size_t>(block_stride()));
}

size_t mask_scratch(const MaskJob& job) {
  const size_t width = static_cast<size_t>(job.width), cols = static_cast<size_t>(job.cols);
  return LogitRows::copy_bytes(job) + LogitRows::label_bytes(job) + value_bytes(job) +
         rounded(sizeof(int) * static_cast<size_t>(job.classes)) + rounded(sizeof(uint16) * width) +
         rounded(sizeof(uint16) * (cols + kSlack)) + rounded(bit_bytes(job)) +
         rounded(sizeof(Span) * (static_cast<size_t>(job.run_count) / 2 + 1));
}

// Hands out the parts of a piece of memory.
struct Parts {
  char* at;

  template <class T>
  T* take(size_t bytes) {
    T* part = reinterpret_cast<T*>(at);
    at += rounded(bytes);
    return part;
  }
};

MaskScratch divide(const MaskJob& job, Parts& parts) {
  MaskScratch scratch;
  scratch.values = parts.take<float>(value_bytes(job));
  scratch.chosen = parts.take<int>(sizeof(int) * static_cast<size_t>(job.classes));
  scratch.agreed = parts.take<uint16>(sizeof(uint16) * static_cast<size_t>(job.width));
  scratch.filled = parts.take<uint16>(sizeof(uint16) * static_cast<size_t>(job.cols + kSlack));
  scratch.bits = parts.take<uint32>(bit_bytes(job));
  scratch.spans = reinterpret_cast<Span*>(parts.at);
  return scratch;
}

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

// Fills runs that agree; returns how many spans of other columns it noted, neighbours joined. The label of a run is not
// compared with its neighbour's: in noise, a processor could not guess the outcome.
template <int kTaps>
int split(const MaskJob& job, const MaskScratch& scratch) {
  const int *runs = job.runs, *index = job.col_index;  // copies, which the stores below cannot seem to change
  const int count = job.run_count, cols = job.cols;
  const uint16* agreed = scratch.agreed;
  uint16* filled = scratch.filled;
  Span* spans = scratch.spans;
  int noted = 0;
  for (int r = 0; r < count; ++r) {
    const int begin = runs[r], end = runs[r + 1];
    uint16 label = agreed[index[begin]];
    for (int tap = 1; tap < kTaps; ++tap) label = agreed[index[tap * cols + begin]] == label ? label : kMixed;
    for (int x = begin; x < end; x += kSlack) fill_slack(filled + x, label);  // what lies past is yet to come
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

// The classes that a block of pixels has to interpolate, in ascending order.
struct Contenders {
  const int* classes;
  int count;
};

Contenders every_class(const MaskJob& job, int* chosen) {
  for (int c = 0; c < job.classes; ++c) chosen[c] = c;
  return {chosen, job.classes};
}

// Whether it pays to look for contenders: cells wider than a pixel, and classes to leave out.
SEG_HD bool has_contenders(const MaskJob& job) { return job.classes > 2 && job.run_count < job.cols; }

// The smallest and largest corner of kLanes logit cells from `column` on; what lies past a row counts as zero.
template <int kTaps>
SEG_HD void corners_of(const float* const* rows, int column, int width, Floats& low, Floats& high) {
  const bool is_inside = column + kLanes + kTaps - 1 <= width;
  for (int t = 0; t < kTaps * kTaps; ++t) {
    const int x = column + t % kTaps;
    const float* from = rows[t / kTaps] + x;
    const Floats corner = is_inside ? load<Floats>(from) : x < width ? load_some(from, width - x) : Floats{};
    low = t == 0 || corner < low ? corner : low;
    high = t == 0 || corner > high ? corner : high;
  }
}

// Notes, for kMaskBlock logit cells from `column` on, the classes that can win there. A class whose largest corner lies
// below the smallest corner of another is exceeded at every pixel of the cell, also after rounding: interpolation errs by
// less than kRounding times the largest value of its rows.
template <int kTaps>
void find_contenders(const MaskJob& job, const LogitRows& logits, int row, int column, const MaskScratch& scratch) {
  constexpr float kRounding = 1.0f / (1 << 18);  // 64 units in the last place, where two times six per tap are needed
  constexpr float kUnderflow = 1e-36f;  // what is lost where results are below the smallest normal number
  constexpr int kVectors = kMaskBlock / kLanes;
  Floats floor[kVectors];
  float largest = 0;
  const float* rows[kTaps];
  for (int t = 0; t < kTaps; ++t) {
    const int logit_row = job.row_index[t * job.rows + row];
    const float of_row = logits.largest_of(logit_row);
    largest = of_row > largest ? of_row : largest;
    rows[t] = logits.values(logit_row);
  }
  for (int v = 0; v < kVectors; ++v) floor[v] = splat(-__builtin_inff());
  for (int c = 0; c < job.classes; ++c) {
    for (int v = 0; v < kVectors; ++v) {
      Floats low = Floats{}, high = low;
      corners_of<kTaps>(rows, column + v * kLanes, job.width, low, high);
      floor[v] = low > floor[v] ? low : floor[v];
      store(scratch.values + c * block_stride() + v * kLanes, high);
    }
    for (int t = 0; t < kTaps; ++t) rows[t] += logits.stride();
  }
  for (int v = 0; v < kVectors; ++v) {
    const Floats reach = floor[v] - (largest * kRounding + kUnderflow);
    for (int word = 0; word < bit_words(job); ++word) {
      Ints bits = Ints{};
      for (int c = 32 * word; c < job.classes && c < 32 * word + 32; ++c) {
        const Ints can_win = load<Floats>(scratch.values + c * block_stride() + v * kLanes) >= reach;
        bits |= can_win & static_cast<int>(1u << (c % 32));
      }
      store(scratch.bits + word * bit_stride(job) + column + v * kLanes, bits);
    }
  }
}

// The classes that can win in the logit cells under columns [begin, end).
Contenders contenders(const MaskJob& job, int begin, int end, const MaskScratch& scratch) {
  const int first = job.col_index[begin], last = job.col_index[end - 1];
  int count = 0;
  for (int word = 0; word < bit_words(job); ++word) {
    uint32 bits = 0;
    for (int cell = first; cell <= last; ++cell) bits |= scratch.bits[word * bit_stride(job) + cell];
    for (; bits; bits &= bits - 1) scratch.chosen[count++] = 32 * word + __builtin_ctz(bits);
  }
  return {scratch.chosen, count};
}

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
    for (int x = left; x < right; x += kLanes) {  // what lies past the run is written again by the next one
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

template <int kTaps>
void interpolate_along(const MaskJob& job, const LogitRows& logits, const Contenders& who, int logit_row, int first_run,
                       int begin, int end, float* values) {
  const int quarter = first_run + (end - begin) / 4;  // the run that pixels end in if runs are four pixels long
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

// One output row of a block: values of the contenders, down the logit rows.
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
  switch (job.kind) {
    case Confidence::softmax: {
      Floats sum = Floats{}, lost = Floats{};  // of hundreds of classes, rounding would be seen: Kahan's summation
      for (int c = 0; c < job.classes; ++c) {
        const Floats term = exp_of_negative<Floats, Ints>(down.at(c, x) - best) - lost;
        const Floats larger = sum + term;
        lost = (larger - sum) - term;
        sum = larger;
      }
      return 1.0f / sum;
    }
    case Confidence::sigmoid: return sigmoid(best);
    case Confidence::sigmoid_of_label: return label ? sigmoid(best) : 1.0f - sigmoid(best);
    case Confidence::value_of_label: return label ? best : 1.0f - best;
    default: return best;
  }
}

// Decides n pixels of one row from `x` of the block on; asked for maps, writes them as well.
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

// Interpolates columns [begin, end) of rows [first, last), which read the same logit rows.
template <int kTaps, bool kMaps>
void interpolate_span(const MaskJob& job, const LogitRows& logits, int first, int last, const Span& span,
                      const MaskScratch& scratch) {
  float* values = scratch.values;
  alignas(64) uint16 labels[kMaskBlock + kSlack];
  int run = span.run;
  for (int x = span.begin; x < span.end; x += kMaskBlock) {
    const int n = span.end - x < kMaskBlock ? span.end - x : kMaskBlock;
    while (job.runs[run + 1] <= x) ++run;
    const Contenders who = kMaps || !has_contenders(job) ? every_class(job, scratch.chosen)
                                                         : contenders(job, x, x + n, scratch);
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

// Fills what lies between the spans: the first row label by label, the others by copying it.
void fill_between(const MaskJob& job, const MaskScratch& scratch, int spans, int first, int last) {
  for (int s = 0; s <= spans; ++s) {
    const int begin = s ? scratch.spans[s - 1].end : 0, end = s < spans ? scratch.spans[s].begin : job.cols;
    if (begin == end) continue;
    write_labels(job, first, begin, scratch.filled + begin, end - begin);
    for (int y = first + 1; y < last; ++y) copy_labels(job, first, y, begin, end - begin);
  }
}

// Whether a band's pixels are logit cells themselves, as where a network yields an output of the image's own size.
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
  if (job.confidence || job.margin) {  // maps need every pixel's values; the rule of equal labels still decides
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

// Rows [begin, end) of the mask. Every logit row is looked at, by whoever fills the first rows that read it, or those
// above it: also what no pixel reads must be finite.
bool mask(const MaskJob& job, int begin, int end, void* memory) {
  Parts parts{static_cast<char*>(memory)};
  float* copies = parts.take<float>(LogitRows::copy_bytes(job));
  uint16* labels = parts.take<uint16>(LogitRows::label_bytes(job));
  const MaskScratch scratch = divide(job, parts);
  memset(scratch.values, 0, value_bytes(job));  // lanes past a block's end are computed and thrown away
  LogitRows logits{job, LogitRows::is_direct_output(job), copies, labels, {}, begin ? job.row_index[begin] : 0, Floats{}};
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
}  // namespace SEGINFER_LEVEL
}  // namespace seginfer
