// mask_store.cuh: writes the mask values of a block's areas.
#pragma once

#include "mask_tile.cuh"

namespace seginfer {
inline namespace SEGINFER_TARGET {

// The tile of a block, whose first pixel is (left, top) of the mask.
struct StoredTile {
  const MaskPixel& job;
  MaskTile& tile;
  int left, top;

  // Writes the values of all areas, four columns of a run of rows at a time, then vectors of rows.
  SEG_DEVICE void store_vectors() const {
    SEG_NO_UNROLL
    for (int r = static_cast<int>(threadIdx.y); r < tile.rows.runs; r += kBlockY) {
      SEG_TRIP;
      const int x = 4 * static_cast<int>(threadIdx.x);
      const uint32 runs = *reinterpret_cast<const uint32*>(tile.cols.run + x);
      uint32 four = 0;
      for (int i = 0; i < 4; ++i) four |= (tile.values[r][runs >> 8 * i & 255u] & 255u) << 8 * i;
      *reinterpret_cast<uint32*>(tile.bytes[r] + x) = four;
    }
    __syncthreads();
    const int x = thread_number() % (kMaskCols / kVector) * kVector, y = thread_number() / (kMaskCols / kVector);
    if (y >= tile.rows.count) return;
    const uint8* from = tile.bytes[tile.rows.run[y]] + x;
    uint8* to = static_cast<uint8*>(job.mask) + (top + y) * job.mask_row_stride + left + x;
    if (x + kVector <= tile.cols.count) {
      *reinterpret_cast<SixteenBytes*>(to) = *reinterpret_cast<const SixteenBytes*>(from);
    } else {
      SEG_NO_UNROLL
      for (int i = 0; x + i < tile.cols.count; ++i) {
        SEG_TRIP;
        to[i] = from[i];
      }
    }
  }

  // Neighbouring threads write neighbouring pixels.
  SEG_DEVICE void store_pixels() const {
    SEG_NO_UNROLL
    for (int i = thread_number(); i < kMaskRows * kMaskCols; i += kThreads) {
      SEG_TRIP;
      const int x = i % kMaskCols, y = i / kMaskCols;
      if (x < tile.cols.count && y < tile.rows.count) store(x, y, tile.values[tile.rows.run[y]][tile.cols.run[x]]);
    }
  }

  SEG_DEVICE void store(int x, int y, int value) const {
    const int64 at = (top + y) * job.mask_row_stride + left + x;
    if (job.mask_bytes == 1) {
      static_cast<uint8*>(job.mask)[at] = static_cast<uint8>(value);
    } else {
      static_cast<uint16*>(job.mask)[at] = static_cast<uint16>(value);
    }
  }
};

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
