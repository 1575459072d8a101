// mask_cases.h: one call of the mask step or an overlay, with arrays of exact size, on every instruction set.
#pragma once

#include <limits>
#include <vector>

#include "cases.h"

namespace checks {

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

struct MaskCase {
  Geometry whole;
  OutputWindow window;
  Rect visible;
};

// An output of the whole image, or one tile's window of it.
inline MaskCase mask_case(Random& random, Size image, Size output, const MaskRule& rule) {
  const int factor = random.between(1, 4) * (rule.upsampling > 0 && rule.upsampling < 9 ? rule.upsampling : 1);
  const Size input{output.height * factor, output.width * factor};
  if (random.between(0, 3)) {
    const Geometry whole = placed(random, image, input);
    return {whole, {output, {0, 0}, output}, whole.visible()};
  }
  const Size frame{std::max(image.height, input.height) + 8, std::max(image.width, input.width) + 8};
  const Geometry whole{image, frame, image, {random.between(0, 8), random.between(0, 8)}};
  const Size cells{std::max(1, frame.height / factor), std::max(1, frame.width / factor)};
  const Offset corner{random.between(-2, cells.height), random.between(-2, cells.width)};
  const int top = random.between(0, image.height - 1), left = random.between(0, image.width - 1);
  const Rect visible{top, left, random.between(0, image.height - top), random.between(0, image.width - left)};
  return {whole, {cells, corner, output}, visible};
}

inline MaskRule mask_rule(Random& random, int channels) {
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

template <class T>
void check_labels(Random& random, int width) {
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

template <class T>
void check_overlay(Random& random, int width) {
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

}  // namespace checks
