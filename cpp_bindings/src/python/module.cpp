// module.cpp: seginfer._ext; turns NumPy arrays into views, and nothing else. Arrays are never converted or copied.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <optional>
#include <tuple>

#include "seginfer/cpu.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace seginfer {
namespace {

using InArray = nb::ndarray<nb::ro, nb::device::cpu>;
using OutArray = nb::ndarray<nb::device::cpu>;
using Pair = std::tuple<int, int>;

Size size_from(const Pair& pair) { return {std::get<0>(pair), std::get<1>(pair)}; }
Offset offset_from(const Pair& pair) { return {std::get<0>(pair), std::get<1>(pair)}; }

template <class T>
T named(const std::map<std::string, T>& names, const std::string& name, const char* what) {
  const auto found = names.find(name);
  if (found != names.end()) return found->second;
  std::string known;
  for (const auto& one : names) known += (known.empty() ? "" : ", ") + one.first;
  throw InputError(std::string(what) + " must be one of " + known + ", got " + name);
}

PixelFormat format_from(const std::string& name) {
  static const std::map<std::string, PixelFormat> names{{"rgb", PixelFormat::rgb},   {"bgr", PixelFormat::bgr},
                                                        {"rgba", PixelFormat::rgba}, {"bgra", PixelFormat::bgra},
                                                        {"gray", PixelFormat::gray}, {"nv12", PixelFormat::nv12},
                                                        {"yuyv", PixelFormat::yuyv}};
  return named(names, name, "the pixel format");
}

Resampling resampling_from(const std::string& name) {
  static const std::map<std::string, Resampling> names{{"opencv", Resampling::opencv},
                                                       {"pillow", Resampling::pillow},
                                                       {"torch", Resampling::torch},
                                                       {"torch-antialias", Resampling::torch_antialias},
                                                       {"nearest", Resampling::nearest}};
  return named(names, name, "the resampling");
}

Decision decision_from(const std::string& name) {
  static const std::map<std::string, Decision> names{
      {"argmax", Decision::argmax}, {"threshold", Decision::threshold}, {"each", Decision::each}};
  return named(names, name, "the decision");
}

// ------------------------------------------------------------------------------------------------ views of arrays

template <class Array>
bool is(const Array& array, nb::dlpack::dtype_code code, int bits) {
  return array.dtype().code == static_cast<uint8_t>(code) && array.dtype().bits == bits && array.dtype().lanes == 1;
}

template <class Array>
bool is_unsigned(const Array& array, int bits) {
  return is(array, nb::dlpack::dtype_code::UInt, bits);
}

template <class Array>
bool is_float(const Array& array, int bits) {
  return is(array, nb::dlpack::dtype_code::Float, bits);
}

// ", got uint8 (480, 640, 3)", for messages.
template <class Array>
std::string got(const Array& array) {
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
              "arrays must have sides of at most " + std::to_string(kMaxSide) + got(array) + "; cut them");
  return static_cast<int>(array.shape(axis));
}

// The stride of an axis, which NumPy leaves undefined where there is a single element.
template <class Array>
int64_t stride(const Array& array, size_t axis, int64_t expected) {
  return array.shape(axis) == 1 ? expected : array.stride(axis);
}

