// check_memory.cpp: every call on heap blocks of exact size; AddressSanitizer sees one byte too many, and all
// instruction sets write the same bytes as the portable one.
#include <algorithm>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "check.h"
#include "seginfer/cpu.h"

namespace {

using namespace seginfer;
using checks::Block;
using checks::expect;
using checks::Random;

constexpr PixelFormat kFormats[] = {PixelFormat::rgb,  PixelFormat::bgr,  PixelFormat::rgba, PixelFormat::bgra,
                                    PixelFormat::gray, PixelFormat::nv12, PixelFormat::yuyv};
constexpr Resampling kResamplings[] = {Resampling::opencv, Resampling::pillow, Resampling::torch,
                                       Resampling::torch_antialias, Resampling::nearest};
constexpr int kMostWidth = 130;

// A fresh thread has no scratch memory yet, so that what it then gets is as large as the call asked for.
void in_a_fresh_thread(const std::function<void()>& call) { std::thread(call).join(); }

// Calls `compute(threads)` on every instruction set, with one thread and with three, some of the times in a fresh
// thread.
template <class Compute>
void on_every_target(Random& random, bool is_large, const Compute& compute) {
  static Threads one(1), three(3);
  for (const std::string& name : targets()) {
    use_target(name);
    compute(one);
    if (is_large) compute(three);
    if (random.between(0, 7) == 0) in_a_fresh_thread([&] { compute(one); });
  }
}

// All results must equal the first.
template <class T>
class Same {
 public:
  void add(const Block<T>& block, const std::string& what) {
    if (!first_) {
      first_ = std::make_unique<Block<T>>(static_cast<int64_t>(block.size()));
      std::memcpy(first_->data(), block.data(), block.bytes());
    } else {
      expect(*first_ == block, what);
    }
  }

 private:
  std::unique_ptr<Block<T>> first_;
};

// ------------------------------------------------------------------------------------------------------ preprocess

int bytes_per_pixel(PixelFormat format) {
  switch (format) {
    case PixelFormat::rgb:
    case PixelFormat::bgr:
      return 3;
    case PixelFormat::rgba:
    case PixelFormat::bgra:
      return 4;
    case PixelFormat::yuyv:
      return 2;
    default:
      return 1;
  }
}

Geometry placed(Random& random, Size image, Size input) {
  switch (random.between(0, 4)) {
    case 0:
      return stretch(image, input);
    case 1:
      return letterbox(image, input, random.coin());
    case 2:
      return center_crop(image, input);
    case 3:
      return pad(image, {std::max(image.height, input.height), std::max(image.width, input.width)}, random.coin());
    default:
      break;
  }
  const auto near = [&](int side) { return random.between(-2 * side - 9, 2 * side + 9); };  // and outside altogether
  const Size resized = random.coin() ? image : Size{random.between(1, 20), random.between(1, kMostWidth)};
  return {image, input, resized, {near(input.height), near(input.width)}};
}

struct Camera {
  Camera(Random& random, Size size, PixelFormat format) {
    const int64_t row = static_cast<int64_t>(size.width) * bytes_per_pixel(format), height = size.height;
    const int64_t pitch = row + (random.coin() ? random.between(1, 70) : 0);
    pixels = std::make_unique<Block<uint8_t>>((height - 1) * pitch + row);
    random.fill(pixels->data(), pixels->bytes());
    view.data = pixels->data(), view.row_bytes = pitch, view.size = size, view.format = format;
    if (format == PixelFormat::nv12) {
      view.chroma_row_bytes = row + (random.coin() ? random.between(1, 70) : 0);
      chroma = std::make_unique<Block<uint8_t>>((height / 2 - 1) * view.chroma_row_bytes + row);
      random.fill(chroma->data(), chroma->bytes());
      view.chroma = chroma->data();
    }
  }

