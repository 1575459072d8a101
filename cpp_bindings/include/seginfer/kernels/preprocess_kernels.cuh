// preprocess_kernels.cuh: kernels that convert images to the network input.
#pragma once

#include "grid.cuh"
#include "preprocess_pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kGatherRows = 4 * kBlockY;  // of the input, by kBlockX columns, that a block of preprocess writes
constexpr int kFilterRows = 2 * kBlockY;  // the same of preprocess_filtered
constexpr int kFilteredRows = 96;         // source rows that a block of preprocess_filtered keeps

// For the filters pick, opencv, and weighted with two taps along either axis: computes each pixel from the image
// directly. A thread writes a column of four pixels, which share column weights.
template <Source kSource, class F, int kTaps, class T>
SEG_DEVICE void preprocess(const PreprocessPixel* records) {
  constexpr int kRows = kGatherRows / kBlockY;
  const PreprocessPixel job = records[blockIdx.z];
  const int x = column(), first = row_of_block(kGatherRows) + kRows * static_cast<int>(threadIdx.y);
  if (job.has_content(x, first) && job.has_content(x, first + kRows - 1)) {
    SEG_TRIP;
    SEG_UNROLL
    for (int y = first; y < first + kRows; ++y) {
      job.content_pixel<F, kSource, kTaps, T>(x - job.left, y - job.top, [&](int row, typename F::Cell* cells) {
        job.row_cells<F, kSource, kTaps>(row, x - job.left, cells);
      });
    }
    return;
  }
  const int end = x >= job.width ? first : first + kRows < job.height ? first + kRows : job.height;
  SEG_NO_UNROLL
  for (int y = first; y < end; ++y) {
    SEG_TRIP;
    job.pixel<F, kSource, kTaps, T>(x, y);
  }
}

// For filters with many taps. A block resamples each source row once and keeps it in `kept`: (row, channel, x).
template <Source kSource, class F, class T>
SEG_DEVICE void preprocess_filtered(const PreprocessPixel* records) {
  constexpr int kChannels = channels_of<kSource>();
  using Cell = typename F::Cell;
  __shared__ Cell kept[kFilteredRows * kChannels * kBlockX];
  static_assert(sizeof(kept) <= 48 << 10, "shared memory that a block has without asking");
  const PreprocessPixel job = records[blockIdx.z];
  const int top = row_of_block(kFilterRows), x = column() - job.left;
  const int end = top + kFilterRows < job.height ? top + kFilterRows : job.height;
  const int first = (top > job.top ? top : job.top) - job.top;
  const int last = (end < job.top + job.content_height ? end - job.top : job.content_height) - 1;
  int begin = 0, count = 0;
  if (first <= last) {
    begin = loaded(job.row_index + first);
    count = loaded(job.row_index + (job.row_taps - 1) * job.content_height + last) + 1 - begin;
  }
  const bool is_kept = count <= kFilteredRows, is_content = x >= 0 && x < job.content_width;
  SEG_NO_UNROLL
  for (int s = static_cast<int>(threadIdx.y); is_kept && is_content && s < count; s += kBlockY) {
    SEG_TRIP;
    Cell cells[3];
    job.row_cells<F, kSource, 0>(begin + s, x, cells);
    for (int c = 0; c < kChannels; ++c) kept[(kChannels * s + c) * kBlockX + threadIdx.x] = cells[c];
  }
  __syncthreads();
  if (column() >= job.width) return;
  SEG_NO_UNROLL
  for (int y = top + static_cast<int>(threadIdx.y); y < end; y += kBlockY) {
    SEG_TRIP;
    if (!job.has_content(column(), y)) {
      SEG_TRIP;
      job.padding_pixel<T>(column(), y);
    } else if (is_kept) {
      SEG_TRIP;
      job.content_pixel<F, kSource, 0, T>(x, y - job.top, [&](int row, Cell* cells) {
        const Cell* from = kept + (row - begin) * (kChannels * kBlockX) + threadIdx.x;
        for (int c = 0; c < kChannels; ++c) cells[c] = from[c * kBlockX];
      });
    } else {
      SEG_TRIP;
      job.pixel<F, kSource, 0, T>(column(), y);
    }
  }
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
