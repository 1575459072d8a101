// contenders.h: finds the classes that can win in a block of pixels, so that only those are interpolated. Part of
// target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

// The classes that a block of pixels interpolates, in ascending order.
struct Contenders {
  const int* classes;
  int count;
};

Contenders every_class(const MaskJob& job, int* chosen) {
  for (int c = 0; c < job.classes; ++c) chosen[c] = c;
  return {chosen, job.classes};
}

// Whether looking for contenders saves time: cells are wider than a pixel, and there are classes to leave out.
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

// Stores, for kMaskBlock logit cells from `column` on, the classes that can win there. A class whose largest corner
// lies below the smallest corner of another class is below it at every pixel of the cell, also after rounding: the
// error of interpolation is less than kRounding times the largest value of its rows.
template <int kTaps>
void find_contenders(const MaskJob& job, const LogitRows& logits, int row, int column, const MaskScratch& scratch) {
  constexpr float kRounding = 1.0f / (1 << 18);  // 64 units in the last place; 12 per tap would suffice
  constexpr float kUnderflow = 1e-36f;           // largest error of results below the smallest normal number
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
  return count ? Contenders{scratch.chosen, count} : every_class(job, scratch.chosen);  // NaN compares with nothing
}

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
