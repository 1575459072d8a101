// yuv_to_rgb.h: coefficients of YUV to RGB, for the CPU, nvcc and NVRTC. Includes nothing.
#pragma once

namespace seginfer {

// In 20-bit fixed point. Luma below black counts as black.
struct YuvToRgb {
  int black, luma, red_v, green_u, green_v, blue_u;
};

}  // namespace seginfer
