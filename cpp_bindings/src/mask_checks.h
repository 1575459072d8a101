// mask_checks.h: checks of what a plan of the mask step is made for, and of the arrays that a call brings.
#pragma once

#include <algorithm>
#include <string>

#include "plans.h"
#include "seginfer/cpu.h"

namespace seginfer {

inline bool is_inside(int64_t first, int64_t count, int64_t low, int64_t extent) {
  return count >= 0 && first >= low && first + count <= low + extent;
}

inline void check_window(const Geometry& whole, const OutputWindow& window, Rect visible) {
  check_size(window.whole, "the output");
  check_size(window.size, "the output's window");
  check_offset(window.corner, "the window's corner");
  const Rect seen = whole.visible();
  SEG_REQUIRE(is_inside(visible.top, visible.height, seen.top, seen.height) &&
                  is_inside(visible.left, visible.width, seen.left, seen.width),
              "the visible pixels must be " + size_text(seen.height, seen.width) + " from " + std::to_string(seen.top) +
                  ", " + std::to_string(seen.left) + " on, or a part of them, got " +
                  size_text(visible.height, visible.width) + " from " + std::to_string(visible.top) + ", " +
                  std::to_string(visible.left) + " on");
}

inline void check_rule(const MaskRule& rule, int channels) {
  SEG_REQUIRE(channels >= 1 && channels <= 65535, "expected 1..65535 channels, got " + std::to_string(channels));
  SEG_REQUIRE(rule.decision != Decision::threshold || channels == 1, "a threshold decides one channel");
  SEG_REQUIRE(rule.upsampling == 0 || rule.upsampling >= 2,
              "the upsampling factor must be at least 2, or 0 for none, got " + std::to_string(rule.upsampling));
  const size_t labels = rule.decision == Decision::argmax ? static_cast<size_t>(channels) : 2;
  SEG_REQUIRE(rule.table.empty() || rule.table.size() == labels,
              "the table must hold " + std::to_string(labels) + " values, got " + std::to_string(rule.table.size()));
}

inline void check_logits(const LogitsView& logits, int channels, Size size) {
  SEG_REQUIRE(logits.data && logits.channels == channels && logits.size.height == size.height &&
                  logits.size.width == size.width && (logits.dtype == DType::float32 || logits.dtype == DType::float16),
              "expected logits of " + std::to_string(channels) + " x " + size_text(size.height, size.width) + ", got " +
                  std::to_string(logits.channels) + " x " + size_text(logits.size.height, logits.size.width));
  SEG_REQUIRE(logits.channel_stride >= 0 && logits.row_stride >= 0 && logits.column_stride >= 0,
              "logits must not have negative strides");
}

// End of the columns that a call writes.
inline int64_t right_of(Rect visible) { return visible.width ? static_cast<int64_t>(visible.left) + visible.width : 0; }

template <class T>
inline void check_result(const PlaneView<T>& first, int64_t plane_stride, int planes, Rect visible, const char* what) {
  check_plane(first, right_of(visible), what);
  SEG_REQUIRE(planes == 1 || plane_stride >= (visible.height - 1) * first.row_stride + visible.width,
              std::string(what) + " must not have overlapping planes, got planes " + std::to_string(plane_stride) +
                  " values apart");
}

inline void check_results(const MaskViews& out, int channels, const MaskRule& rule, Rect visible) {
  SEG_REQUIRE(out.mask_bytes == 1 || out.mask_bytes == 2, "a mask is uint8 or uint16");
  const int planes = rule.decision == Decision::each ? channels : 1;
  check_result(out.mask, out.mask_plane_stride, planes, visible, "the mask");
  if (out.confidence.data) check_result(out.confidence, out.confidence_plane_stride, planes, visible, "the confidence");
  if (out.margin.data) check_result(out.margin, out.margin_plane_stride, planes, visible, "the margin");
  const int labels = rule.decision == Decision::argmax ? channels : 2;
  const int largest = rule.table.empty() ? labels - 1 : *std::max_element(rule.table.begin(), rule.table.end());
  SEG_REQUIRE(out.mask_bytes == 2 || largest <= 255, "mask values above 255 need a uint16 mask");
}

}  // namespace seginfer
