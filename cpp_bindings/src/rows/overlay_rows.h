// overlay_rows.h: blends class colours over image rows. Part of target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

constexpr int kPeriod = 96;  // bytes: whole RGB pixels and whole vectors

SEG_HD int class_at(const OverlayJob& job, int row, int x) {
  const int64 at = row * job.mask_row_stride + x;
  const int value =
      job.mask_bytes == 1 ? static_cast<const uint8*>(job.mask)[at] : static_cast<const uint16*>(job.mask)[at];
  return value < job.classes ? value : job.classes;
}

// Paints n pixels of one class. Masks have long runs of a class, in which the colour repeats with every pixel.
SEG_HD void paint_run(const OverlayJob& job, int label, const uint8* pixels, uint8* out, int n) {
  const uint32 factor = job.factors[label];
  const uint16* color = job.colors + 3 * label;
  uint16 pattern[kPeriod];
  const int period = 3 * n < kPeriod ? 3 * n : kPeriod;
  for (int i = 0; i < period; ++i) pattern[i] = color[i % 3];
  int i = 0;
  for (; i + kPeriod <= 3 * n; i += kPeriod) {
    for (int k = 0; k < kPeriod; ++k) {
      out[i + k] = static_cast<uint8>(blended<uint32>(pixels[i + k], factor, pattern[k]));
    }
  }
  for (int k = 0; i + k < 3 * n; ++k) {
    out[i + k] = static_cast<uint8>(blended<uint32>(pixels[i + k], factor, pattern[k]));
  }
}

SEG_HD void paint_pixel(const OverlayJob& job, int label, uint32 level, uint8* out) {
  for (int c = 0; c < 3; ++c) {
    out[c] = static_cast<uint8>(blended<uint32>(level, job.factors[label], job.colors[3 * label + c]));
  }
}

void overlay(const OverlayJob& job, int begin, int end) {
  for (int y = begin; y < end; ++y) {
    uint8* out = job.out + y * job.out_row_bytes;
    const uint8* pixels = job.pixels ? job.pixels + y * job.row_bytes : nullptr;
    if (pixels && job.channels == 3) {
      for (int x = 0, next; x < job.width; x = next) {
        const int label = class_at(job, y, x);
        for (next = x + 1; next < job.width && class_at(job, y, next) == label;) ++next;
        paint_run(job, label, pixels + 3 * x, out + 3 * x, next - x);
      }
    } else {
      for (int x = 0; x < job.width; ++x) paint_pixel(job, class_at(job, y, x), pixels ? pixels[x] : 0, out + 3 * x);
    }
  }
}

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
