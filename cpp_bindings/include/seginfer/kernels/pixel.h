// pixel.h: arithmetic of one pixel for the CPU, nvcc and NVRTC, rounded as in seginfer/_reference. Includes a struct
// only; compile it with contraction off (-ffp-contract=off, nvcc -fmad=false, NVRTC --fmad=false).
#pragma once

#include "yuv_to_rgb.h"

#if defined(__CUDACC__)
#define SEG_HD __host__ __device__ __forceinline__
#else
#define SEG_HD inline __attribute__((always_inline))
#endif

#if defined(__CUDA_ARCH__)
#define SEG_UNROLL _Pragma("unroll")
#define SEG_NO_UNROLL _Pragma("unroll 1")
#else
#define SEG_UNROLL
#define SEG_NO_UNROLL
#endif

// Marks a block of braces that a thread may pass several times, or not at all, for tests that count instructions.
#ifndef SEG_TRIP
#define SEG_TRIP static_cast<void>(0)
#define SEG_TRIP_OF(copies) static_cast<void>(0)  // in a loop that the compiler unrolls
#endif

// The CPU library compiles this header once per instruction set. A namespace for each keeps the linker from using, say,
// the AVX-512 copy of a function on a processor without AVX-512.
#ifndef SEGINFER_TARGET
#define SEGINFER_TARGET portable
#endif

