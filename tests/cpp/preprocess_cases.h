// preprocess_cases.h: one call of the preprocess step, with arrays of exact size, on every instruction set.
#pragma once

#include <vector>

#include "cases.h"

namespace checks {

constexpr PixelFormat kFormats[] = {PixelFormat::rgb,  PixelFormat::bgr,  PixelFormat::rgba, PixelFormat::bgra,
                                    PixelFormat::gray, PixelFormat::nv12, PixelFormat::nv21, PixelFormat::i420,
                                    PixelFormat::yuyv, PixelFormat::uyvy};
constexpr Resampling kResamplings[] = {Resampling::opencv, Resampling::pillow, Resampling::torch,
                                       Resampling::torch_antialias, Resampling::nearest};
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

inline PixelRule rule_of(Random& random, Resampling resampling, DType dtype) {
  PixelRule rule;
  rule.resampling = resampling;
  rule.is_bgr = random.coin();
  rule.yuv_matrix = random.one_of({YuvMatrix::bt601, YuvMatrix::bt709, YuvMatrix::bt2020});
  rule.yuv_range = random.one_of({YuvRange::limited, YuvRange::full});
  for (int c = 0; c < 3; ++c) {
    rule.padding[c] = 114;
    if (dtype != DType::uint8) rule.gain[c] = 0.017f, rule.bias[c] = -2.1f, rule.padding[c] = -1.5f;
  }
  return rule;
}

inline void check_preprocessor(Random& random, const Geometry& geometry, PixelFormat format, const PixelRule& rule,
                               DType dtype, bool is_large) {
  const Preprocessor plan(geometry, format, rule);
  const Camera camera(random, geometry.image(), format);
  Batch batch(random, geometry.input(), format == PixelFormat::gray ? 1 : 3, dtype);
  Same<uint8_t> same;
  const std::string what = "preprocess of format " + std::to_string(static_cast<int>(format)) + ", resampling " +
                           std::to_string(static_cast<int>(rule.resampling)) + ", " +
                           size_text(geometry.image().height, geometry.image().width) + " to " +
                           size_text(geometry.input().height, geometry.input().width);
  on_every_target(random, is_large, [&](Threads& threads) {
    std::memset(batch.memory->data(), 0xA5, batch.memory->bytes());
    plan(camera.view, batch.view, threads);
    same.add(*batch.memory, what);
  });
  if (!is_large) expect(batch.has_clean_gaps(), what + " between rows");
}

inline Size even(PixelFormat format, Size size) {
  if (is_yuv_420(format) || is_yuv_422(format)) size.width += size.width % 2;
  if (is_yuv_420(format)) size.height += size.height % 2;
  return size;
}

inline DType dtype_of(Random& random, Resampling resampling) {
  const bool is_whole = resampling != Resampling::torch && resampling != Resampling::torch_antialias;
  constexpr DType kTypes[] = {DType::float32, DType::float16, DType::uint8};
  return kTypes[random.between(0, is_whole ? 2 : 1)];
}

}  // namespace checks
