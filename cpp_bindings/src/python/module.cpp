// module.cpp: the Python module seginfer._ext.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "arrays.h"
#include "bound_plans.h"
#include "seginfer/cpu.h"

namespace seginfer::python {
namespace {

using namespace nb::literals;

// The image under the colours; a view without data if there is none.
ImageView background_from(const std::optional<InArray>& image, Size size) {
  ImageView view;
  view.size = size;
  if (!image) return view;
  view = image_from(*image, image->ndim() == 2 ? PixelFormat::gray : PixelFormat::rgb);
  SEG_REQUIRE(view.size.height == size.height && view.size.width == size.width && view.row_bytes >= 0,
              "the image must be of the mask's size, " + size_text(size.height, size.width) + got_text(*image));
  return view;
}

Palette palette_from(const InArray& colors, int weight) {
  SEG_REQUIRE(is_unsigned(colors, 8) && colors.ndim() == 2 && colors.shape(1) == 3 && colors.stride(1) == 1 &&
                  stride(colors, 0, 3) == 3,
              "the colours must be contiguous uint8 (classes, 3)" + got_text(colors));
  const auto* values = static_cast<const uint8_t*>(colors.data());
  return Palette(std::vector<uint8_t>(values, values + colors.size()), weight);
}

PlaneView<uint8_t> picture_from(const OutArray& out, Size size) {
  const int64_t row_stride = stride(out, 0, 3 * size.width);
  SEG_REQUIRE(is_unsigned(out, 8) && out.ndim() == 3 && out.shape(2) == 3 && side(out, 0) == size.height &&
                  side(out, 1) == size.width && out.stride(2) == 1 && stride(out, 1, 3) == 3 &&
                  row_stride >= 3 * size.width,
              "the output must be uint8 of " + size_text(size.height, size.width) +
                  " pixels side by side, 3 values each" + got_text(out));
  return {static_cast<uint8_t*>(out.data()), row_stride};
}

void fill_overlay(std::optional<InArray> image, InArray mask, InArray colors, int weight, OutArray out,
                  Threads& threads) {
  check_rank(mask, 2, "the mask");
  check_aligned(mask, "the mask");
  SEG_REQUIRE(is_unsigned(mask, 8) || is_unsigned(mask, 16), "the mask must be uint8 or uint16" + got_text(mask));
  const Size size{side(mask, 0), side(mask, 1)};
  check_size(size, "the mask");
  const int64_t mask_stride = stride(mask, 0, size.width);
  SEG_REQUIRE(stride(mask, 1, 1) == 1 && mask_stride >= 0,
              "the mask must have its rows' values side by side; give a contiguous array");
  const ImageView background = background_from(image, size);
  const Palette palette = palette_from(colors, weight);
  const PlaneView<uint8_t> picture = picture_from(out, size);
  if (image) check_apart(*image, out, "the image and the output");
  check_apart(mask, out, "the mask and the output");
  const nb::gil_scoped_release release;
  is_unsigned(mask, 8) ? overlay(background, plane_of<uint8_t>(mask, mask_stride), palette, picture, threads)
                       : overlay(background, plane_of<uint16_t>(mask, mask_stride), palette, picture, threads);
}

// Copies an array to one of its shape and type, with any strides.
void copy_array(InArray source, OutArray target, Threads& threads) {
  constexpr int64_t kBytesPerPart = 1 << 18;
  const bool is_alike = source.dtype() == target.dtype() && source.ndim() == target.ndim() &&
                        std::equal(source.shape_ptr(), source.shape_ptr() + source.ndim(), target.shape_ptr());
  SEG_REQUIRE(is_alike, "the target must have the source's shape and type" + got_text(target));
  check_apart(source, target, "source and target");
  const auto item = static_cast<int64_t>(target.itemsize());
  int64_t values = 1;  // side by side in both
  size_t axes = target.ndim();
  for (; axes > 0 && stride(source, axes - 1, values) == values && stride(target, axes - 1, values) == values; --axes) {
    values *= static_cast<int64_t>(target.shape(axes - 1));
  }
  const int64_t bytes = values * item, part = axes ? bytes : std::min(bytes, kBytesPerPart);
  const int64_t count = target.size() == 0 ? 0
                        : axes             ? static_cast<int64_t>(target.size()) / values
                                           : (bytes + part - 1) / part;
  SEG_REQUIRE(count <= std::numeric_limits<int>::max(), "the array has too many rows" + got_text(target));
  const auto* from = static_cast<const uint8_t*>(source.data());
  auto* to = static_cast<uint8_t*>(target.data());
  const nb::gil_scoped_release release;
  const auto copy = [&](int begin, int end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t rest = row, from_at = 0, to_at = 0;
      for (size_t axis = axes; axis-- > 0; rest /= static_cast<int64_t>(target.shape(axis))) {
        const int64_t index = rest % static_cast<int64_t>(target.shape(axis));
        from_at += index * source.stride(axis) * item, to_at += index * target.stride(axis) * item;
      }
      if (!axes) from_at = to_at = row * part;
      std::memcpy(to + to_at, from + from_at, static_cast<size_t>(axes ? part : std::min(part, bytes - from_at)));
    }
  };
  threads.for_each_part(static_cast<int>(count),
                        static_cast<int>(std::max<int64_t>(1, kBytesPerPart / std::max<int64_t>(part, 1))), copy);
}

}  // namespace
}  // namespace seginfer::python

