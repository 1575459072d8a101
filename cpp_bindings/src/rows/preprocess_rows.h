// preprocess_rows.h: one pass over an image, row by row: fetch, resample along the row, then across rows, normalise.
//
// A source row is resampled along its length once and kept while output rows still read it. Part of target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

constexpr int kBlock = 64;  // columns fetched at a time

SEG_HD uint32 load_word(const uint8* from) {
  uint32 word;
  memcpy(&word, from, 4);
  return word;
}

// Reads pixels at `index` as words, red in the lowest byte (or as the channel order is); camera formats as Y, U, V.
template <Source kSource>
SEG_HD void fetch_row(const PreprocessJob& job, int row, const int* index, int n, uint32* words) {
  const uint8* p = job.pixels + row * job.row_bytes;
  if constexpr (kSource == Source::packed3) {
    if (row + 1 < job.image_height) {  // the byte behind a row's last pixel is still inside the image
      for (int i = 0; i < n; ++i) words[i] = load_word(p + 3 * static_cast<int64>(index[i]));
    } else {
      for (int i = 0; i < n; ++i) {
        const uint8* q = p + 3 * static_cast<int64>(index[i]);
        words[i] = q[0] | static_cast<uint32>(q[1]) << 8 | static_cast<uint32>(q[2]) << 16;
      }
    }
  } else if constexpr (kSource == Source::packed4) {
    for (int i = 0; i < n; ++i) words[i] = load_word(p + 4 * static_cast<int64>(index[i]));
  } else if constexpr (kSource == Source::gray) {
    for (int i = 0; i < n; ++i) words[i] = p[index[i]];
  } else if constexpr (kSource == Source::nv12) {
    const uint8* c = job.chroma + (row / 2) * job.chroma_row_bytes;
    for (int i = 0; i < n; ++i) {
      const uint8* uv = c + (index[i] & ~1);
      words[i] = p[index[i]] | static_cast<uint32>(uv[0]) << 8 | static_cast<uint32>(uv[1]) << 16;
    }
  } else {
    for (int i = 0; i < n; ++i) {
      const uint8* q = p + 4 * static_cast<int64>(index[i] >> 1);
      words[i] = q[2 * (index[i] & 1)] | static_cast<uint32>(q[1]) << 8 | static_cast<uint32>(q[3]) << 16;
    }
  }
}

#if defined(__AVX512VBMI__)
constexpr bool kHasWindows = true;

// One permutation of bytes reads kLanes pixels.
SEG_HD Ints permuted(const uint8* window, const int* pattern) {
  static_assert(kLanes == kWindowColumns, "a vector of words is one window");
  const __m512i words = _mm512_permutex2var_epi8(_mm512_loadu_si512(window), _mm512_loadu_si512(pattern),
                                                 _mm512_loadu_si512(window + 64));
  return load<Ints>(&words);
}
#else
constexpr bool kHasWindows = false;
SEG_HD Ints permuted(const uint8*, const int*) { return Ints{}; }
#endif

// The window of the columns from x on; near the end of the image, a copy of what is left of it.
template <Source kSource>
SEG_HD const uint8* window_at(const PreprocessJob& job, int row, int x, uint8* copy) {
  constexpr int kBytes = kSource == Source::packed3 ? 3 : 4;
  const uint8* from = job.pixels + row * job.row_bytes + kBytes * static_cast<int64>(job.col_index[x]);
  const uint8* end = job.pixels + (job.image_height - 1) * job.row_bytes + kBytes * static_cast<int64>(job.image_width);
  if (end - from >= kWindowBytes) return from;
  memcpy(copy, from, static_cast<size_t>(end - from));
  return copy;
}

