// plans.h: helpers shared by the plans of all steps.
#pragma once

#include <algorithm>
#include <vector>

#include "rows/jobs.h"
#include "seginfer/view.h"

namespace seginfer {

constexpr int kPixelsPerPart = 1 << 14;  // smaller parts take less time than waking a thread

// Copies (taps, positions) values into rows of positions + kSlack values, since kernels load whole vectors.
template <class T>
std::vector<T> with_slack(const std::vector<T>& values, int taps, int positions) {
  if (values.empty()) return {};
  const int64_t stride = positions + kSlack;
  std::vector<T> wide(static_cast<size_t>(taps * stride));
  for (int64_t t = 0; t < taps; ++t) {
    std::copy_n(values.begin() + t * positions, positions, wide.begin() + t * stride);
  }
  return wide;
}

// Rows that threads write must not overlap.
template <class T>
void check_plane(const PlaneView<T>& plane, int64_t columns, const char* what) {
  SEG_REQUIRE(plane.data && plane.row_stride >= columns,
              std::string(what) + " must have rows of at least " + std::to_string(columns) + " values, got " +
                  (plane.data ? "rows " + std::to_string(plane.row_stride) + " values apart" : "no memory"));
}

}  // namespace seginfer