NB_MODULE(_ext, m) {
  using namespace seginfer;
  using namespace seginfer::python;
  nb::set_leak_warnings(false);  // caches keep plans until the process ends; these are no leaks
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
      .def(nb::init<Pair, Pair, Pair, Pair, const std::string&, const std::string&, const std::string&,
                    const std::string&, Floats3, Floats3, Floats3, bool, bool>(),
           nb::kw_only(), "image_hw"_a, "input_hw"_a, "resized_hw"_a, "offset_yx"_a, "pixel_format"_a, "yuv_matrix"_a,
           "yuv_range"_a, "resampling"_a, "gain"_a, "bias"_a, "padding"_a, "is_bgr"_a, "is_mirrored"_a)
      .def("fill", &BoundPreprocessor::fill, "image"_a.noconvert(), "out"_a.noconvert(), "threads"_a);

  nb::class_<BoundMaskDecoder>(m, "MaskDecoder", "Logits of one size into masks of images of one size.")
      .def(nb::init<Pair, Pair, Pair, Pair, Pair, Pair, Pair, Ints4, int, const std::string&, float, bool, bool, int,
                    bool, std::vector<uint16_t>>(),
           nb::kw_only(), "image_hw"_a, "input_hw"_a, "resized_hw"_a, "offset_yx"_a, "whole_hw"_a, "corner_yx"_a,
           "logits_hw"_a, "visible"_a, "channels"_a, "decision"_a, "threshold"_a, "is_logits"_a, "align_corners"_a,
           "upsampling"_a, "upsampling_align_corners"_a, "table"_a)
      .def("fill", &BoundMaskDecoder::fill, "logits"_a.noconvert(), "mask"_a.noconvert(),
           "confidence"_a.noconvert().none(), "margin"_a.noconvert().none(), "threads"_a);

  nb::class_<BoundLabelResampler>(m, "LabelResampler", "Class ids of one size into masks of images of one size.")
      .def(nb::init<Pair, Pair, Pair, Pair, Pair, Pair, Pair, Ints4>(), nb::kw_only(), "image_hw"_a, "input_hw"_a,
           "resized_hw"_a, "offset_yx"_a, "whole_hw"_a, "corner_yx"_a, "labels_hw"_a, "visible"_a)
      .def("fill", &BoundLabelResampler::fill, "labels"_a.noconvert(), "mask"_a.noconvert(), "threads"_a);

  m.def("overlay", &fill_overlay, "image"_a.noconvert().none(), "mask"_a.noconvert(), "colors"_a.noconvert(),
        "weight"_a, "out"_a.noconvert(), "threads"_a);

  m.def("copy", &copy_array, "source"_a.noconvert(), "target"_a.noconvert(), "threads"_a);

  m.def("targets", &targets, "Instruction sets that this machine has, best last.");
  m.def("target", &target, "The instruction set in use.");
  m.def("use_target", &use_target, "name"_a);
}
