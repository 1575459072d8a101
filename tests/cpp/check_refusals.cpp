// check_refusals.cpp: arguments that no plan takes, and views that do not fit their plan, throw InputError.
#include <functional>
#include <limits>

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
      refuse("a preprocessor", [&] { Preprocessor({other, size, size, {}}, PixelFormat::rgb, {}); });
      refuse("a resized image", [&] { Preprocessor({size, size, other, {}}, PixelFormat::rgb, {}); });
      refuse("a mask decoder", [&] { MaskDecoder(stretch(size, size), {other, {}, size}, {0, 0, 4, 6}, 3, {}); });
      refuse("a window", [&] { MaskDecoder(stretch(size, size), {size, {}, other}, {0, 0, 4, 6}, 3, {}); });
      refuse("labels", [&] { LabelResampler(stretch(size, size), {other, {}, other}, {0, 0, 4, 6}); });
    }
  }
  refuse("a crop that is too long", [] { center_crop({1, kMaxSide - 1}, {4097, 1}); });
  for (const Offset offset : {Offset{kLeast, 0}, Offset{0, kLeast}, Offset{kMost, 0}, Offset{0, kMaxSide + 1}}) {
    refuse("an offset", [&] { Preprocessor({size, size, size, offset}, PixelFormat::rgb, {}); });
    refuse("an offset", [&] { LabelResampler({size, size, size, offset}, {size, {}, size}, {}); });
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

}  // namespace

int main() {
  check_refusals();
  check_refused_views();
  return checks::report();
}
