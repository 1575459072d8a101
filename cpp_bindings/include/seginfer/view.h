// view.h: images, tensors and planes that somebody else owns: pointers, extents and strides.
#pragma once

#include <cstdint>

#include "geometry.h"
#include "kernels/enums.h"

namespace seginfer {

// How a camera or a decoder lays out an image. nv12 is a plane of luma and one of half its size with U and V in turn;
// yuyv is Y U Y V for two pixels. Both are BT.601, limited range.
enum class PixelFormat { rgb, bgr, rgba, bgra, gray, nv12, yuyv };

struct ImageView {
  const uint8_t* data = nullptr;
  int64_t row_bytes = 0;
  Size size;
  PixelFormat format = PixelFormat::rgb;
  const uint8_t* chroma = nullptr;  // nv12 only
  int64_t chroma_row_bytes = 0;
};

// One image's values in a batch or in an output; strides count elements. NCHW has a column stride of 1, NHWC one of
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

using TensorView = BatchView<void>;        // what a network reads, written by preprocessing
using LogitsView = BatchView<const void>;  // what it yields, float32 or float16

// A mask or a map of the whole image; T is uint8_t, uint16_t or float. The row stride counts elements.
template <class T>
struct PlaneView {
  T* data = nullptr;
  int64_t row_stride = 0;
};

}  // namespace seginfer
