// mask_kernels.cuh: kernels that compute labels, masks, confidences and margins from the network's output.
#pragma once

#include "grid.cuh"
#include "label_cell.h"
#include "mask_strip.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kMaskCols = 4 * kBlockX, kMaskRows = 4 * kBlockY;  // of the mask that a block writes

SEG_KERNEL seginfer_label(const LabelCell* records) {
  const LabelCell job = records[blockIdx.z];
  const int y = row_of_block(kBlockY) + static_cast<int>(threadIdx.y);
  if (column() < job.width && y < job.height) job(column(), y);
}

struct alignas(8) FourLabels {
  uint16 at[4];
};

struct alignas(16) SixteenBytes {
  uint8 at[16];
};

constexpr int kChosenWords = 32;  // of 32 classes each; with more classes, every class is compared

// Strips of four rows, each as its index within a tile.
struct StripList {
  uint16 at[kThreads * 4];
  int count;
};

// A block's part of the mask. Strips with a pixel whose surrounding labels differ are listed, and then distributed over
// the threads, so that all threads interpolate wherever the class boundaries lie. The first strip of each run of
// columns that read the same logits is a leader. Leaders choose the classes that all strips compare.
struct MaskTile {
  alignas(16) uint16 labels[kMaskRows][kMaskCols];
  StripList mixed, leaders;
  uint32 chosen[kChosenWords];
};

SEG_DEVICE void list_strips(unsigned which, StripList& list) {
  const int count = (which & 1) + (which >> 1 & 1) + (which >> 2 & 1) + (which >> 3 & 1);
  if (count == 0) return;
  const int first = static_cast<int>(threadIdx.y) * kMaskCols + 4 * static_cast<int>(threadIdx.x);
  int at = atomicAdd(&list.count, count);
  for (int i = 0; i < 4; ++i) {
    if (which >> i & 1) list.at[at++] = static_cast<uint16>(first + i);
  }
}

// Labels four columns of four rows where the labels around a pixel agree.
template <int kTaps>
SEG_DEVICE void agree(const MaskPixel& job, int left, int top, MaskTile& tile) {
  const int x = left + 4 * static_cast<int>(threadIdx.x), y = 4 * static_cast<int>(threadIdx.y);
  int cols[4][kTaps], rows[kTaps] = {};
  unsigned leads = threadIdx.x == 0, is_mixed = 0, is_inside = 0;
  for (int i = 0; i < 4; ++i) {
    const int inside = x + i < job.cols ? x + i : job.cols - 1;
    is_inside |= (x + i < job.cols) << i;
    for (int t = 0; t < kTaps; ++t) {
      cols[i][t] = job.col_at(t, inside);
      const int before = i ? cols[i ? i - 1 : 0][t] : job.col_at(t, inside ? inside - 1 : 0);
      leads |= (cols[i][t] != before) << i;
    }
  }
  const uint16* const labels = job.labels;
  const int width = job.width;
  FourLabels four = {};
  for (int r = 0; r < 4 && top + y + r < job.rows; ++r) {
    bool is_new = r == 0;
    for (int t = 0; t < kTaps; ++t) {
      const int row = job.row_at(t, top + y + r);
      is_new |= row != rows[t];
      rows[t] = row;
    }
    for (int i = 0; i < 4 && is_new; ++i) {
      four.at[i] = loaded(labels + static_cast<int64>(rows[0]) * width + cols[i][0]);
      for (int k = 1; k < kTaps * kTaps; ++k) {
        const uint16 other = loaded(labels + static_cast<int64>(rows[k / kTaps]) * width + cols[i][k % kTaps]);
        four.at[i] = four.at[i] == other ? four.at[i] : kMixed;
      }
      is_mixed |= (four.at[i] == kMixed) << i;
    }
    *reinterpret_cast<FourLabels*>(&tile.labels[y + r][x - left]) = four;
  }
  if (kTaps == 1) return;
  list_strips(is_mixed & is_inside, tile.mixed);
  list_strips(is_mixed & is_inside & leads, tile.leaders);
}

// Chooses every class that can win in some strip: one that is not below another class at all pixels of the strip.
template <int kTaps, class T, int kRows>
SEG_DEVICE void choose(const MaskPixel& job, int left, int top, MaskTile& tile) {
  for (int i = thread_number(); i < tile.leaders.count * (4 / kRows); i += kThreads) {
    const int strip = tile.leaders.at[i / (4 / kRows)], part = i % (4 / kRows) * kRows;
    const int y = top + 4 * (strip / kMaskCols) + part;
    const Strip<kTaps, T, kRows> at(job, left + strip % kMaskCols, y < job.rows ? y : job.rows - 1);
    float low, high, floor = float_from_bits(0xff800000u);
    for (int c = 0; c < job.classes; ++c) {
      at.bounds(c, low, high);
      floor = low > floor ? low : floor;
    }
    for (int c = 0; c < job.classes; ++c) {
      at.bounds(c, low, high);
      if (high >= floor) atomicOr(&tile.chosen[c / 32], 1u << c % 32);
    }
  }
}