namespace seginfer {
inline namespace SEGINFER_TARGET {

// In all templates, V is float and I is int for one pixel, or vectors of them for several pixels.

using int64 = long long;
using uint8 = unsigned char;
using uint16 = unsigned short;
using uint32 = unsigned int;

// Reads a value that no thread writes during the kernel.
template <class T>
SEG_HD T loaded(const T* from) {
#if defined(__CUDA_ARCH__)
  return __ldg(from);
#else
  return *from;
#endif
}

// ------------------------------------------------------------------------------------------------------- resampling

// Adds one term to a weighted sum. Terms are added in order, and each is rounded.
template <class V>
SEG_HD V weighted(V sum, V value, V weight) {
  return sum + value * weight;
}

// cv2.resize(INTER_LINEAR) on uint8, with 11-bit weights. The weighted sum of a row is kept at 2^7 times the grey
// level. Each of the two rows is then scaled by its weight, and their sum, at 2^2 times the level, is rounded. Source:
// OpenCV imgproc/src/resize.cpp.
template <class I>
SEG_HD I opencv_row(I sum) {
  return sum >> 4;
}

template <class I>
SEG_HD I opencv_scaled(I row, I weight) {
  return row * weight >> 16;
}

template <class I>
SEG_HD I opencv_level(I sum) {
  return (sum + 2) >> 2;
}

// Pillow's BILINEAR on uint8: 22-bit weights, rounded once per pass.
// Source: Pillow src/libImaging/Resample.c.
constexpr int kPillowHalf = 1 << 21;

template <class I>
SEG_HD I clamp_level(I level) {
  level = level < 0 ? I{} : level;
  return level > 255 ? I{} + 255 : level;
}

template <class I>
SEG_HD I pillow_level(I sum) {
  return clamp_level(sum >> 22);
}

// ---------------------------------------------------------------------------------------------------- pixel values

// (pixel * scale - mean) / std as one multiplication and one addition, each rounded.
template <class V>
SEG_HD V normalized(V pixel, V gain, V bias) {
  return pixel * gain + bias;
}

// Source: OpenCV imgproc/src/color_yuv for the rounding; yuv.h for the coefficients.
template <class I>
SEG_HD void rgb_from_yuv(I y, I u, I v, const YuvToRgb& k, I& red, I& green, I& blue) {
  I luma = y - k.black;
  luma = luma < 0 ? I{} : luma;
  luma = luma * k.luma + (1 << 19);
  u = u - 128;
  v = v - 128;
  red = clamp_level((luma + v * k.red_v) >> 20);
  green = clamp_level((luma - v * k.green_v - u * k.green_u) >> 20);
  blue = clamp_level((luma + u * k.blue_u) >> 20);
}

// Blends a class colour over a pixel. The factor is 256 minus the weight of the colour in 256ths, and `color` is the
// colour times its weight. A factor of 256 with colour 0 leaves the pixel unchanged.
template <class I>
SEG_HD I blended(I pixel, I factor, I color) {
  return (pixel * factor + color + 128) >> 8;
}

SEG_HD float float_from_bits(uint32 bits) {
  union {
    uint32 bits;
    float value;
  } both = {bits};
  return both.value;
}

SEG_HD uint32 bits_from_float(float value) {
  union {
    float value;
    uint32 bits;
  } both = {value};
  return both.bits;
}

// IEEE binary16 to binary32, exactly. No subnormal float32 occurs, so flush-to-zero modes change nothing.
SEG_HD float float_from_half(uint16 half) {
#if defined(__CUDA_ARCH__)
  float converted;
  asm("cvt.f32.f16 %0, %1;" : "=f"(converted) : "h"(half));
  return converted;
#else
  const uint32 magnitude = (half & 0x7fffu) << 13;
  const uint32 sign = (half & 0x8000u) << 16;
  const float normal = float_from_bits(magnitude + (112u << 23));
  const float subnormal = float_from_bits(magnitude + (113u << 23)) - float_from_bits(113u << 23);
  const float special = float_from_bits(magnitude + (224u << 23));
  const float value = magnitude < 0x00800000u ? subnormal : magnitude < 0x0f800000u ? normal : special;
  return float_from_bits(bits_from_float(value) | sign);
#endif
}

// IEEE binary32 to binary16, to nearest even; overflow becomes infinite.
SEG_HD uint16 half_from_float(float value) {
#if defined(__CUDA_ARCH__)
  uint16 converted;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(converted) : "f"(value));
  return converted;
#else
  const uint32 bits = bits_from_float(value);
  const uint32 magnitude = bits & 0x7fffffffu;
  const uint32 sign = (bits >> 16) & 0x8000u;
  const uint32 normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32 subnormal = bits_from_float(float_from_bits(magnitude) + 0.5f) - bits_from_float(0.5f);
  const uint32 special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32 half = magnitude >= 0x47800000u ? special : magnitude < 0x38800000u ? subnormal : normal;
  return static_cast<uint16>(half | sign);
#endif
}

// ------------------------------------------------------------------------------------------------------------ masks

// Label of a pixel whose surrounding cells differ. There are at most 65535 classes, so no class has this number.
constexpr uint16 kMixed = 0xffff;

// Weighted sum of neighbours. Rounding cannot reverse an order that all neighbours of two classes share.
template <class V>
SEG_HD V interpolated(V first, V first_weight, V second, V second_weight) {
  return first * first_weight + second * second_weight;
}

template <class V>
SEG_HD V interpolated(V first, V first_weight, V second, V second_weight, V third, V third_weight) {
  return first * first_weight + second * second_weight + third * third_weight;
}

// exp(x) for x <= 0, within 2 units in the last place; 0 below the smallest normal number.
// Source: Cody and Waite's reduction by ln 2 in two parts; a Taylor polynomial on |r| <= ln(2) / 2.
template <class V, class I>
SEG_HD V exp_of_negative(V x) {
  const V floor_of_range = V{} - 87.0f;
  const auto is_tiny = x < floor_of_range;
  x = is_tiny ? floor_of_range : x;
  const V shift = V{} + 12582912.0f;  // 1.5 * 2^23: adding it leaves a whole number in the low bits
  const V shifted = x * 1.44269504f + shift;
  const V n = shifted - shift;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V sum = V{} + 1.98412698e-4f;
  sum = sum * r + 1.38888889e-3f;
  sum = sum * r + 8.33333333e-3f;
  sum = sum * r + 4.16666667e-2f;
  sum = sum * r + 1.66666667e-1f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  union {
    V value;
    I bits;
  } power = {shifted};
  power.bits = ((power.bits - 0x4b400000) + 127) << 23;
  const V value = sum * power.value;
  return is_tiny ? V{} : value;
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