  std::unique_ptr<Block<uint8_t>> pixels, chroma;
  ImageView view;
};

// A place in a batch, planar or with channels last, rows and planes perhaps apart; gaps must stay as they were.
struct Batch {
  Batch(Random& random, Size size, int channels, DType dtype) {
    const int value = dtype == DType::float32 ? 4 : dtype == DType::float16 ? 2 : 1;
    const int gap = random.coin() ? random.between(1, 5) : 0;
    view.dtype = dtype, view.channels = channels, view.size = size;
    const bool is_planar = random.coin();
    view.column_stride = is_planar ? 1 : channels;
    view.row_stride = size.width * view.column_stride + gap;
    view.channel_stride = is_planar ? size.height * view.row_stride + gap : 1;
    count = 1 + (size.width - 1) * view.column_stride + (size.height - 1) * view.row_stride +
            (channels - 1) * view.channel_stride;
    bytes = count * value;
    memory = std::make_unique<Block<uint8_t>>(bytes);
    view.data = memory->data();
  }

  bool has_clean_gaps() const {
    const int64_t value = bytes / count;
    std::vector<bool> is_value(static_cast<size_t>(count));
    for (int c = 0; c < view.channels; ++c) {
      for (int y = 0; y < view.size.height; ++y) {
        for (int x = 0; x < view.size.width; ++x) {
          is_value[static_cast<size_t>(c * view.channel_stride + y * view.row_stride + x * view.column_stride)] = true;
        }
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t b = 0; b < value && !is_value[static_cast<size_t>(i)]; ++b) {
        if ((*memory)[i * value + b] != 0xA5) return false;
      }
    }
    return true;
  }

