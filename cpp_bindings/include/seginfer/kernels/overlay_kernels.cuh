// overlay_kernels.cuh: kernel that blends class colours over images.
#pragma once

#include "grid.cuh"
#include "overlay_pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kOverlayCols = 4 * kBlockX;  // of the image, by kBlockY rows, that a block paints

// Four pixels of a row per thread: three words.
SEG_DEVICE void overlay(const OverlayPixel* records) {
  const OverlayPixel job = records[blockIdx.z];
  const int x = 4 * column(), y = row_of_block(kBlockY) + static_cast<int>(threadIdx.y);
  if (y >= job.height) return;
  uint8* to = job.out + y * job.out_row_bytes + 3 * static_cast<int64>(x);
  const uint8* from = job.pixels ? job.pixels + y * job.row_bytes + 3 * static_cast<int64>(x) : nullptr;
  const bool is_aligned =
      (reinterpret_cast<unsigned long long>(to) | reinterpret_cast<unsigned long long>(from)) % 4 == 0;
  if (!is_aligned || (from && job.channels == 1) || x + 4 > job.width) {
    SEG_NO_UNROLL
    for (int i = x; i < x + 4 && i < job.width; ++i) {
      SEG_TRIP;
      job(i, y);
    }
    return;
  }
  uint32 words[3] = {}, result[3] = {};
  for (int w = 0; from && w < 3; ++w) words[w] = reinterpret_cast<const uint32*>(from)[w];
  for (int i = 0; i < 4; ++i) {
    const PaletteEntry entry = job.entry_at(x + i, y);
    for (int c = 0; c < 3; ++c) {
      const int byte = 3 * i + c, shift = 8 * (byte % 4);
      result[byte / 4] |= OverlayPixel::painted((words[byte / 4] >> shift) & 255u, entry, c) << shift;
    }
  }
  for (int w = 0; w < 3; ++w) reinterpret_cast<uint32*>(to)[w] = result[w];
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
