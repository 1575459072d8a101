// yuv.h: matrices and ranges of YUV images. Same results as seginfer/_reference/yuv.py.
#pragma once

#include <cmath>

#include "error.h"
#include "kernels/yuv_to_rgb.h"

namespace seginfer {

enum class YuvMatrix { bt601, bt709, bt2020 };  // bt2020 is that of non-constant luminance
enum class YuvRange { limited, full };          // limited: luma 16..235; full: 0..255, as JPEG

// Source: ITU-R BT.601-7, BT.709-6, BT.2020-2. ITU-T H.273 has the formula for all of them.
inline YuvToRgb yuv_to_rgb(YuvMatrix matrix, YuvRange range) {
  const int at = static_cast<int>(matrix);
  SEG_REQUIRE(at >= 0 && at <= 2 && (range == YuvRange::limited || range == YuvRange::full),
              "expected a matrix and a range of YuvMatrix and YuvRange");
  // OpenCV's, from three decimals, so that images equal those of cv2.cvtColor. At most one level off the formula.
  if (matrix == YuvMatrix::bt601 && range == YuvRange::limited) return {16, 1220542, 1673527, 409993, 852492, 2116026};
  constexpr double kRed[] = {0.299, 0.2126, 0.2627}, kBlue[] = {0.114, 0.0722, 0.0593};
  const double red = kRed[at], blue = kBlue[at], green = 1 - red - blue;
  const bool is_full = range == YuvRange::full;
  const double luma = is_full ? 1.0 : 255.0 / 219, chroma = is_full ? 1.0 : 255.0 / 224;
  const double red_v = 2 * (1 - red) * chroma, blue_u = 2 * (1 - blue) * chroma;
  const auto fixed = [](double factor) { return static_cast<int>(std::lround(factor * (1 << 20))); };
  return {is_full ? 0 : 16,           fixed(luma),  fixed(red_v), fixed(blue_u * blue / green),
          fixed(red_v * red / green), fixed(blue_u)};
}

}  // namespace seginfer
