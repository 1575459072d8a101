// filter_rows.h: resampling filters for vectors of pixels, and resampling along an image row. Part of target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

constexpr int kBlock = 64;  // columns fetched at a time

// Each filter turns a row's pixels into cells, and cells of several rows into a grey level.
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
  const PreprocessJob job = shared;  // a copy stays in registers, since the stores below cannot alias it
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

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