  TensorView view;
  int64_t count, bytes;
  std::unique_ptr<Block<uint8_t>> memory;
};

PixelRule rule_of(Random& random, Resampling resampling, DType dtype) {
  PixelRule rule;
  rule.resampling = resampling;
  rule.is_bgr = random.coin();
  for (int c = 0; c < 3; ++c) {
    rule.padding[c] = 114;
    if (dtype != DType::uint8) rule.gain[c] = 0.017f, rule.bias[c] = -2.1f, rule.padding[c] = -1.5f;
  }
  return rule;
}

void check_preprocessor(Random& random, const Geometry& geometry, PixelFormat format, const PixelRule& rule,
                        DType dtype, bool is_large) {
  const Preprocessor plan(geometry, format, rule);
  const Camera camera(random, geometry.image, format);
  Batch batch(random, geometry.input, format == PixelFormat::gray ? 1 : 3, dtype);
  Same<uint8_t> same;
  const std::string what = "preprocess of format " + std::to_string(static_cast<int>(format)) + ", resampling " +
                           std::to_string(static_cast<int>(rule.resampling)) + ", " +
                           size_text(geometry.image.height, geometry.image.width) + " to " +
                           size_text(geometry.input.height, geometry.input.width);
  on_every_target(random, is_large, [&](Threads& threads) {
    std::memset(batch.memory->data(), 0xA5, batch.memory->bytes());
    plan(camera.view, batch.view, threads);
    same.add(*batch.memory, what);
  });
  if (!is_large) expect(batch.has_clean_gaps(), what + " between rows");
}

Size even(PixelFormat format, Size size) {
  if (format == PixelFormat::nv12 || format == PixelFormat::yuyv) size.width += size.width % 2;
  if (format == PixelFormat::nv12) size.height += size.height % 2;
  return size;
}

DType dtype_of(Random& random, Resampling resampling) {
  const bool is_whole = resampling != Resampling::torch && resampling != Resampling::torch_antialias;
  constexpr DType kTypes[] = {DType::float32, DType::float16, DType::uint8};
  return kTypes[random.between(0, is_whole ? 2 : 1)];
}

void check_preprocess(Random& random) {
  for (const PixelFormat format : kFormats) {
    for (const Resampling resampling : kResamplings) {
      for (int width = 1; width <= kMostWidth; ++width) {
        const int other = random.between(1, random.coin() ? 9 : kMostWidth);
        const bool is_input = random.coin();
        const Size image = even(format, {random.between(1, 9), is_input ? other : width});
        const Size input{random.between(1, 9), is_input ? width : other};
        const DType dtype = dtype_of(random, resampling);
        check_preprocessor(random, placed(random, image, input), format, rule_of(random, resampling, dtype), dtype,
                           false);
      }
    }
  }
}

// Few columns and many rows, or the other way round, so that threads share them.
void check_large_preprocess(Random& random) {
  for (const PixelFormat format : kFormats) {
    for (const Resampling resampling : kResamplings) {
      const int width = random.one_of({1, 3, 16, 65, 130});
      const Size image = even(format, {random.between(20, 90), random.between(20, 400)});
      const Size input{2 * (1 << 14) / width + 3, width};
      const DType dtype = dtype_of(random, resampling);
      check_preprocessor(random, placed(random, image, input), format, rule_of(random, resampling, dtype), dtype, true);
    }
  }
}

void check_mirrored(Random& random) {
  for (const PixelFormat format : kFormats) {
    for (int width = 1; width <= kMostWidth; ++width) {
      const Size image = even(format, {random.between(1, 9), random.coin() ? width : random.between(1, 40)});
      const Geometry geometry{
          image, {random.between(1, 12), width}, image, {random.between(-9, 9), random.between(-90, 90)}};
      PixelRule rule = rule_of(random, Resampling::opencv, DType::float32);
      rule.is_mirrored = true;
      check_preprocessor(random, geometry, format, rule, DType::float32, false);
    }
  }
}

// ----------------------------------------------------------------------------------------------------------- masks

struct Logits {
  Logits(Random& random, int channels, Size size) {
    const bool is_half = random.between(0, 3) == 0, is_planar = random.coin();
    const int gap = random.coin() ? random.between(1, 4) : 0;
    view.dtype = is_half ? DType::float16 : DType::float32, view.channels = channels, view.size = size;
    view.column_stride = is_planar ? 1 : channels;
    view.row_stride = size.width * view.column_stride + gap;
    view.channel_stride = is_planar ? size.height * view.row_stride + gap : 1;
    count = 1 + (size.width - 1) * view.column_stride + (size.height - 1) * view.row_stride +
            (channels - 1) * view.channel_stride;
    memory = std::make_unique<Block<uint8_t>>(count * (is_half ? 2 : 4));
    const int values = random.one_of({2, 5, 1000});  // few make ties, and regions of one label
    for (int64_t i = 0; i < count; ++i) {
      if (is_half) {
        reinterpret_cast<uint16_t*>(memory->data())[i] = static_cast<uint16_t>(0x3c00 + random.between(0, values - 1));
      } else {
        reinterpret_cast<float*>(memory->data())[i] = static_cast<float>(random.between(0, values - 1)) / 64.0f;
      }
    }
    view.data = memory->data();
  }

  // Makes one value NaN or infinite.
  void poison(int c, int y, int x) {
    const int64_t at = c * view.channel_stride + y * view.row_stride + x * view.column_stride;
    if (view.dtype == DType::float16) {
      reinterpret_cast<uint16_t*>(memory->data())[at] = 0x7c00;
    } else {
      reinterpret_cast<float*>(memory->data())[at] = std::numeric_limits<float>::quiet_NaN();
    }
  }

  LogitsView view;
  int64_t count;
  std::unique_ptr<Block<uint8_t>> memory;
};

// Planes of one image's results, rows and planes perhaps apart.
template <class T>
struct Planes {
  Planes(Random& random, Size size, int planes) {
    row_stride = size.width + (random.coin() ? random.between(1, 5) : 0);
    plane_stride = (size.height - 1) * row_stride + size.width + (random.coin() ? random.between(0, 5) : 0);
    memory = std::make_unique<Block<T>>((planes - 1) * plane_stride + (size.height - 1) * row_stride + size.width);
  }

  void clear() { std::memset(memory->data(), 0xA5, memory->bytes()); }