template <int kTaps, class T, int kRows, class Classes>
SEG_DEVICE void decide(const MaskPixel& job, const Classes& classes, int left, int top, MaskTile& tile) {
  for (int i = thread_number(); i < tile.mixed.count; i += kThreads) {
    const int x = tile.mixed.at[i] % kMaskCols, y = 4 * (tile.mixed.at[i] / kMaskCols);
    for (int part = 0; part < 4 && top + y + part < job.rows; part += kRows) {
      int labels[kRows];
      decide_strip<kTaps, T, kRows>(job, classes, left + x, top + y + part, labels);
      for (int r = 0; r < kRows; ++r) {
        uint16& label = tile.labels[y + part + r][x];
        if (label == kMixed) label = static_cast<uint16>(labels[r]);
      }
    }
  }
}

template <int kTaps, class T>
SEG_DEVICE void decide_mixed(const MaskPixel& job, int left, int top, MaskTile& tile) {
  constexpr int kRows = kTaps == 2 ? 4 : 2;  // as many as registers hold
  const bool pays = job.classes > 3 && job.classes <= 32 * kChosenWords && 2 * tile.leaders.count <= tile.mixed.count;
  if (pays) {
    choose<kTaps, T, kRows>(job, left, top, tile);
    __syncthreads();
    decide<kTaps, T, kRows>(job, ChosenClasses{tile.chosen, job.classes}, left, top, tile);
  } else {
    decide<kTaps, T, kRows>(job, EveryClass{job.classes}, left, top, tile);
  }
  __syncthreads();
}

template <int kTaps>
SEG_DEVICE void fill_tile(const MaskPixel& job, int left, int top, MaskTile& tile) {
  if (thread_number() < kChosenWords) tile.chosen[thread_number()] = 0;
  if (thread_number() == 0) tile.mixed.count = tile.leaders.count = 0;
  __syncthreads();
  agree<kTaps>(job, left, top, tile);
  __syncthreads();
  if constexpr (kTaps > 1) {
    (job.kind == DType::float16 ? decide_mixed<kTaps, uint16>(job, left, top, tile)
                                : decide_mixed<kTaps, float>(job, left, top, tile));
  }
}

// Sixteen pixels of a row per thread.
SEG_DEVICE void store_vectors(const MaskPixel& job, int left, int top, const MaskTile& tile) {
  const int x = thread_number() % 8 * 16, y = thread_number() / 8;
  if (top + y >= job.rows) return;
  if (left + x + 16 > job.cols) {
    for (int i = 0; left + x + i < job.cols; ++i) job.write(left + x + i, top + y, tile.labels[y][x + i]);
    return;
  }
  SixteenBytes bytes;
  for (int i = 0; i < 16; ++i) bytes.at[i] = static_cast<uint8>(job.mask_value(tile.labels[y][x + i]));
  *reinterpret_cast<SixteenBytes*>(static_cast<uint8*>(job.mask) + (top + y) * job.mask_row_stride + left + x) = bytes;
}

// Neighbouring threads write neighbouring pixels.
SEG_DEVICE void store_pixels(const MaskPixel& job, int left, int top, const MaskTile& tile) {
  for (int i = thread_number(); i < kMaskRows * kMaskCols; i += kThreads) {
    const int x = i % kMaskCols, y = i / kMaskCols;
    if (top + y < job.rows && left + x < job.cols) job.write(left + x, top + y, tile.labels[y][x]);
  }
}

SEG_KERNEL seginfer_mask(const MaskPixel* records) {
  __shared__ MaskTile tile;
  const MaskPixel& job = records[blockIdx.z];
  const int left = static_cast<int>(blockIdx.x) * kMaskCols, top = row_of_block(kMaskRows);
  if (left >= job.cols || top >= job.rows) return;
  switch (job.taps) {
    case 1:
      fill_tile<1>(job, left, top, tile);
      break;
    case 2:
      fill_tile<2>(job, left, top, tile);
      break;
    default:
      fill_tile<3>(job, left, top, tile);
  }
  const bool is_aligned = (reinterpret_cast<unsigned long long>(job.mask) | job.mask_row_stride) % 16 == 0;
  (is_aligned && job.mask_bytes == 1 ? store_vectors(job, left, top, tile) : store_pixels(job, left, top, tile));
}

template <int kTaps>
SEG_DEVICE void fill_maps(const MaskPixel& job, int x, int y) {
  (job.kind == DType::float16 ? job.maps<kTaps, uint16>(x, y) : job.maps<kTaps, float>(x, y));
}

// Confidence and margins.
SEG_KERNEL seginfer_maps(const MaskPixel* records) {
  const MaskPixel& job = records[blockIdx.z];
  const int y = row_of_block(kBlockY) + static_cast<int>(threadIdx.y);
  if (column() >= job.cols || y >= job.rows) return;
  (job.taps == 2 ? fill_maps<2>(job, column(), y) : fill_maps<3>(job, column(), y));
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
