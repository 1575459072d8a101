// filters.h: resampling filters for one pixel, as sums along a row and then across rows. Includes only pixel.h.
#pragma once

#include "pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

// Each filter turns a row's pixels into cells, and cells of several rows into a grey level.
struct PickFilter {
  using Cell = float;
  static SEG_HD Cell row_start() { return 0; }
  static SEG_HD Cell add_pixel(Cell, int pixel, const void*, int64) { return static_cast<float>(pixel); }
  static SEG_HD Cell row_end(Cell sum) { return sum; }
  static SEG_HD Cell column_start() { return 0; }
  static SEG_HD Cell add_cell(Cell, Cell cell, const void*, int64) { return cell; }
  static SEG_HD float column_end(Cell sum) { return sum; }
};

struct WeightedFilter {
  using Cell = float;
  static SEG_HD float weight(const void* weights, int64 at) { return loaded(static_cast<const float*>(weights) + at); }
  static SEG_HD Cell row_start() { return 0; }
  static SEG_HD Cell add_pixel(Cell sum, int pixel, const void* weights, int64 at) {
    return weighted(sum, static_cast<float>(pixel), weight(weights, at));
  }
  static SEG_HD Cell row_end(Cell sum) { return sum; }
  static SEG_HD Cell column_start() { return 0; }
  static SEG_HD Cell add_cell(Cell sum, Cell cell, const void* weights, int64 at) {
    return weighted(sum, cell, weight(weights, at));
  }
  static SEG_HD float column_end(Cell sum) { return sum; }
};

struct FixedFilter {
  using Cell = int;
  static SEG_HD int weight(const void* weights, int64 at) { return loaded(static_cast<const int*>(weights) + at); }
  static SEG_HD Cell add_pixel(Cell sum, int pixel, const void* weights, int64 at) {
    return weighted(sum, pixel, weight(weights, at));
  }
};

struct OpenCVFilter : FixedFilter {
  static SEG_HD Cell row_start() { return 0; }
  static SEG_HD Cell row_end(Cell sum) { return opencv_row(sum); }
  static SEG_HD Cell column_start() { return 0; }
  static SEG_HD Cell add_cell(Cell sum, Cell cell, const void* weights, int64 at) {
    return sum + opencv_scaled(cell, weight(weights, at));
  }
  static SEG_HD float column_end(Cell sum) { return static_cast<float>(opencv_level(sum)); }
};

struct PillowFilter : FixedFilter {
  static SEG_HD Cell row_start() { return kPillowHalf; }
  static SEG_HD Cell row_end(Cell sum) { return pillow_level(sum); }
  static SEG_HD Cell column_start() { return kPillowHalf; }
  static SEG_HD Cell add_cell(Cell sum, Cell cell, const void* weights, int64 at) {
    return weighted(sum, cell, weight(weights, at));
  }
  static SEG_HD float column_end(Cell sum) { return static_cast<float>(pillow_level(sum)); }
};

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