  int64_t row_stride, plane_stride;
  std::unique_ptr<Block<T>> memory;
};

struct MaskCase {
  Geometry whole;
  OutputWindow window;
  Rect visible;
};

// An output of the whole image, or one tile's window of it.
MaskCase mask_case(Random& random, Size image, Size output, const MaskRule& rule) {
  const int factor = random.between(1, 4) * (rule.upsampling ? rule.upsampling : 1);
  const Size input{output.height * factor, output.width * factor};
  MaskCase result;
  if (random.between(0, 3) == 0) {
    const Size frame{std::max(image.height, input.height) + 8, std::max(image.width, input.width) + 8};
    result.whole = {image, frame, image, {random.between(0, 8), random.between(0, 8)}};
    const Size cells{std::max(1, frame.height / factor), std::max(1, frame.width / factor)};
    result.window = {cells, {random.between(-2, cells.height), random.between(-2, cells.width)}, output};
    const int top = random.between(0, image.height - 1), left = random.between(0, image.width - 1);
    result.visible = {top, left, random.between(0, image.height - top), random.between(0, image.width - left)};
  } else {
    result.whole = placed(random, image, input);
    result.window = {output, {0, 0}, output};
    result.visible = result.whole.visible();
  }
  return result;
}

MaskRule mask_rule(Random& random, int channels) {
  MaskRule rule;
  rule.decision = random.one_of({Decision::argmax, Decision::argmax, Decision::each});
  if (channels == 1) rule.decision = random.one_of({Decision::argmax, Decision::threshold, Decision::each});
  rule.threshold = random.value() / 8;
  rule.is_logits = random.coin(), rule.align_corners = random.coin();
  rule.upsampling = random.one_of({0, 0, 2, 3});
  rule.upsampling_align_corners = random.coin();
  const int labels = rule.decision == Decision::argmax ? channels : 2;
  if (random.between(0, 3) == 0) {
    for (int i = 0; i < labels; ++i) rule.table.push_back(static_cast<uint16_t>(random.between(0, 65535)));
  }
  return rule;
}

template <class T>
void check_mask_decoder(Random& random, int channels, Size image, Size output, const MaskRule& rule, bool is_large) {
  const MaskCase one = mask_case(random, image, output, rule);
  const MaskDecoder plan(one.whole, one.window, one.visible, channels, rule);
  const int planes = rule.decision == Decision::each ? channels : 1;
  Logits logits(random, channels, output);
  Planes<T> mask(random, image, planes);
  Planes<float> confidence(random, image, planes), margin(random, image, planes);
  MaskViews views;
  views.mask = {mask.memory->data(), mask.row_stride};
  views.mask_bytes = sizeof(T), views.mask_plane_stride = mask.plane_stride;
  if (random.coin()) {
    views.confidence = {confidence.memory->data(), confidence.row_stride};
    views.confidence_plane_stride = confidence.plane_stride;
  }
  if (random.coin()) {
    views.margin = {margin.memory->data(), margin.row_stride};
    views.margin_plane_stride = margin.plane_stride;
  }
  const std::string what = "masks of " + std::to_string(channels) + " x " + size_text(output.height, output.width) +
                           " for " + size_text(image.height, image.width);
  Same<T> same_mask;
  Same<float> same_confidence, same_margin;
  on_every_target(random, is_large, [&](Threads& threads) {
    mask.clear(), confidence.clear(), margin.clear();
    expect(plan(logits.view, views, threads), what);
    same_mask.add(*mask.memory, what);
    same_confidence.add(*confidence.memory, what + ", confidence");
    same_margin.add(*margin.memory, what + ", margin");
  });
  logits.poison(random.between(0, channels - 1), random.between(0, output.height - 1),
                random.between(0, output.width - 1));
  on_every_target(random, is_large,
                  [&](Threads& threads) { expect(!plan(logits.view, views, threads), what + ", not finite"); });
}

void check_masks(Random& random) {
  constexpr int kClasses[] = {1, 2, 3, 4, 5, 7, 8, 16, 19, 21, 33, 150, 255, 256, 257, 300};
  for (int width = 1; width <= kMostWidth; ++width) {
    for (int round = 0; round < 8; ++round) {
      const int channels = random.one_of(kClasses), most = channels > 30 ? 4 : 9;
      const int other = random.between(1, channels > 30 ? 30 : kMostWidth);
      const bool is_image = channels > 30 || random.coin();
      const Size image{random.between(1, most), is_image ? width : other};
      const Size output{random.between(1, most), is_image ? other : width};
      MaskRule rule = mask_rule(random, channels);
      if (rule.table.empty() && (channels <= 256 || rule.decision != Decision::argmax) && random.coin()) {
        check_mask_decoder<uint8_t>(random, channels, image, output, rule, false);
      } else {
        check_mask_decoder<uint16_t>(random, channels, image, output, rule, false);
      }
    }
  }
}

void check_large_masks(Random& random) {
  for (const int channels : {1, 3, 19}) {
    for (int round = 0; round < 6; ++round) {
      const Size image{random.between(150, 200), random.between(250, 300)};
      const Size output = round % 2 ? Size{random.between(5, 40), random.between(5, 70)} : Size{170, 260};
      check_mask_decoder<uint8_t>(random, channels, image, output, MaskRule{}, true);
    }
  }
}

template <class T>
void check_labels(Random& random) {
  for (int width = 1; width <= kMostWidth; ++width) {
    const Size image{random.between(1, 9), width}, output{random.between(1, 9), random.between(1, kMostWidth)};
    const MaskCase one = mask_case(random, image, output, MaskRule{});
    const LabelResampler plan(one.whole, one.window, one.visible);
    Planes<T> labels(random, output, 1), mask(random, image, 1);
    random.fill(labels.memory->data(), labels.memory->bytes());
    Same<T> same;
    on_every_target(random, false, [&](Threads& threads) {
      mask.clear();
      plan(PlaneView<const T>{labels.memory->data(), labels.row_stride},
           PlaneView<T>{mask.memory->data(), mask.row_stride}, threads);
      same.add(*mask.memory, "labels");
    });
  }
}

// ---------------------------------------------------------------------------------------------------------- overlay

template <class T>
void check_overlay(Random& random) {
  for (int width = 1; width <= kMostWidth; ++width) {
    const PixelFormat format = random.one_of({PixelFormat::rgb, PixelFormat::bgr, PixelFormat::gray});
    const Size size{random.between(1, 9), width};
    std::vector<uint8_t> colors(3 * static_cast<size_t>(random.between(0, 20)));
    random.fill(colors.data(), colors.size());
    const Palette palette(colors, random.between(0, 256));
    Camera camera(random, size, format);
    if (random.between(0, 3) == 0) camera.view.data = nullptr;
    Planes<T> mask(random, size, 1);
    random.fill(mask.memory->data(), mask.memory->bytes());
    for (size_t i = 0; i < mask.memory->size(); ++i) {  // runs of one class
      if (random.between(0, 4))
        (*mask.memory)[static_cast<int64_t>(i)] = (*mask.memory)[static_cast<int64_t>(i ? i - 1 : 0)];
    }
    Planes<uint8_t> out(random, {size.height, 3 * width}, 1);
    Same<uint8_t> same;
    on_every_target(random, false, [&](Threads& threads) {
      out.clear();
      overlay<T>(camera.view, {mask.memory->data(), mask.row_stride}, palette, {out.memory->data(), out.row_stride},
                 threads);
      same.add(*out.memory, "overlay");
    });
  }
}

// -------------------------------------------------------------------------------------------------------- bad input

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

int main(int count, char** arguments) {
  Random random(count > 1 ? static_cast<unsigned>(std::atoi(arguments[1])) : 20);
  check_refusals();
  check_refused_views();
  check_preprocess(random);
  check_large_preprocess(random);
  check_mirrored(random);
  check_masks(random);
  check_large_masks(random);
  check_labels<uint8_t>(random);
  check_labels<uint16_t>(random);
  check_overlay<uint8_t>(random);
  check_overlay<uint16_t>(random);
  return checks::report();
}