template <class Array>
void check_rank(const Array& array, size_t rank, const char* what) {
  SEG_REQUIRE(array.ndim() == rank, std::string(what) + " must have " + std::to_string(rank) + " axes" + got(array));
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

ImageView image_from(const InArray& array, PixelFormat format) {
  SEG_REQUIRE(is_unsigned(array, 8), "the image must be uint8" + got(array) + "; give pixels of 0..255");
  const bool is_planar = format == PixelFormat::gray || format == PixelFormat::nv12;
  check_rank(array, is_planar ? 2 : 3, "the image");
  const int64_t channels = is_planar                                                  ? 1
                           : format == PixelFormat::yuyv                              ? 2
                           : format == PixelFormat::rgb || format == PixelFormat::bgr ? 3
                                                                                      : 4;
  SEG_REQUIRE(is_planar || static_cast<int64_t>(array.shape(2)) == channels,
              "the image must have " + std::to_string(channels) + " channels last" + got(array));
  SEG_REQUIRE(stride(array, 1, channels) == channels && (is_planar || stride(array, 2, 1) == 1),
              "pixels of a row must lie side by side; use numpy.ascontiguousarray");
  ImageView view;
  view.data = static_cast<const uint8_t*>(array.data());
  view.size = {side(array, 0), side(array, 1)};
  view.format = format;
  view.row_bytes = stride(array, 0, channels * view.size.width);
  if (format == PixelFormat::nv12) {
    SEG_REQUIRE(view.size.height % 3 == 0, "an nv12 image has 3/2 rows per pixel row, chroma below; got " +
                                               std::to_string(view.size.height) + " rows");
    view.size.height = view.size.height / 3 * 2;
    view.chroma = view.data + view.size.height * view.row_bytes;
    view.chroma_row_bytes = view.row_bytes;
  }
  return view;
}

// (height, width, channels); an NCHW batch comes as the transposed view.
template <class Data, class Array>
BatchView<Data> batch_from(const Array& array, bool may_be_bytes, const char* what) {
  check_rank(array, 3, what);
  check_aligned(array, what);
  SEG_REQUIRE(
      is_float(array, 32) || is_float(array, 16) || (may_be_bytes && is_unsigned(array, 8)),
      std::string(what) + " must be float32" + (may_be_bytes ? ", float16 or uint8" : " or float16") + got(array));
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

struct Plane {
  int64_t row_stride;
  int64_t plane_stride;
};

// (height, width), or (planes, height, width).
Plane plane_from(const OutArray& array, Size size, int planes, const char* what) {
  const size_t first = planes ? 1 : 0;
  check_rank(array, 2 + first, what);
  check_aligned(array, what);
  SEG_REQUIRE(side(array, first) == size.height && side(array, first + 1) == size.width &&
                  (!planes || side(array, 0) == planes),
              std::string(what) + " must be of the image's size, " + size_text(size.height, size.width) + got(array));
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

// ---------------------------------------------------------------------------------------------------- the classes

struct BoundPreprocessor {
  Preprocessor plan;
  PixelFormat format;

  BoundPreprocessor(Pair image, Pair input, Pair resized, Pair offset, const std::string& pixel_format,
                    const std::string& resampling, std::tuple<float, float, float> gain,
                    std::tuple<float, float, float> bias, std::tuple<float, float, float> padding, bool is_bgr,
                    bool is_mirrored)
      : plan({size_from(image), size_from(input), size_from(resized), offset_from(offset)}, format_from(pixel_format),
             rule_from(resampling, gain, bias, padding, is_bgr, is_mirrored)),
        format(format_from(pixel_format)) {}

  static PixelRule rule_from(const std::string& resampling, const std::tuple<float, float, float>& gain,
                             const std::tuple<float, float, float>& bias,
                             const std::tuple<float, float, float>& padding, bool is_bgr, bool is_mirrored) {
    PixelRule rule;
    rule.resampling = resampling_from(resampling);
    rule.is_bgr = is_bgr, rule.is_mirrored = is_mirrored;
    const auto copy = [](const std::tuple<float, float, float>& from, float* to) {
      to[0] = std::get<0>(from), to[1] = std::get<1>(from), to[2] = std::get<2>(from);
    };
    copy(gain, rule.gain), copy(bias, rule.bias), copy(padding, rule.padding);
    return rule;
  }

  void fill(InArray image, OutArray out, Threads& threads) const {
    const ImageView view = image_from(image, format);
    const TensorView tensor = batch_from<void>(out, true, "the output");
    check_apart(image, out, "the image and the output");
    const nb::gil_scoped_release release;
    plan(view, tensor, threads);
  }
};

Rect rect_from(const std::tuple<int, int, int, int>& rect) {
  return {std::get<0>(rect), std::get<1>(rect), std::get<2>(rect), std::get<3>(rect)};
}

struct BoundMaskDecoder {
  Size image;
  int planes;  // 0: one mask
  MaskDecoder plan;

  BoundMaskDecoder(Pair image_hw, Pair input, Pair resized, Pair offset, Pair whole, Pair corner, Pair size,
                   std::tuple<int, int, int, int> visible, int channels, const std::string& decision, float threshold,
                   bool is_logits, bool align_corners, int upsampling, bool upsampling_align_corners,
                   std::vector<uint16_t> table)
      : image(size_from(image_hw)),
        planes(decision == "each" ? channels : 0),
        plan({image, size_from(input), size_from(resized), offset_from(offset)},
             {size_from(whole), offset_from(corner), size_from(size)}, rect_from(visible), channels,
             MaskRule{decision_from(decision), threshold, is_logits, align_corners, upsampling,
                      upsampling_align_corners, std::move(table)}) {}

  bool fill(InArray logits, OutArray mask, std::optional<OutArray> confidence, std::optional<OutArray> margin,
            Threads& threads) const {
    const LogitsView view = batch_from<const void>(logits, false, "the logits");
    SEG_REQUIRE(is_unsigned(mask, 8) || is_unsigned(mask, 16), "the mask must be uint8 or uint16" + got(mask));
    MaskViews out;
    const Plane plane = plane_from(mask, image, planes, "the mask");
    out.mask = {mask.data(), plane.row_stride};
    out.mask_bytes = is_unsigned(mask, 8) ? 1 : 2;
    out.mask_plane_stride = plane.plane_stride;
    check_apart(logits, mask, "the logits and the mask");
    const auto add_map = [&](const std::optional<OutArray>& map, PlaneView<float>& to, int64_t& plane_stride,
                             const char* what) {
      if (!map) return;
      SEG_REQUIRE(is_float(*map, 32), std::string(what) + " must be float32" + got(*map));
      const Plane strides = plane_from(*map, image, planes, what);
      check_apart(logits, *map, "the logits and a map");
      check_apart(mask, *map, "the mask and a map");
      to = {static_cast<float*>(map->data()), strides.row_stride};
      plane_stride = strides.plane_stride;
    };
    add_map(confidence, out.confidence, out.confidence_plane_stride, "the confidence");
    add_map(margin, out.margin, out.margin_plane_stride, "the margin");
    if (confidence && margin) check_apart(*confidence, *margin, "the maps");
    const nb::gil_scoped_release release;
    return plan(view, out, threads);
  }
};

struct BoundLabelResampler {
  Size image, labels;
  LabelResampler plan;

  BoundLabelResampler(Pair image_hw, Pair input, Pair resized, Pair offset, Pair whole, Pair corner, Pair size,
                      std::tuple<int, int, int, int> visible)
      : image(size_from(image_hw)),
        labels(size_from(size)),
        plan({image, size_from(input), size_from(resized), offset_from(offset)},
             {size_from(whole), offset_from(corner), labels}, rect_from(visible)) {}

  template <class T>
  void pick(const InArray& from, const OutArray& to, int64_t row_stride, const Plane& plane, Threads& threads) const {
    const nb::gil_scoped_release release;
    plan(PlaneView<const T>{static_cast<const T*>(from.data()), row_stride},
         PlaneView<T>{static_cast<T*>(to.data()), plane.row_stride}, threads);
  }

  void fill(InArray from, OutArray mask, Threads& threads) const {
    check_rank(from, 2, "the labels");
    check_aligned(from, "the labels");
    const bool is_byte = is_unsigned(from, 8) && is_unsigned(mask, 8);
    SEG_REQUIRE(is_byte || (is_unsigned(from, 16) && is_unsigned(mask, 16)),
                "labels and mask must both be uint8 or both uint16" + got(from) + " and" + got(mask).substr(5));
    SEG_REQUIRE(side(from, 0) == labels.height && side(from, 1) == labels.width && stride(from, 1, 1) == 1 &&
                    stride(from, 0, labels.width) >= labels.width,
                "the labels must be contiguous and of " + size_text(labels.height, labels.width) + got(from));
    const Plane plane = plane_from(mask, image, 0, "the mask");
    check_apart(from, mask, "the labels and the mask");
    const int64_t row_stride = stride(from, 0, labels.width);
    is_byte ? pick<uint8_t>(from, mask, row_stride, plane, threads)
            : pick<uint16_t>(from, mask, row_stride, plane, threads);
  }
};

void fill_overlay(std::optional<InArray> image, InArray mask, InArray colors, int weight, OutArray out,
                  Threads& threads) {
  check_rank(mask, 2, "the mask");
  check_aligned(mask, "the mask");
  SEG_REQUIRE(is_unsigned(mask, 8) || is_unsigned(mask, 16), "the mask must be uint8 or uint16" + got(mask));
  const Size size{side(mask, 0), side(mask, 1)};
  check_size(size, "the mask");
  const int64_t mask_stride = stride(mask, 0, size.width);
  SEG_REQUIRE(stride(mask, 1, 1) == 1 && mask_stride >= 0,
              "the mask must have its rows' values side by side; give a contiguous array");
  ImageView view;
  view.size = size;
  if (image) {
    view = image_from(*image, image->ndim() == 2 ? PixelFormat::gray : PixelFormat::rgb);
    SEG_REQUIRE(view.size.height == size.height && view.size.width == size.width && view.row_bytes >= 0,
                "the image must be of the mask's size, " + size_text(size.height, size.width) + got(*image));
    check_apart(*image, out, "the image and the output");
  }
  check_apart(mask, out, "the mask and the output");
  SEG_REQUIRE(is_unsigned(colors, 8) && colors.ndim() == 2 && colors.shape(1) == 3 && colors.stride(1) == 1 &&
                  stride(colors, 0, 3) == 3,
              "the colours must be contiguous uint8 (classes, 3)" + got(colors));
  SEG_REQUIRE(is_unsigned(out, 8) && out.ndim() == 3 && out.shape(2) == 3 && side(out, 0) == size.height &&
                  side(out, 1) == size.width && out.stride(2) == 1 && stride(out, 1, 3) == 3 &&
                  stride(out, 0, 3 * size.width) >= 3 * size.width,
              "the output must be uint8 of " + size_text(size.height, size.width) +
                  " pixels side by side, 3 values each" + got(out));
  const auto* levels = static_cast<const uint8_t*>(colors.data());
  const Palette palette(std::vector<uint8_t>(levels, levels + colors.size()), weight);
  const PlaneView<uint8_t> pixels{static_cast<uint8_t*>(out.data()), stride(out, 0, 3 * size.width)};
  const nb::gil_scoped_release release;
  if (is_unsigned(mask, 8)) {
    overlay(view, PlaneView<const uint8_t>{static_cast<const uint8_t*>(mask.data()), mask_stride}, palette, pixels,
            threads);
  } else {
    overlay(view, PlaneView<const uint16_t>{static_cast<const uint16_t*>(mask.data()), mask_stride}, palette, pixels,
            threads);
  }
}

}  // namespace
}  // namespace seginfer

NB_MODULE(_ext, m) {
  using namespace seginfer;
  nb::set_leak_warnings(false);  // plans that caches keep until the process ends are no leaks
  m.doc() = "The native core of seginfer: both pixel steps on the CPU. Use it through seginfer, which checks more.";

  static nb::object input_error = nb::module_::import_("seginfer._errors").attr("InputError");
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const InputError& caught) {
      PyErr_SetString(input_error.ptr(), caught.what());
    }
  });

  nb::class_<Threads>(m, "Threads", "A pool of threads; one of size 1 never starts a thread.")
      .def(nb::init<int>(), "size"_a)
      .def_prop_ro("size", &Threads::size);

  nb::class_<BoundPreprocessor>(m, "Preprocessor", "Images of one size and format into the network input.")
      .def(nb::init<Pair, Pair, Pair, Pair, const std::string&, const std::string&, std::tuple<float, float, float>,
                    std::tuple<float, float, float>, std::tuple<float, float, float>, bool, bool>(),
           nb::kw_only(), "image_hw"_a, "input_hw"_a, "resized_hw"_a, "offset_yx"_a, "pixel_format"_a, "resampling"_a,
           "gain"_a, "bias"_a, "padding"_a, "is_bgr"_a, "is_mirrored"_a)
      .def("fill", &BoundPreprocessor::fill, "image"_a.noconvert(), "out"_a.noconvert(), "threads"_a);

  nb::class_<BoundMaskDecoder>(m, "MaskDecoder", "Logits of one size into masks of images of one size.")
      .def(nb::init<Pair, Pair, Pair, Pair, Pair, Pair, Pair, std::tuple<int, int, int, int>, int, const std::string&,
                    float, bool, bool, int, bool, std::vector<uint16_t>>(),
           nb::kw_only(), "image_hw"_a, "input_hw"_a, "resized_hw"_a, "offset_yx"_a, "whole_hw"_a, "corner_yx"_a,
           "logits_hw"_a, "visible"_a, "channels"_a, "decision"_a, "threshold"_a, "is_logits"_a, "align_corners"_a,
           "upsampling"_a, "upsampling_align_corners"_a, "table"_a)
      .def("fill", &BoundMaskDecoder::fill, "logits"_a.noconvert(), "mask"_a.noconvert(),
           "confidence"_a.noconvert().none(), "margin"_a.noconvert().none(), "threads"_a);

  nb::class_<BoundLabelResampler>(m, "LabelResampler", "Class ids of one size into masks of images of one size.")
      .def(nb::init<Pair, Pair, Pair, Pair, Pair, Pair, Pair, std::tuple<int, int, int, int>>(), nb::kw_only(),
           "image_hw"_a, "input_hw"_a, "resized_hw"_a, "offset_yx"_a, "whole_hw"_a, "corner_yx"_a, "labels_hw"_a,
           "visible"_a)
      .def("fill", &BoundLabelResampler::fill, "labels"_a.noconvert(), "mask"_a.noconvert(), "threads"_a);

  m.def("overlay", &fill_overlay, "image"_a.noconvert().none(), "mask"_a.noconvert(), "colors"_a.noconvert(),
        "weight"_a, "out"_a.noconvert(), "threads"_a);

  m.def("targets", &targets, "Instruction sets that this machine has, best last.");
  m.def("target", &target, "The instruction set in use.");
  m.def("use_target", &use_target, "name"_a);
}
