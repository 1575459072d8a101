// check_refusals.cpp: arguments that no plan takes, and views that do not fit their plan, throw InputError.
#include <functional>
#include <limits>
#include <utility>

#include "check.h"
#include "seginfer/cpu.h"

namespace {

using namespace seginfer;
using checks::Block;

void check_refusals() {
  const Size size{4, 6};
  const auto refuse = [](const std::string& what, const std::function<void()>& call) {
    checks::expect_throw<InputError>(call, what);
  };
  constexpr int kLeast = std::numeric_limits<int>::min(), kMost = std::numeric_limits<int>::max();
  for (const int bad : {0, -1, kLeast, kMost, kMaxSide + 1}) {
    for (const Size other : {Size{bad, 4}, Size{4, bad}, Size{bad, bad}}) {
      refuse("stretch", [&] { stretch(other, size); });
      refuse("pad", [&] { pad(size, other); });
      refuse("letterbox", [&] { letterbox(other, size); });
      refuse("center_crop", [&] { center_crop(size, other); });
      refuse("an image", [&] { Geometry(other, size, size, {}); });
      refuse("a network input", [&] { Geometry(size, other, size, {}); });
      refuse("a resized image", [&] { Geometry(size, size, other, {}); });
      refuse("a mask decoder", [&] { MaskDecoder(stretch(size, size), {other, {}, size}, {0, 0, 4, 6}, 3, {}); });
      refuse("a window", [&] { MaskDecoder(stretch(size, size), {size, {}, other}, {0, 0, 4, 6}, 3, {}); });
      refuse("labels", [&] { LabelResampler(stretch(size, size), {other, {}, other}, {0, 0, 4, 6}); });
    }
  }
  refuse("a crop that is too long", [] { center_crop({1, kMaxSide - 1}, {4097, 1}); });
  for (const Offset offset : {Offset{kLeast, 0}, Offset{0, kLeast}, Offset{kMost, 0}, Offset{0, kMaxSide + 1}}) {
    refuse("an offset", [&] { Geometry(size, size, size, offset); });
    refuse("a corner", [&] { MaskDecoder(stretch(size, size), {size, offset, size}, {0, 0, 4, 6}, 3, {}); });
  }
  for (const Rect rect : {Rect{-1, 0, 4, 6}, Rect{0, 0, 5, 6}, Rect{0, 1, 4, 6}, Rect{kMost, kMost, kMost, kMost},
                          Rect{0, 0, -1, 6}, Rect{kLeast, 0, 4, 6}}) {
    refuse("visible pixels", [&] { MaskDecoder(stretch(size, size), {size, {}, size}, rect, 3, {}); });
    refuse("visible pixels", [&] { LabelResampler(stretch(size, size), {size, {}, size}, rect); });
  }
  MaskRule doubled;
  doubled.upsampling = 2;
  const Geometry outside{{10, 10}, {10, 10}, {50, 50}, {-100, -100}};  // the input shows nothing of the image
  refuse("pixels that are not seen",
         [&] { MaskDecoder(outside, {{10, 10}, {}, {10, 10}}, {0, 0, 10, 10}, 3, doubled); });
  for (const int factor : {1, -1, -2, kLeast, kMost, 1 << 29, (1 << 30) + 1}) {
    MaskRule rule;
    rule.upsampling = factor;
    refuse("an upsampling", [&] { MaskDecoder(stretch(size, size), {size, {}, size}, {0, 0, 4, 6}, 3, rule); });
  }
  for (const int channels : {0, -1, kLeast, kMost, 65536}) {
    refuse("channels", [&] { MaskDecoder(stretch(size, size), {size, {}, size}, {0, 0, 4, 6}, channels, {}); });
  }
  refuse("colours", [] { Palette({1, 2}, 5); });
  refuse("a weight", [] { Palette({1, 2, 3}, 257); });
}

// Functions of taps.h, which take plain numbers.
void check_refused_taps() {
  const auto refuse = [](const std::string& what, const std::function<void()>& call) {
    checks::expect_throw<InputError>(call, what);
  };
  constexpr int kLeast = std::numeric_limits<int>::min(), kMost = std::numeric_limits<int>::max();
  const Geometry geometry = stretch({4, 6}, {4, 6});
  for (const int bad : {0, -1, kLeast, kMost, kMaxSide + 1}) {
    for (const auto& [n, m] : {std::pair{bad, 4}, std::pair{4, bad}}) {
      refuse("torch_taps", [n = n, m = m] { torch_taps(n, m); });
      refuse("opencv_taps", [n = n, m = m] { opencv_taps(n, m, true); });
      refuse("triangle_taps", [n = n, m = m] { triangle_taps<float>(n, m); });
      refuse("nearest_taps", [n = n, m = m] { nearest_taps(n, m); });
      refuse("mirrored_taps", [n = n, m = m] { mirrored_taps(n, m, 0); });
      refuse("upsampling_taps", [n = n, m = m] { upsampling_taps(n, m, n == 4); });
    }
    refuse("mask_taps", [&] { mask_taps<float>(geometry.rows(), bad, {0, 4}, false); });
    refuse("label_taps", [&] { label_taps(geometry.rows(), bad, {0, 4}); });
    Taps taps = nearest_taps(4, 4);
    refuse("a window", [&] { move_into_window(taps, 0, bad); });
  }
  for (const Span part : {Span{-1, 1}, Span{0, 5}, Span{4, 1}, Span{0, -1}, Span{kMost, kMost}, Span{kLeast, 1}}) {
    refuse("part_of", [&] { part_of(nearest_taps(4, 4), part); });
    refuse("mask_taps", [&] { mask_taps<double>(geometry.rows(), 4, part, true); });
    refuse("label_taps", [&] { label_taps(geometry.rows(), 4, part); });
  }
  refuse("an upsampling to one", [] { upsampling_taps(1, 1, true); });
  refuse("an upsampling to fewer", [] { upsampling_taps(9, 8, false); });
  refuse("compose", [] { compose(torch_taps(9, 4), torch_taps(4, 8)); });
  refuse("a matrix", [] { yuv_to_rgb(static_cast<YuvMatrix>(3), YuvRange::full); });
  refuse("a range", [] { yuv_to_rgb(YuvMatrix::bt709, static_cast<YuvRange>(-1)); });
}

// Views that do not fit their plan are refused before anything is read or written.
void check_refused_views() {
  const Geometry geometry = stretch({4, 6}, {4, 6});
  const Preprocessor plan(geometry, PixelFormat::rgb, {});
  Threads threads(1);
  Block<uint8_t> pixels(4 * 18);
  Block<float> values(3 * 24);
  const ImageView image{pixels.data(), 18, {4, 6}, PixelFormat::rgb, nullptr, 0};
  const TensorView out{values.data(), DType::float32, 3, {4, 6}, 24, 6, 1};
  plan(image, out, threads);
  const auto refuse = [&](const auto& change) {
    ImageView bad_image = image;
    TensorView bad_out = out;
    change(bad_image, bad_out);
    checks::expect_throw<InputError>([&] { plan(bad_image, bad_out, threads); }, "a view that does not fit");
  };
  refuse([](ImageView& one, TensorView&) { one.data = nullptr; });
  refuse([](ImageView& one, TensorView&) { one.row_bytes = 17; });
  refuse([](ImageView& one, TensorView&) { one.row_bytes = -18; });
  refuse([](ImageView& one, TensorView&) { one.size.height = 5; });
  refuse([](ImageView& one, TensorView&) { one.format = PixelFormat::rgba; });
  refuse([](ImageView&, TensorView& one) { one.data = nullptr; });
  refuse([](ImageView&, TensorView& one) { one.channels = 4; });
  refuse([](ImageView&, TensorView& one) { one.size.width = 7; });
  refuse([](ImageView&, TensorView& one) { one.row_stride = 5; });
  refuse([](ImageView&, TensorView& one) { one.row_stride = 0; });
  refuse([](ImageView&, TensorView& one) { one.channel_stride = 23; });
  refuse([](ImageView&, TensorView& one) { one.column_stride = -1; });
  refuse([](ImageView&, TensorView& one) { one.dtype = DType::uint8, one.data = nullptr; });
  refuse([](ImageView&, TensorView& one) { one.dtype = DType::int32; });
}

void check_refused_planes() {
  const Geometry geometry = stretch({4, 6}, {4, 6});
  Threads threads(1);
  Block<uint8_t> bytes(3 * 24);
  Block<float> values(2 * 24);
  const auto refuse = [](const std::string& what, const std::function<void()>& call) {
    checks::expect_throw<InputError>(call, what);
  };
  const PlaneView<uint8_t> plane{bytes.data(), 6}, none{nullptr, 6}, narrow{bytes.data(), 5};
  const PlaneView<const uint8_t> labels{bytes.data(), 6}, no_labels{nullptr, 6};
  const LabelResampler resample(geometry, {{4, 6}, {}, {4, 6}}, geometry.visible());
  refuse("labels", [&] { resample(no_labels, plane, threads); });
  for (const auto& bad : {none, narrow}) refuse("a mask", [&] { resample(labels, bad, threads); });
  ImageView black;
  black.size = {4, 6};
  refuse("a mask", [&] { overlay(black, no_labels, Palette({}, 1), {bytes.data(), 18}, threads); });
  refuse("an overlay", [&] { overlay(black, labels, Palette({}, 1), none, threads); });
  refuse("an overlay", [&] { overlay(black, labels, Palette({}, 1), {bytes.data(), 17}, threads); });

  MaskRule rule;
  rule.decision = Decision::each;
  const MaskDecoder decode(geometry, {{4, 6}, {}, {4, 6}}, geometry.visible(), 2, rule);
  const LogitsView logits{values.data(), DType::float32, 2, {4, 6}, 24, 6, 1};
  MaskViews good;
  good.mask = {bytes.data(), 6}, good.mask_plane_stride = 24;
  const auto refuse_results = [&](const auto& change) {
    MaskViews out = good;
    change(out);
    refuse("results", [&] { decode(logits, out, threads); });
  };
  refuse_results([](MaskViews& out) { out.mask.data = nullptr; });
  refuse_results([](MaskViews& out) { out.mask.row_stride = 5; });
  refuse_results([](MaskViews& out) { out.mask_plane_stride = 23; });
  refuse_results([](MaskViews& out) { out.mask_bytes = 4; });
  refuse_results([&](MaskViews& out) { out.margin = {values.data(), -6}, out.margin_plane_stride = 24; });
  refuse_results([&](MaskViews& out) { out.confidence = {values.data(), 6}; });

  for (const PixelFormat format : {PixelFormat::nv12, PixelFormat::nv21, PixelFormat::i420}) {
    const Preprocessor plan(stretch({4, 6}, {4, 4}), format, {});
    const TensorView out{values.data(), DType::float32, 3, {4, 4}, 16, 4, 1};
    const int64_t pitch = format == PixelFormat::i420 ? 3 : 6;
    const uint8_t* memory = bytes.data();
    const ImageView whole{memory, 6, {4, 6}, format, memory + 24, pitch, memory + 30};
    plan(whole, out, threads);
    const auto refuse_image = [&](const auto& change) {
      ImageView image = whole;
      change(image);
      refuse("chroma", [&] { plan(image, out, threads); });
    };
    refuse_image([](ImageView& image) { image.chroma = nullptr; });
    refuse_image([](ImageView& image) { --image.chroma_row_bytes; });
    if (format == PixelFormat::i420) refuse_image([](ImageView& image) { image.chroma_v = nullptr; });
  }
}

}  // namespace

int main() {
  check_refusals();
  check_refused_taps();
  check_refused_views();
  check_refused_planes();
  return checks::report();
}
