// view.h: pointers, sizes and strides of images, tensors and planes. Views own no memory.
#pragma once

#include <cstdint>

#include "geometry.h"
#include "kernels/enums.h"

namespace seginfer {

// Pixel format of a camera or decoder. nv12 has a luma plane and a plane of half its size with alternating U and V,
// nv21 the same with V and U, and i420 planes of a quarter of its size for each. yuyv stores two pixels as Y U Y V, and
// uyvy as U Y V Y. PixelRule has their matrix and range.
enum class PixelFormat { rgb, bgr, rgba, bgra, gray, nv12, nv21, i420, yuyv, uyvy };

inline bool is_yuv_420(PixelFormat format) {
  return format == PixelFormat::nv12 || format == PixelFormat::nv21 || format == PixelFormat::i420;
}

inline bool is_yuv_422(PixelFormat format) { return format == PixelFormat::yuyv || format == PixelFormat::uyvy; }

struct ImageView {
  const uint8_t* data = nullptr;
  int64_t row_bytes = 0;
  Size size;
  PixelFormat format = PixelFormat::rgb;
  const uint8_t* chroma = nullptr;  // nv12, nv21: the pairs; i420: U
  int64_t chroma_row_bytes = 0;
  const uint8_t* chroma_v = nullptr;  // i420: V
};

// Values of one image in a batch or in an output. Strides count elements. NCHW has a column stride of 1, NHWC of
// `channels`.
template <class Data>
struct BatchView {
  Data* data = nullptr;
  DType dtype = DType::float32;
  int channels = 0;
  Size size;
  int64_t channel_stride = 0;
  int64_t row_stride = 0;
  int64_t column_stride = 1;
};

using TensorView = BatchView<void>;        // network input: float32, float16 or uint8
using LogitsView = BatchView<const void>;  // network output: float32 or float16

// A mask or a map of the whole image; T is uint8_t, uint16_t or float. The row stride counts elements.
template <class T>
struct PlaneView {
  T* data = nullptr;
  int64_t row_stride = 0;
};

}  // namespace seginfer
