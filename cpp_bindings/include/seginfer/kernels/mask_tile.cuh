// mask_tile.cuh: the part of a mask that a block writes, and what its threads share.
#pragma once

#include "grid.cuh"
#include "mask_strip.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kMaskCols = 4 * kBlockX, kMaskRows = 4 * kBlockY;  // of the mask that a block writes
constexpr int kMaskCells = (kMaskCols + 2) * (kMaskRows + 2);    // of the output that a block keeps labels of
constexpr int kChosenAreas = 256;                                // mixed areas that a block chooses classes for
constexpr int kVector = 16;                                      // pixels that are stored at once

struct alignas(kVector) SixteenBytes {
  uint8 at[kVector];
};

// A range of the output's cells along an axis.
struct CellRange {
  int begin, count;              // those that the block's pixels read
  int check_begin, check_count;  // together with those that no pixel reads, of which a block at the border has more
};

// What a block's pixels read along one axis. Pixels that read the same cells are a run.
template <int kMost>
struct TileAxis {
  CellRange cells;
  int count, runs, longest;     // number of pixels and of runs, and pixels of the longest run
  float weight[3][kMost + 8];   // of each pixel, and some beyond the last
  int cell[3][kMost];           // cells of each run, relative to the first
  uint8 first[kMost + 1];       // first pixel of each run
  alignas(4) uint8 run[kMost];  // run of each pixel; those beyond the last belong to its run
};

// Pixels that read the same cells form an area: a run of columns in a run of rows. Interpolation is a convex
// combination: where the cells of an area all have the same label, so do its pixels. Only in mixed areas are logits
// interpolated and compared.
struct MaskTile {
  union {
    uint16 labels[kMaskCells];
    alignas(kVector) uint8 bytes[kMaskRows][kMaskCols];  // mask values of every run of rows, once labels are compared
  };
  uint16 values[kMaskRows][kMaskCols];  // mask value of an area
  uint16 mixed[kMaskRows * kMaskCols];  // kMaskCols * run of rows + run of columns
  uint32 chosen[kChosenAreas];          // bits of the classes that can win in a mixed area
  uint16 mixed_label[kChosenAreas];     // label of one of its cells
  TileAxis<kMaskRows> rows;
  TileAxis<kMaskCols> cols;
  int mixed_count;
};

// Lists pixel i of a block, whose pixels are [first, first + count) of `size` along an axis with `all` cells.
template <int kTaps, int kMost>
SEG_DEVICE void list_pixel(const int* index, const int* run, const float* weight, int size, int first, int all, int i,
                           TileAxis<kMost>& axis) {
  const int count = size - first < kMost ? size - first : kMost, at = first + (i < count ? i : count - 1);
  const int begin = loaded(index + first), number = loaded(run + at), which = number - loaded(run + first);
  axis.run[i] = static_cast<uint8>(which);
  for (int t = 0; t < kTaps && kTaps > 1; ++t) axis.weight[t][i] = loaded(weight + (t * static_cast<int64>(size) + at));
  if (i >= count) return;
  if (i == 0 || loaded(run + at - 1) != number) {
    axis.first[which] = static_cast<uint8>(i);
    for (int t = 0; t < kTaps; ++t) {
      axis.cell[t][which] = loaded(index + (t * static_cast<int64>(size) + at)) - begin;
    }
  }
  if (i < count - 1) return;
  axis.first[which + 1] = static_cast<uint8>(count);
  axis.count = count;
  axis.runs = which + 1;
  const int last = loaded(index + ((kTaps - 1) * static_cast<int64>(size) + at));
  const int next = at + 1 == size ? all : loaded(index + at + 1);
  const int check_begin = first == 0 ? 0 : begin, check_end = next > last + 1 ? next : last + 1;
  axis.cells = {begin, last + 1 - begin, check_begin, check_end - check_begin};
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
