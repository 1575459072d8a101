// arrays.h: checks NumPy arrays and makes views of them. Arrays are never converted or copied.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string>

#include "seginfer/view.h"

namespace seginfer::python {

namespace nb = nanobind;

using InArray = nb::ndarray<nb::ro, nb::device::cpu>;
using OutArray = nb::ndarray<nb::device::cpu>;

template <class Array>
bool has_type(const Array& array, nb::dlpack::dtype_code code, int bits) {
  return array.dtype().code == static_cast<uint8_t>(code) && array.dtype().bits == bits && array.dtype().lanes == 1;
}

template <class Array>
bool is_unsigned(const Array& array, int bits) {
  return has_type(array, nb::dlpack::dtype_code::UInt, bits);
}

template <class Array>
bool is_float(const Array& array, int bits) {
  return has_type(array, nb::dlpack::dtype_code::Float, bits);
}

// Text for messages, such as ", got uint8 (480, 640, 3)".
template <class Array>
std::string got_text(const Array& array) {
  const auto code = static_cast<nb::dlpack::dtype_code>(array.dtype().code);
  std::string text = code == nb::dlpack::dtype_code::UInt    ? "uint"
                     : code == nb::dlpack::dtype_code::Int   ? "int"
                     : code == nb::dlpack::dtype_code::Float ? "float"
                                                             : "type " + std::to_string(array.dtype().code) + " of ";
  text += std::to_string(array.dtype().bits) + " (";
  for (size_t axis = 0; axis < array.ndim(); ++axis) text += (axis ? ", " : "") + std::to_string(array.shape(axis));
  return ", got " + text + ")";
}

template <class Array>
int side(const Array& array, size_t axis) {
  SEG_REQUIRE(array.shape(axis) <= static_cast<size_t>(kMaxSide),
              "arrays must have sides of at most " + std::to_string(kMaxSide) + got_text(array) + "; cut them");
  return static_cast<int>(array.shape(axis));
}

// The stride of an axis; `expected` for axes of one element, whose stride NumPy leaves undefined.
template <class Array>
int64_t stride(const Array& array, size_t axis, int64_t expected) {
  return array.shape(axis) == 1 ? expected : array.stride(axis);
}

template <class Array>
void check_rank(const Array& array, size_t rank, const char* what) {
  SEG_REQUIRE(array.ndim() == rank,
              std::string(what) + " must have " + std::to_string(rank) + " axes" + got_text(array));
}

template <class Array>
void check_aligned(const Array& array, const char* what) {
  const auto size = static_cast<uintptr_t>(array.itemsize());
  SEG_REQUIRE(reinterpret_cast<uintptr_t>(array.data()) % size == 0,
              std::string(what) + " must be aligned to its values; copy it with numpy.array");
}

struct Bytes {
  uintptr_t begin, end;
};

template <class Array>
Bytes bytes_of(const Array& array) {
  if (array.size() == 0) return {0, 0};
  int64_t low = 0, high = static_cast<int64_t>(array.itemsize());
  for (size_t axis = 0; axis < array.ndim(); ++axis) {
    const int64_t reach =
        (static_cast<int64_t>(array.shape(axis)) - 1) * array.stride(axis) * static_cast<int64_t>(array.itemsize());
    (reach < 0 ? low : high) += reach;
  }
  const auto data = reinterpret_cast<uintptr_t>(array.data());
  return {data + static_cast<uintptr_t>(low), data + static_cast<uintptr_t>(high)};
}

template <class A, class B>
void check_apart(const A& a, const B& b, const char* what) {
  const Bytes one = bytes_of(a), other = bytes_of(b);
  SEG_REQUIRE(one.end <= other.begin || other.end <= one.begin,
              std::string(what) + " must not share memory; give each an array of its own");
}

inline ImageView image_from(const InArray& array, PixelFormat format) {
  SEG_REQUIRE(is_unsigned(array, 8), "the image must be uint8" + got_text(array) + "; give pixels of 0..255");
  const bool is_planar = format == PixelFormat::gray || is_yuv_420(format);
  check_rank(array, is_planar ? 2 : 3, "the image");
  const int64_t channels = is_planar                                                  ? 1
                           : is_yuv_422(format)                                       ? 2
                           : format == PixelFormat::rgb || format == PixelFormat::bgr ? 3
                                                                                      : 4;
  SEG_REQUIRE(is_planar || static_cast<int64_t>(array.shape(2)) == channels,
              "the image must have " + std::to_string(channels) + " channels last" + got_text(array));
  SEG_REQUIRE(stride(array, 1, channels) == channels && (is_planar || stride(array, 2, 1) == 1),
              "pixels of a row must lie side by side; use numpy.ascontiguousarray");
  ImageView view;
  view.data = static_cast<const uint8_t*>(array.data());
  view.size = {side(array, 0), side(array, 1)};
  view.format = format;
  view.row_bytes = stride(array, 0, channels * view.size.width);
  if (is_yuv_420(format)) {
    SEG_REQUIRE(view.size.height % 3 == 0, "the image has 3/2 rows per pixel row, chroma below; got " +
                                               std::to_string(view.size.height) + " rows");
    view.size.height = view.size.height / 3 * 2;
    view.chroma = view.data + view.size.height * view.row_bytes;
    view.chroma_row_bytes = view.row_bytes;
  }
  if (format == PixelFormat::i420) {
    SEG_REQUIRE(view.row_bytes == view.size.width, "an i420 image must be contiguous; use numpy.ascontiguousarray");
    view.chroma_row_bytes = view.size.width / 2;
    view.chroma_v = view.chroma + view.size.height / 2 * view.chroma_row_bytes;
  }
  return view;
}

// From an array (height, width, channels). NCHW batches are passed as transposed views.
template <class Data, class Array>
BatchView<Data> batch_from(const Array& array, bool may_be_bytes, const char* what) {
  check_rank(array, 3, what);
  check_aligned(array, what);
  SEG_REQUIRE(
      is_float(array, 32) || is_float(array, 16) || (may_be_bytes && is_unsigned(array, 8)),
      std::string(what) + " must be float32" + (may_be_bytes ? ", float16 or uint8" : " or float16") + got_text(array));
  BatchView<Data> view;
  view.data = array.data();
  view.dtype = is_float(array, 32) ? DType::float32 : is_float(array, 16) ? DType::float16 : DType::uint8;
  view.size = {side(array, 0), side(array, 1)};
  view.channels = side(array, 2);
  view.column_stride = stride(array, 1, 1);
  view.row_stride = stride(array, 0, view.size.width * view.column_stride);
  view.channel_stride = stride(array, 2, view.size.height * view.row_stride);
  return view;
}

template <class T>
PlaneView<const T> plane_of(const InArray& array, int64_t row_stride) {
  return {static_cast<const T*>(array.data()), row_stride};
}

struct Plane {
  int64_t row_stride;
  int64_t plane_stride;
};

// From an array (height, width), or (planes, height, width) unless `planes` is 0.
inline Plane plane_from(const OutArray& array, Size size, int planes, const char* what) {
  const size_t first = planes ? 1 : 0;
  check_rank(array, 2 + first, what);
  check_aligned(array, what);
  SEG_REQUIRE(
      side(array, first) == size.height && side(array, first + 1) == size.width &&
          (!planes || side(array, 0) == planes),
      std::string(what) + " must be of the image's size, " + size_text(size.height, size.width) + got_text(array));
  SEG_REQUIRE(stride(array, first + 1, 1) == 1,
              std::string(what) + " must have its rows' values side by side; give a contiguous array");
  Plane plane{stride(array, first, size.width), 0};
  SEG_REQUIRE(plane.row_stride >= size.width,
              std::string(what) + " must not have overlapping rows; give a contiguous array");
  const int64_t extent = (size.height - 1) * plane.row_stride + size.width;
  plane.plane_stride = planes ? stride(array, 0, extent) : 0;
  SEG_REQUIRE(!planes || plane.plane_stride >= extent,
              std::string(what) + " must not have overlapping planes; give a contiguous array");
  return plane;
}

}  // namespace seginfer::python
