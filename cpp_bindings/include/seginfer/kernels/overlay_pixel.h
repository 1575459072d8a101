// overlay_pixel.h: blends a class colour over one pixel of an image, or over black. Includes only pixel.h.
#pragma once

#include "pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

// Colour of a class; see `blended`. The last entry of a palette is for all other mask values.
struct alignas(8) PaletteEntry {
  uint16 factor;
  uint16 color[3];  // times their weight
};

struct OverlayPixel {
  const uint8* pixels;  // null: black; may equal `out`
  int64 row_bytes;
  const void* mask;
  int64 mask_row_stride;        // in values
  const PaletteEntry* palette;  // (classes + 1)
  uint8* out;                   // (height, width, 3)
  int64 out_row_bytes;
  int height, width;
  int channels;  // of the image: 1 or 3
  int mask_bytes;
  int classes;

  SEG_HD PaletteEntry entry_at(int x, int y) const {
    const int64 at = y * mask_row_stride + x;
    const int value =
        mask_bytes == 1 ? loaded(static_cast<const uint8*>(mask) + at) : loaded(static_cast<const uint16*>(mask) + at);
    return palette[value < classes ? value : classes];
  }

  static SEG_HD uint32 painted(uint32 level, const PaletteEntry& entry, int channel) {
    return blended<uint32>(level, entry.factor, entry.color[channel]);
  }

  SEG_HD void operator()(int x, int y) const {
    const PaletteEntry entry = entry_at(x, y);
    const uint8* from = pixels ? pixels + y * row_bytes + channels * static_cast<int64>(x) : nullptr;
    uint8* to = out + y * out_row_bytes + 3 * static_cast<int64>(x);
    uint32 levels[3];
    for (int c = 0; c < 3; ++c) levels[c] = from ? from[channels == 3 ? c : 0] : 0;
    for (int c = 0; c < 3; ++c) to[c] = static_cast<uint8>(painted(levels[c], entry, c));
  }
};

static_assert(sizeof(PaletteEntry) == 8 && sizeof(OverlayPixel) == 80,
              "seginfer/_cuda/kernel_args.py states the same layout");

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
