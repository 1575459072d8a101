// taps.h: sampling positions and weights for resizing images and for interpolating logits. Same results as
// seginfer/_reference/taps.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "geometry.h"

namespace seginfer {

// K source indices and K weights for each of n positions, (K, n). At most one kind of weights is filled: float32, or
// fixed point for OpenCV (11 bits) and Pillow (22 bits).
struct Taps {
  int count = 0;      // K
  int positions = 0;  // n
  std::vector<int> index;
  std::vector<float> weight;
  std::vector<int> fixed;

  Taps() = default;
  Taps(int taps, int n) : count(taps), positions(n), index(static_cast<size_t>(taps) * static_cast<size_t>(n)) {}

  int& at(int tap, int i) { return index[offset(tap, i)]; }
  int at(int tap, int i) const { return index[offset(tap, i)]; }
  float& weight_at(int tap, int i) { return weight[offset(tap, i)]; }
  float weight_at(int tap, int i) const { return weight[offset(tap, i)]; }
  size_t offset(int tap, int i) const { return size_t(tap) * size_t(positions) + size_t(i); }
};

// Two taps at scale * (i + centre) - centre + shift for i in first .. first + n, kept inside [low, high].
template <class Real>
Taps linear_taps_at(Span visible, Real scale, Real centre, Real shift, int64_t low, int64_t high, int64_t start) {
  Taps taps(2, visible.count);
  taps.weight.resize(taps.index.size());
  for (int i = 0; i < visible.count; ++i) {
    Real position = scale * (static_cast<Real>(i + visible.first) + centre) - centre + shift;
    position = std::max(position, static_cast<Real>(low));
    const Real floor = std::min(std::floor(position), static_cast<Real>(high));
    const int64_t first = std::min(std::max(static_cast<int64_t>(floor), low), high);  // float32 may round the limits
    const Real fraction = std::min(std::max(position - floor, Real(0)), Real(1));
    const float second = static_cast<float>(fraction);
    taps.at(0, i) = static_cast<int>(first + start);
    taps.at(1, i) = static_cast<int>(std::min(first + 1, high) + start);
    taps.weight_at(0, i) = 1.0f - second;
    taps.weight_at(1, i) = second;
  }
  return taps;
}

// Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False), computed in float32.
inline Taps torch_taps(int n, int m) {
  check_samples(n, m);
  const float scale = static_cast<float>(static_cast<double>(n) / m);
  return linear_taps_at<float>({0, m}, scale, 0.5f, 0.0f, 0, n - 1, 0);
}

// Beyond the border, OpenCV drops the weight of a column but not of a row.
// Source: OpenCV imgproc/src/resize.cpp.
inline Taps opencv_taps(int n, int m, bool is_column_axis) {
  check_samples(n, m);
  Taps taps(2, m);
  taps.fixed.resize(taps.index.size());
  const double scale = 1.0 / (static_cast<double>(m) / n);
  for (int i = 0; i < m; ++i) {
    const float position = static_cast<float>((i + 0.5) * scale - 0.5);
    const float floor = std::floor(position);
    const int first = static_cast<int>(floor);
    float second = position - floor;
    if (is_column_axis && (first < 0 || first >= n - 1)) second = 0.0f;
    taps.at(0, i) = std::min(std::max(first, 0), n - 1);
    taps.at(1, i) = std::min(std::max(first + 1, 0), n - 1);
    taps.fixed[taps.offset(0, i)] = static_cast<int>(std::nearbyint((1.0f - second) * 2048.0f));
    taps.fixed[taps.offset(1, i)] = static_cast<int>(std::nearbyint(second * 2048.0f));
  }
  return taps;
}

// Triangle filter, widened when the image shrinks; unused weights are zero.
// Source: Pillow's precompute_coeffs with the bilinear filter, in float64; torch's antialias in float32.
template <class Real>
Taps triangle_taps(int n, int m) {
  check_samples(n, m);
  const Real scale = static_cast<Real>(static_cast<double>(n) / m), half = Real(0.5);
  const Real support = std::max(scale, Real(1)), inverse = Real(1) / support;
  std::vector<int> first(static_cast<size_t>(m)), count(static_cast<size_t>(m));
  int most = 0;
  for (int i = 0; i < m; ++i) {
    const auto k = static_cast<size_t>(i);
    const Real centre = scale * (static_cast<Real>(i) + half);
    first[k] = std::max(static_cast<int>(centre - support + half), 0);
    count[k] = std::min(static_cast<int>(centre + support + half), n) - first[k];
    most = std::max(most, count[k]);
  }
  SEG_REQUIRE(most >= 1 && static_cast<int64_t>(most) * m <= std::numeric_limits<int>::max(),
              "an antialiased resize of " + std::to_string(n) + " to " + std::to_string(m) + " samples is too large");
  Taps taps(most, m);
  std::vector<Real> weights(static_cast<size_t>(most));
  constexpr bool is_fixed = sizeof(Real) == sizeof(double);
  (is_fixed ? void(taps.fixed.resize(taps.index.size())) : taps.weight.resize(taps.index.size()));
  for (int i = 0; i < m; ++i) {
    const auto k = static_cast<size_t>(i);
    const Real centre = scale * (static_cast<Real>(i) + half);
    Real sum = 0;
    for (int t = 0; t < most; ++t) {
      const Real distance = static_cast<Real>(first[k] + t) - centre + half;
      const Real weight = t < count[k] ? std::max(Real(0), Real(1) - std::abs(distance * inverse)) : Real(0);
      weights[static_cast<size_t>(t)] = weight;
      sum = sum + weight;
    }
    for (int t = 0; t < most; ++t) {
      const Real weight = weights[static_cast<size_t>(t)] / sum;
      taps.at(t, i) = std::min(first[k] + t, n - 1);
      if (is_fixed) {
        taps.fixed[taps.offset(t, i)] = static_cast<int>(static_cast<double>(weight) * (1 << 22) + 0.5);
      } else {
        taps.weight_at(t, i) = static_cast<float>(weight);
      }
    }
  }
  return taps;
}

// Source: torch.nn.functional.interpolate(mode="nearest"): floor of the float32 position.
inline Taps nearest_taps(int n, int m) {
  check_samples(n, m);
  Taps taps(1, m);
  const float scale = static_cast<float>(static_cast<double>(n) / m);
  for (int i = 0; i < m; ++i) taps.at(0, i) = std::min(static_cast<int>(static_cast<float>(i) * scale), n - 1);
  return taps;
}

// Sample i of the input is sample i - offset of the image, mirrored without repeating the border.
inline Taps mirrored_taps(int n, int m, int offset) {
  check_samples(n, m);
  Taps taps(1, m);
  const int64_t period = std::max<int64_t>(1, 2 * (static_cast<int64_t>(n) - 1));
  for (int i = 0; i < m; ++i) {
    const int64_t position = i - static_cast<int64_t>(offset);
    const int64_t index = position - floor_div(position, period) * period;
    taps.at(0, i) = static_cast<int>(std::min(index, period - index));
  }
  return taps;
}

inline Taps part_of(const Taps& taps, Span part) {
  check_part(part, {0, taps.positions});
  Taps result(taps.count, part.count);
  if (!taps.weight.empty()) result.weight.resize(result.index.size());
  if (!taps.fixed.empty()) result.fixed.resize(result.index.size());
  for (int t = 0; t < taps.count; ++t) {
    for (int i = 0; i < part.count; ++i) {
      const size_t from = taps.offset(t, part.first + i), to = result.offset(t, i);
      result.index[to] = taps.index[from];
      if (!taps.weight.empty()) result.weight[to] = taps.weight[from];
      if (!taps.fixed.empty()) result.fixed[to] = taps.fixed[from];
    }
  }
  return result;
}

// ------------------------------------------------------------------------------------------------ masks

// Whether the content starts and ends on cell borders along one axis, so that cropped logits show the content only.
inline bool is_aligned(const Axis& axis, int64_t logits, bool align_corners) {
  if (axis.offset < 0 || axis.offset + axis.resized > axis.input) return false;
  if (align_corners) return axis.input == logits || axis.input == axis.resized;
  return axis.offset * logits % axis.input == 0 && axis.resized * logits % axis.input == 0;
}

// Taps of the visible image pixels into the logits. Positions are float32 where both axes are aligned, as torch
// computes them on cropped logits, and float64 elsewhere, where torch has no such operation.
template <class Real>
Taps mask_taps(const Axis& axis, int logits, Span visible, bool align_corners) {
  check_size({logits, 1}, "the output");
  check_part(visible, visible_of(axis));
  int64_t cells = logits, image = axis.image, resized = axis.resized, input = axis.input;
  if (align_corners) {
    image -= 1, resized -= 1, cells -= 1;
    input = std::max<int64_t>(input - 1, 1);
  }
  const double scale = image ? static_cast<double>(resized * cells) / static_cast<double>(image * input) : 0.0;
  const int64_t start = floor_div(axis.offset * cells, input);
  const double shift =
      static_cast<double>(axis.offset * cells) / static_cast<double>(input) - static_cast<double>(start);
  const int64_t end = ceil_div((axis.offset + resized) * cells, input) - (align_corners ? 0 : 1);
  const int64_t low = std::max<int64_t>(0, start) - start, high = std::min<int64_t>(logits - 1, end) - start;
  return linear_taps_at<Real>(visible, static_cast<Real>(scale), align_corners ? Real(0) : Real(0.5),
                              static_cast<Real>(shift), low, high, start);
}

// Source: torch.nn.functional.interpolate(mode="bilinear") with either align_corners, computed in float32.
inline Taps upsampling_taps(int n, int m, bool align_corners) {
  check_samples(n, m);
  SEG_REQUIRE(m >= std::max(n, align_corners ? 2 : 1),
              "an upsampling yields more samples, got " + std::to_string(n) + " to " + std::to_string(m));
  if (!align_corners) return torch_taps(n, m);
  const float scale = static_cast<float>(static_cast<double>(n - 1) / (m - 1));
  return linear_taps_at<float>({0, m}, scale, 0.0f, 0.0f, 0, n - 1, 0);
}

// Taps equal to `inner` followed by `outer`: three neighbouring samples.
inline Taps compose(const Taps& outer, const Taps& inner) {
  Taps taps(3, outer.positions);
  taps.weight.resize(taps.index.size());
  int last = 0;
  for (const int index : inner.index) last = std::max(last, index);
  for (const int index : outer.index) {
    SEG_REQUIRE(index >= 0 && index < inner.positions, "the outer taps read positions that the inner ones lack");
  }
  for (int i = 0; i < outer.positions; ++i) {
    const int first = inner.at(0, outer.at(0, i));
    for (int o = 0; o < 2; ++o) {
      const int between = outer.at(o, i);
      for (int s = 0; s < 2; ++s) {
        const int tap = inner.at(s, between) - first;
        const float product = outer.weight_at(o, i) * inner.weight_at(s, between);
        if (tap >= 0 && tap < 3) taps.weight_at(tap, i) += product;
      }
    }
    for (int t = 0; t < 3; ++t) taps.at(t, i) = std::min(first + t, last);
  }
  return taps;
}

// The label cell that holds the centre of each visible pixel.
inline Taps label_taps(const Axis& axis, int labels, Span visible) {
  check_size({labels, 1}, "the output");
  check_part(visible, visible_of(axis));
  Taps taps(1, visible.count);
  for (int i = 0; i < visible.count; ++i) {
    const int64_t twice = 2 * static_cast<int64_t>(i + visible.first) + 1;
    const int64_t cell =
        floor_div(twice * axis.resized * labels + 2 * axis.offset * labels * axis.image, 2 * axis.image * axis.input);
    taps.at(0, i) = static_cast<int>(std::min<int64_t>(std::max<int64_t>(cell, 0), labels - 1));
  }
  return taps;
}

// Moves taps into the `cells` samples from `first` on. Taps outside have no weight, so they are clamped.
inline void move_into_window(Taps& taps, int first, int cells) {
  check_size({cells, 1}, "the window");
  for (int& index : taps.index) {
    index = static_cast<int>(std::min<int64_t>(std::max<int64_t>(int64_t{index} - first, 0), cells - 1));
  }
}

}  // namespace seginfer
