// bound_plans.h: plans of the library as Python classes, which check arrays before they release the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "arrays.h"
#include "seginfer/cpu.h"

namespace seginfer::python {

struct BoundPreprocessor {
  Preprocessor plan;
  PixelFormat format;

  BoundPreprocessor(Pair image, Pair input, Pair resized, Pair offset, const std::string& pixel_format,
                    const std::string& yuv_matrix, const std::string& yuv_range, const std::string& resampling,
                    Floats3 gain, Floats3 bias, Floats3 padding, bool is_bgr, bool is_mirrored)
      : plan({size_from(image), size_from(input), size_from(resized), offset_from(offset)}, format_from(pixel_format),
             rule_from(yuv_matrix, yuv_range, resampling, gain, bias, padding, is_bgr, is_mirrored)),
        format(format_from(pixel_format)) {}

  static PixelRule rule_from(const std::string& yuv_matrix, const std::string& yuv_range, const std::string& resampling,
                             const Floats3& gain, const Floats3& bias, const Floats3& padding, bool is_bgr,
                             bool is_mirrored) {
    PixelRule rule;
    rule.yuv_matrix = yuv_matrix_from(yuv_matrix), rule.yuv_range = yuv_range_from(yuv_range);
    rule.resampling = resampling_from(resampling);
    rule.is_bgr = is_bgr, rule.is_mirrored = is_mirrored;
    const auto copy = [](const Floats3& from, float* to) {
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

struct BoundMaskDecoder {
  Size image;
  int planes;  // 0: one mask
  MaskDecoder plan;

  BoundMaskDecoder(Pair image_hw, Pair input, Pair resized, Pair offset, Pair whole, Pair corner, Pair size,
                   Ints4 visible, int channels, const std::string& decision, float threshold, bool is_logits,
                   bool align_corners, int upsampling, bool upsampling_align_corners, std::vector<uint16_t> table)
      : image(size_from(image_hw)),
        planes(decision == "each" ? channels : 0),
        plan({image, size_from(input), size_from(resized), offset_from(offset)},
             {size_from(whole), offset_from(corner), size_from(size)}, rect_from(visible), channels,
             MaskRule{decision_from(decision), threshold, is_logits, align_corners, upsampling,
                      upsampling_align_corners, std::move(table)}) {}

  bool fill(InArray logits, OutArray mask, std::optional<OutArray> confidence, std::optional<OutArray> margin,
            Threads& threads) const {
    const LogitsView view = batch_from<const void>(logits, false, "the logits");
    SEG_REQUIRE(is_unsigned(mask, 8) || is_unsigned(mask, 16), "the mask must be uint8 or uint16" + got_text(mask));
    MaskViews out;
    const Plane plane = plane_from(mask, image, planes, "the mask");
    out.mask = {mask.data(), plane.row_stride};
    out.mask_bytes = is_unsigned(mask, 8) ? 1 : 2;
    out.mask_plane_stride = plane.plane_stride;
    check_apart(logits, mask, "the logits and the mask");
    const auto add_map = [&](const std::optional<OutArray>& map, PlaneView<float>& to, int64_t& plane_stride,
                             const char* what) {
      if (!map) return;
      SEG_REQUIRE(is_float(*map, 32), std::string(what) + " must be float32" + got_text(*map));
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
                      Ints4 visible)
      : image(size_from(image_hw)),
        labels(size_from(size)),
        plan({image, size_from(input), size_from(resized), offset_from(offset)},
             {size_from(whole), offset_from(corner), labels}, rect_from(visible)) {}

  template <class T>
  void resample(const InArray& from, const OutArray& to, int64_t row_stride, const Plane& plane,
                Threads& threads) const {
    const nb::gil_scoped_release release;
    plan(plane_of<T>(from, row_stride), PlaneView<T>{static_cast<T*>(to.data()), plane.row_stride}, threads);
  }

  void fill(InArray from, OutArray mask, Threads& threads) const {
    check_rank(from, 2, "the labels");
    check_aligned(from, "the labels");
    const bool is_byte = is_unsigned(from, 8) && is_unsigned(mask, 8);
    SEG_REQUIRE(
        is_byte || (is_unsigned(from, 16) && is_unsigned(mask, 16)),
        "labels and mask must both be uint8 or both uint16" + got_text(from) + " and" + got_text(mask).substr(5));
    SEG_REQUIRE(side(from, 0) == labels.height && side(from, 1) == labels.width && stride(from, 1, 1) == 1 &&
                    stride(from, 0, labels.width) >= labels.width,
                "the labels must be contiguous and of " + size_text(labels.height, labels.width) + got_text(from));
    const Plane plane = plane_from(mask, image, 0, "the mask");
    check_apart(from, mask, "the labels and the mask");
    const int64_t row_stride = stride(from, 0, labels.width);
    is_byte ? resample<uint8_t>(from, mask, row_stride, plane, threads)
            : resample<uint16_t>(from, mask, row_stride, plane, threads);
  }
};

}  // namespace seginfer::python