// The network's channels of kLanes pixel words, 0..255.
template <Source kSource>
SEG_HD void unpack(const PreprocessJob& job, Ints word, Ints* channels) {
  if constexpr (kSource == Source::gray) {
    channels[0] = word;
  } else if constexpr (kSource == Source::nv12 || kSource == Source::yuyv) {
    Ints red, green, blue;
    rgb_from_yuv<Ints>(word & 255, (word >> 8) & 255, (word >> 16) & 255, red, green, blue);
    channels[0] = job.shift[0] ? blue : red;
    channels[1] = green;
    channels[2] = job.shift[0] ? red : blue;
  } else {
    for (int c = 0; c < 3; ++c) channels[c] = (word >> job.shift[c]) & 255;
  }
}

// A resampling: how a row's pixels become cells, and how cells of several rows become a level.
struct Pick {
  using Cell = Floats;
  static SEG_HD Cell begin_row() { return Cell{}; }
  static SEG_HD Cell add_pixel(const PreprocessJob&, Cell, Ints pixel, int, int64) { return floats_from(pixel); }
  static SEG_HD Cell end_row(Cell sum) { return sum; }
  static SEG_HD Cell begin_column() { return Cell{}; }
  static SEG_HD Cell add_cell(const PreprocessJob&, Cell, Cell cell, int, int) { return cell; }
  static SEG_HD Floats end_column(Cell sum) { return sum; }
};

struct Weighted {
  using Cell = Floats;
  static SEG_HD Cell begin_row() { return Cell{}; }
  static SEG_HD Cell add_pixel(const PreprocessJob& job, Cell sum, Ints pixel, int, int64 at) {
    return weighted(sum, floats_from(pixel), load<Floats>(job.col_weight + at));
  }
  static SEG_HD Cell end_row(Cell sum) { return sum; }
  static SEG_HD Cell begin_column() { return Cell{}; }
  static SEG_HD Cell add_cell(const PreprocessJob& job, Cell sum, Cell cell, int tap, int row) {
    return weighted(sum, cell, splat(job.row_weight[tap * job.content_height + row]));
  }
  static SEG_HD Floats end_column(Cell sum) { return sum; }
};

struct Pillow {
  using Cell = Ints;
  static SEG_HD Cell begin_row() { return splat(kPillowHalf); }
  static SEG_HD Cell add_pixel(const PreprocessJob& job, Cell sum, Ints pixel, int, int64 at) {
    return weighted(sum, pixel, load<Ints>(job.col_fixed + at));
  }
  static SEG_HD Cell end_row(Cell sum) { return pillow_level(sum); }
  static SEG_HD Cell begin_column() { return splat(kPillowHalf); }
  static SEG_HD Cell add_cell(const PreprocessJob& job, Cell sum, Cell cell, int tap, int row) {
    return weighted(sum, cell, splat(job.row_fixed[tap * job.content_height + row]));
  }
  static SEG_HD Floats end_column(Cell sum) { return floats_from(pillow_level(sum)); }
};

struct OpenCV {
  using Cell = Ints;
  static SEG_HD Cell begin_row() { return Cell{}; }
  static SEG_HD Cell add_pixel(const PreprocessJob& job, Cell sum, Ints pixel, int, int64 at) {
    return weighted(sum, pixel, load<Ints>(job.col_fixed + at));
  }
  static SEG_HD Cell end_row(Cell sum) { return opencv_row(sum); }
  static SEG_HD Cell begin_column() { return Cell{}; }
  static SEG_HD Cell add_cell(const PreprocessJob& job, Cell sum, Cell cell, int tap, int row) {
    return sum + opencv_scaled(cell, splat(job.row_fixed[tap * job.content_height + row]));
  }
  static SEG_HD Floats end_column(Cell sum) { return floats_from(opencv_level(sum)); }
};

// Cells of one source row: channel c stands at c * stride, padded to whole vectors.
SEG_HD int cell_stride(const PreprocessJob& job) { return (job.content_width + kBlock - 1) / kBlock * kBlock; }

// Adds one pixel word to the sums of its channels.
template <class Policy, Source kSource, int kChannels>
SEG_HD void add_word(const PreprocessJob& job, Ints word, int tap, int64 at, typename Policy::Cell* sums) {
  Ints channels[3];
  unpack<kSource>(job, word, channels);
  for (int c = 0; c < kChannels; ++c) sums[c] = Policy::add_pixel(job, sums[c], channels[c], tap, at);
}

