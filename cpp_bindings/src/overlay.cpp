// overlay.cpp: palettes, and overlays of class colours on images.
#include "plans.h"
#include "targets.h"
#include "seginfer/cpu.h"

namespace seginfer {

Palette::Palette(const std::vector<uint8_t>& rgb, int weight) : classes(static_cast<int>(rgb.size() / 3)) {
  SEG_REQUIRE(rgb.size() % 3 == 0 && rgb.size() / 3 <= 65535,
              "expected three levels per class, for at most 65535 classes");
  SEG_REQUIRE(weight >= 0 && weight <= 256, "the weight of colours must be 0..256, got " + std::to_string(weight));
  for (size_t i = 0; i <= rgb.size() / 3; ++i) {
    const bool is_painted = 3 * i < rgb.size() && (rgb[3 * i] || rgb[3 * i + 1] || rgb[3 * i + 2]);
    factors.push_back(static_cast<uint16_t>(is_painted ? 256 - weight : 256));
    for (size_t c = 0; c < 3; ++c) {
      colors.push_back(static_cast<uint16_t>(is_painted ? rgb[3 * i + c] * weight : 0));
    }
  }
}

template <class T>
void overlay(const ImageView& image, PlaneView<const T> mask, const Palette& palette, PlaneView<uint8_t> out,
             Threads& threads) {
  check_size(image.size, "the image");
  const bool is_gray = image.format == PixelFormat::gray;
  SEG_REQUIRE(is_gray || image.format == PixelFormat::rgb || image.format == PixelFormat::bgr,
              "colours go over rgb, bgr or gray images");
  SEG_REQUIRE(mask.data, "an overlay needs a mask, got no memory");
  check_plane(out, 3 * static_cast<int64_t>(image.size.width), "the overlay");
  OverlayJob job{};
  job.pixels = image.data, job.row_bytes = image.row_bytes, job.channels = is_gray ? 1 : 3;
  job.mask = mask.data, job.mask_bytes = sizeof(T), job.mask_row_stride = mask.row_stride;
  job.height = image.size.height, job.width = image.size.width;
  job.classes = palette.classes, job.factors = palette.factors.data(), job.colors = palette.colors.data();
  job.out = out.data, job.out_row_bytes = out.row_stride;
  const Target& target = target_in_use();
  threads.for_each_part(job.height, kPixelsPerPart / job.width,
                        [&](int begin, int end) { target.overlay(job, begin, end); });
}

template void overlay(const ImageView&, PlaneView<const uint8_t>, const Palette&, PlaneView<uint8_t>, Threads&);
template void overlay(const ImageView&, PlaneView<const uint16_t>, const Palette&, PlaneView<uint8_t>, Threads&);

}  // namespace seginfer
