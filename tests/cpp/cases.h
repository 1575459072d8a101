// cases.h: random images and results, in heap blocks of exact size, and comparisons between instruction sets.
#pragma once

#include <algorithm>
#include <functional>
#include <thread>

#include "check.h"
#include "seginfer/cpu.h"

namespace checks {

using namespace seginfer;

constexpr int kMostWidth = 130;

// A fresh thread has no scratch memory yet, so its scratch is exactly as large as the call needs.
inline void in_a_fresh_thread(const std::function<void()>& call) { std::thread(call).join(); }

// Calls `compute(threads)` on every instruction set: with one thread, with three if large, and sometimes in a fresh
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

inline int bytes_per_pixel(PixelFormat format) {
  switch (format) {
    case PixelFormat::rgb:
    case PixelFormat::bgr:
      return 3;
    case PixelFormat::rgba:
    case PixelFormat::bgra:
      return 4;
    case PixelFormat::yuyv:
    case PixelFormat::uyvy:
      return 2;
    default:
      return 1;
  }
}

inline Geometry placed(Random& random, Size image, Size input) {
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
    if (is_yuv_420(format)) {
      const int64_t used = format == PixelFormat::i420 ? row / 2 : row;
      view.chroma_row_bytes = used + (random.coin() ? random.between(1, 70) : 0);
      for (auto* plane : {&chroma, &chroma_v}) {
        *plane = std::make_unique<Block<uint8_t>>((height / 2 - 1) * view.chroma_row_bytes + used);
        random.fill((*plane)->data(), (*plane)->bytes());
      }
      view.chroma = chroma->data(), view.chroma_v = chroma_v->data();
    }
  }

  std::unique_ptr<Block<uint8_t>> pixels, chroma, chroma_v;
  ImageView view;
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

}  // namespace checks