template <class Policy, Source kSource, int kTaps>
void resample_row_by_windows(const PreprocessJob& shared, int row, float* cells) {
  const PreprocessJob job = shared;  // a copy stays in registers: the stores below cannot seem to change it
  const int taps = kTaps ? kTaps : job.col_taps, stride = cell_stride(job);
  const int64 tap_stride = job.content_width + kSlack;
  alignas(64) uint8 copy[kWindowBytes] = {};
  for (int x = 0; x < job.content_width; x += kLanes) {
    const uint8* window = window_at<kSource>(job, row, x, copy);
    typename Policy::Cell sums[3] = {Policy::begin_row(), Policy::begin_row(), Policy::begin_row()};
    for (int tap = 0; tap < taps; ++tap) {
      const int64 at = tap * tap_stride + x;
      add_word<Policy, kSource, 3>(job, permuted(window, job.col_pattern + at), tap, at, sums);
    }
    for (int c = 0; c < 3; ++c) store(cells + c * stride + x, Policy::end_row(sums[c]));
  }
}

template <class Policy, Source kSource, int kTaps>
void resample_row(const PreprocessJob& job, int row, float* cells) {
  constexpr int kChannels = kSource == Source::gray ? 1 : 3;
  if constexpr (kHasWindows && (kSource == Source::packed3 || kSource == Source::packed4)) {
    if (job.col_pattern) return resample_row_by_windows<Policy, kSource, kTaps>(job, row, cells);
  }
  const int taps = kTaps ? kTaps : job.col_taps, stride = cell_stride(job);
  const int64 tap_stride = job.content_width + kSlack;
  alignas(64) uint32 words[kBlock] = {};
  typename Policy::Cell sums[kBlock / kLanes][kChannels];
  for (int x = 0; x < job.content_width; x += kBlock) {
    const int left = job.content_width - x, n = left < kBlock ? left : kBlock;
    const int vectors = (n + kLanes - 1) / kLanes;
    for (int v = 0; v < vectors; ++v) {
      for (int c = 0; c < kChannels; ++c) sums[v][c] = Policy::begin_row();
    }
    for (int tap = 0; tap < taps; ++tap) {
      const int64 at = tap * tap_stride + x;
      fetch_row<kSource>(job, row, job.col_index + at, n, words);
      for (int v = 0; v < vectors; ++v) {
        const Ints word = load<Ints>(words + v * kLanes);
        add_word<Policy, kSource, kChannels>(job, word, tap, at + v * kLanes, sums[v]);
      }
    }
    for (int v = 0; v < vectors; ++v) {
      for (int c = 0; c < kChannels; ++c) store(cells + c * stride + x + v * kLanes, Policy::end_row(sums[v][c]));
    }
  }
}

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

// Cells of the source rows that the current output row reads; row r stands in slot r % slots.
struct Ring {
  float* cells;
  int* rows;  // which row each slot holds, or -1
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

// Where whole vectors fit a planar float32 row, it is written as it is computed.
SEG_HD float* direct_row(const PreprocessJob& job, int row, int channel) {
  if (job.bytes_per_value != 4 || job.column_stride != 1 || job.content_width % kLanes != 0) return nullptr;
  return static_cast<float*>(job.out) + channel * job.channel_stride + row * job.row_stride + job.left;
}

template <class Policy, Source kSource, int kTaps>
void fill_content(const PreprocessJob& shared, int begin, int end, void* scratch) {
  const PreprocessJob job = shared;  // a copy that only inlined functions see, as above
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
    case Source::nv12:
      return fill_content<Policy, Source::nv12, kTaps>(job, begin, end, scratch);
    case Source::yuyv:
      return fill_content<Policy, Source::yuyv, kTaps>(job, begin, end, scratch);
  }
}

// Rows [begin, end) of the network input.
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
