// mask_kernels.cuh: kernel that makes masks from the network's output.
#pragma once

#include "mask_store.cuh"

namespace seginfer {
inline namespace SEGINFER_TARGET {

// The work of a block, in the order of its methods; `mask` has the barriers between them.
template <int kTaps, class T>
struct MaskBlock : StoredTile {
  SEG_DEVICE void list_runs() const {
    const int i = thread_number();
    if (i < kMaskCols) {
      SEG_TRIP;
      list_pixel<kTaps>(job.col_index, job.col_run, job.col_weight, job.cols, left, job.width, i, tile.cols);
    } else if (i < kMaskCols + kMaskRows) {
      SEG_TRIP;
      list_pixel<kTaps>(job.row_index, job.row_run, job.row_weight, job.rows, top, job.height, i - kMaskCols,
                        tile.rows);
    } else if (i == kMaskCols + kMaskRows) {
      tile.mixed_count = tile.rows.longest = tile.cols.longest = 0;
    }
  }

  // Where an image is smaller than the output, a block's pixels may read too many cells. All areas are then mixed.
  SEG_DEVICE bool has_labels() const { return tile.rows.cells.count * tile.cols.cells.count <= kMaskCells; }

  // Checks the block's share of the output, and keeps the labels of the cells that pixels read.
  SEG_DEVICE void label_cells() const {
    note_longest(tile.rows), note_longest(tile.cols);
    const bool keeps = kTaps > 1 && has_labels();
    const CellRange rows = tile.rows.cells, cols = tile.cols.cells;
    const int count = cols.check_count * rows.check_count;
    SEG_NO_UNROLL
    for (int i = thread_number(); i < count; i += kThreads) {
      SEG_TRIP;
      const int line = static_cast<int>(static_cast<unsigned>(i) / static_cast<unsigned>(cols.check_count));
      const int row = rows.check_begin + line, col = cols.check_begin + i - line * cols.check_count;
      const int at = row * job.row_stride + col * job.column_stride;
      bool is_good;
      int label;
      if constexpr (kTaps == 1) {
        label = id_label<T>(job, at, is_good);
      } else {
        label = job.template cell_label<T>(at, is_good);
      }
      if (!is_good) *job.faults = kTaps == 1 ? kNoClass : kNotFinite;
      const unsigned y = static_cast<unsigned>(row - rows.begin), x = static_cast<unsigned>(col - cols.begin);
      if (keeps && x < static_cast<unsigned>(cols.count) && y < static_cast<unsigned>(rows.count)) {
        tile.labels[static_cast<int>(y) * cols.count + static_cast<int>(x)] = static_cast<uint16>(label);
      }
    }
  }

  template <int kMost>
  SEG_DEVICE static void note_longest(TileAxis<kMost>& axis) {
    const int run = thread_number();
    if (run >= axis.runs) return;
    SEG_TRIP;
    atomicMax(&axis.longest, axis.first[run + 1] - axis.first[run]);
  }

  // Finds the mask value of every area, or lists it as mixed.
  SEG_DEVICE void compare_labels() const {
    const bool are_kept = has_labels();
    SEG_NO_UNROLL
    for (int r = static_cast<int>(threadIdx.y); r < tile.rows.runs; r += kBlockY) {
      SEG_TRIP;
      SEG_NO_UNROLL
      for (int c = static_cast<int>(threadIdx.x); c < tile.cols.runs; c += kBlockX) {
        SEG_TRIP;
        int first = 0, label = kMixed;
        if constexpr (kTaps == 1) {
          int at[1][1];
          set_corners(r, c, at);
          bool is_good;
          label = id_label<T>(job, at[0][0], is_good);
        } else if (are_kept) {
          label = common_label(r, c, first);
        }
        if (kTaps > 1 && label == kMixed) {
          SEG_TRIP;
          const int place = atomicAdd(&tile.mixed_count, 1);
          tile.mixed[place] = static_cast<uint16>(r * kMaskCols + c);
          if (place < kChosenAreas) {
            tile.chosen[place] = 0;
            tile.mixed_label[place] = static_cast<uint16>(first);
          }
        } else {
          tile.values[r][c] = static_cast<uint16>(job.mask_value(label));
        }
      }
    }
  }

  SEG_DEVICE int common_label(int r, int c, int& first) const {
    int label = 0;
    for (int i = 0; i < kTaps; ++i) {
      const uint16* row = tile.labels + tile.rows.cell[i][r] * tile.cols.cells.count;
      for (int k = 0; k < kTaps; ++k) {
        const int other = row[tile.cols.cell[k][c]];
        if (i == 0 && k == 0) first = label = other;
        label = label == other ? label : kMixed;
      }
    }
    return label;
  }

  SEG_DEVICE bool chooses() const {
    const int areas = tile.rows.runs * tile.cols.runs;  // where most are mixed, as in noise, most classes can win
    return job.classes > 3 && 2 * tile.mixed_count <= areas && tile.mixed_count <= kChosenAreas;
  }

  SEG_DEVICE void set_corners(int r, int c, int (&at)[kTaps][kTaps]) const {
    int cols[kTaps];
    for (int k = 0; k < kTaps; ++k) cols[k] = (tile.cols.cells.begin + tile.cols.cell[k][c]) * job.column_stride;
    for (int i = 0; i < kTaps; ++i) {
      const int row = (tile.rows.cells.begin + tile.rows.cell[i][r]) * job.row_stride;
      for (int k = 0; k < kTaps; ++k) at[i][k] = row + cols[k];
    }
  }

  // Chooses every class that can win in some pixel of a mixed area. It is not below another class at all of them.
  SEG_DEVICE void choose() const {
    constexpr int kShare = 4;  // threads of an area
    const int step = class_step(job.classes);
    SEG_NO_UNROLL
    for (int i = thread_number(); i < kShare * tile.mixed_count; i += kThreads) {
      SEG_TRIP;
      Corners<kTaps, T> corners = {static_cast<const T*>(job.logits), {}, {}};
      set_corners(tile.mixed[i / kShare] / kMaskCols, tile.mixed[i / kShare] % kMaskCols, corners.at);
      float floor, low, high;
      corners.read(tile.mixed_label[i / kShare] * job.plane_stride);
      corners.bounds(floor, high);
      uint32 bits = 0;
      SEG_NO_UNROLL
      for (int bit = i % kShare; bit * step < job.classes; bit += kShare) {
        SEG_TRIP;
        const int end = (bit + 1) * step < job.classes ? (bit + 1) * step : job.classes;
        SEG_NO_UNROLL
        for (int k = bit * step; k < end; ++k) {
          SEG_TRIP;
          corners.read(k * job.plane_stride);
          corners.bounds(low, high);
          floor = low > floor ? low : floor;
          if (high >= floor) bits |= 1u << bit;
        }
      }
      atomicOr(&tile.chosen[i / kShare], bits);
    }
  }

  // Labels and stores the pixels of mixed areas, kRows of a column at a time. All areas have as many such strips, of
  // which some may be empty.
  SEG_DEVICE void decide(bool has_chosen) const {
    constexpr int kRows = kTaps == 2 ? 5 : 3;  // as many as registers hold
    const int step = class_step(job.classes);
    const uint32 all = job.classes < kClassBits ? (1u << job.classes) - 1u : ~0u;
    const int shift = ceil_log2(tile.cols.longest), parts = (tile.rows.longest + kRows - 1) / kRows;
    SEG_NO_UNROLL
    for (int i = thread_number(); i < tile.mixed_count * parts << shift; i += kThreads) {
      SEG_TRIP;
      const int place = static_cast<int>(static_cast<unsigned>(i >> shift) / static_cast<unsigned>(parts));
      const int r = tile.mixed[place] / kMaskCols, c = tile.mixed[place] % kMaskCols;
      const int x = tile.cols.first[c] + (i & ((1 << shift) - 1));
      const int y = tile.rows.first[r] + kRows * ((i >> shift) - place * parts), end = tile.rows.first[r + 1];
      if (x >= tile.cols.first[c + 1] || y >= end) continue;
      Strip<kTaps, T, kRows> strip = {{static_cast<const T*>(job.logits), {}, {}}, {}, {}};
      set_corners(r, c, strip.corners.at);
      for (int t = 0; t < kTaps; ++t) {
        strip.col_weight[t] = tile.cols.weight[t][x];
        for (int k = 0; k < kRows; ++k) strip.row_weight[k][t] = tile.rows.weight[t][y + k];
      }
      int labels[kRows];
      const Classes classes = {has_chosen ? tile.chosen[place] : all, step, job.classes};
      decide_strip(job, strip, classes, labels);
      if (job.mask_bytes == 1 && !job.table) {
        uint8* to = static_cast<uint8*>(job.mask) + (top + y) * job.mask_row_stride + left + x;
        for (int k = 0; k < kRows; ++k, to += job.mask_row_stride) {
          if (y + k < end) *to = static_cast<uint8>(labels[k]);
        }
      } else {
        SEG_TRIP;
        for (int k = 0; k < kRows; ++k) {
          if (y + k < end) store(x, y + k, job.mask_value(labels[k]));
        }
      }
    }
  }

  static SEG_DEVICE int ceil_log2(int n) {
    return n > 1 ? static_cast<int>(bits_from_float(static_cast<float>(n - 1)) >> 23) - 126 : 0;
  }
};

static_assert(sizeof(MaskTile) <= 32 << 10, "three blocks fit into the 100 KiB of the smaller GPUs");

// One block per tile and record: see MaskTile.
template <int kTaps, class T>
SEG_DEVICE void mask(const MaskPixel* records) {
  __shared__ MaskTile tile;
  const MaskPixel job = records[blockIdx.z];
  const int left = static_cast<int>(blockIdx.x) * kMaskCols, top = row_of_block(kMaskRows);
  if (left >= job.cols || top >= job.rows) return;
  const MaskBlock<kTaps, T> block = {{job, tile, left, top}};
  block.list_runs();
  __syncthreads();
  block.label_cells();
  __syncthreads();
  block.compare_labels();
  __syncthreads();
  const bool is_aligned = (reinterpret_cast<unsigned long long>(job.mask) | job.mask_row_stride) % kVector == 0;
  if (is_aligned && job.mask_bytes == 1) {
    block.store_vectors();
  } else {
    SEG_TRIP;
    block.store_pixels();
  }
  if constexpr (kTaps > 1) {
    if (tile.mixed_count > 0) {
      SEG_TRIP;
      const bool chooses = block.chooses();
      if (chooses) block.choose();
      __syncthreads();
      block.decide(chooses);
    }
  }
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
