// preprocess_kernels.cuh: kernels that convert images to the network input.
#pragma once

#include "grid.cuh"
#include "preprocess_pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kGatherRows = 4 * kBlockY;  // of the input, by kBlockX columns, that a block of preprocess writes
constexpr int kFilterRows = 2 * kBlockY;  // the same of preprocess_filtered
constexpr int kFilteredRows = 96;         // source rows that a block of preprocess_filtered keeps

// Computes each pixel from the image directly. A thread writes a column of four pixels, which share column weights.
template <class F, Source kSource, int kTaps>
SEG_DEVICE void gather(const PreprocessPixel& job) {
  const int x = column(), first = row_of_block(kGatherRows) + 4 * static_cast<int>(threadIdx.y);
  if (x >= job.width) return;
  SEG_UNROLL
  for (int y = first; y < first + 4; ++y) {
    if (y < job.height) job.pixel<F, kSource, kTaps>(x, y);
  }
}

struct Gather {
  const PreprocessPixel& job;

  template <Source kSource>
  SEG_DEVICE void run() const {
    switch (job.filter) {
      case Filter::pick:
        return gather<PickFilter, kSource, 1>(job);
      case Filter::weighted:
        return gather<WeightedFilter, kSource, 2>(job);
      case Filter::opencv:
        return gather<OpenCVFilter, kSource, 2>(job);
      case Filter::pillow:
        return;
    }
  }
};

// Calls pixel(x, y) for the rows of a thread of preprocess_filtered.
template <class Pixel>
SEG_DEVICE void for_each_row(const PreprocessPixel& job, const Pixel& pixel) {
  if (column() >= job.width) return;
  const int top = row_of_block(kFilterRows), end = top + kFilterRows < job.height ? top + kFilterRows : job.height;
  SEG_NO_UNROLL
  for (int y = top + static_cast<int>(threadIdx.y); y < end; y += kBlockY) pixel(column(), y);
}

template <class F, Source kSource, int kTaps>
SEG_DEVICE void gather_rows(const PreprocessPixel& job) {
  for_each_row(job, [&](int x, int y) { job.pixel<F, kSource, kTaps>(x, y); });
}

// For filters with many taps. A block resamples each source row once and keeps it in `kept`: (row, channel, x).
template <class F, Source kSource>
SEG_DEVICE void filter(const PreprocessPixel& job, typename F::Cell* kept) {
  const int top = row_of_block(kFilterRows), x = column() - job.left;
  const int first = (top > job.top ? top : job.top) - job.top;
  const int bottom = top + kFilterRows - job.top, end = bottom < job.content_height ? bottom : job.content_height;
  int begin = 0, count = 0;
  if (first < end) {
    begin = loaded(job.row_index + first);
    count = loaded(job.row_index + (job.row_taps - 1) * static_cast<int64>(job.content_height) + end - 1) + 1 - begin;
  }
  if (count > kFilteredRows) return gather_rows<F, kSource, 0>(job);
  const bool is_content = x >= 0 && x < job.content_width;
  for (int s = static_cast<int>(threadIdx.y); is_content && s < count; s += kBlockY) {
    typename F::Cell cells[3];
    job.row_cells<F, kSource, 0>(begin + s, x, cells);
    for (int c = 0; c < channels_of<kSource>(); ++c) kept[(3 * s + c) * kBlockX + threadIdx.x] = cells[c];
  }
  __syncthreads();
  for_each_row(job, [&](int at, int y) {
    if (!job.has_content(at, y)) return job.padding_pixel(at, y);
    job.content_pixel<F, kSource, 0>(x, y - job.top, [&](int row, typename F::Cell* cells) {
      for (int c = 0; c < channels_of<kSource>(); ++c) cells[c] = kept[(3 * (row - begin) + c) * kBlockX + threadIdx.x];
    });
  });
}

struct FilterRows {
  const PreprocessPixel& job;
  unsigned char* kept;

  template <Source kSource>
  SEG_DEVICE void run() const {
    switch (job.filter) {
      case Filter::pick:
        return gather_rows<PickFilter, kSource, 1>(job);
      case Filter::weighted:
        return filter<WeightedFilter, kSource>(job, reinterpret_cast<float*>(kept));
      case Filter::pillow:
        return filter<PillowFilter, kSource>(job, reinterpret_cast<int*>(kept));
      case Filter::opencv:
        return;
    }
  }
};

// For the filters pick, opencv, and weighted with two taps along either axis.
SEG_KERNEL seginfer_preprocess(const PreprocessPixel* records) {
  const PreprocessPixel job = records[blockIdx.z];
  with_source(job.source, Gather{job});
}

// For the filters pick, pillow, and weighted with any number of taps.
SEG_KERNEL seginfer_preprocess_filtered(const PreprocessPixel* records) {
  alignas(16) __shared__ unsigned char kept[kFilteredRows * 3 * kBlockX * 4];
  const PreprocessPixel job = records[blockIdx.z];
  with_source(job.source, FilterRows{job, kept});
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
