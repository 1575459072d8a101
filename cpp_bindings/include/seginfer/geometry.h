// geometry.h: placement of an image in the network input, in integers. Same results as seginfer/_geometry.
#pragma once

#include <algorithm>
#include <cstdint>

#include "error.h"

namespace seginfer {

// Longest side of an image, an input or an output; products of three sides fit 64 bits.
constexpr int kMaxSide = 1 << 20;

struct Size {
  int height = 0;
  int width = 0;
};

struct Offset {
  int y = 0;
  int x = 0;
};

struct Rect {
  int top = 0;
  int left = 0;
  int height = 0;
  int width = 0;
};

inline void check_size(Size size, const char* what) {
  SEG_REQUIRE(size.height >= 1 && size.width >= 1 && size.height <= kMaxSide && size.width <= kMaxSide,
              std::string(what) + " must have sides of 1.." + std::to_string(kMaxSide) + ", got " +
                  size_text(size.height, size.width));
}

inline void check_offset(Offset offset, const char* what) {
  const auto is_near = [](int value) { return value >= -kMaxSide && value <= kMaxSide; };
  SEG_REQUIRE(is_near(offset.y) && is_near(offset.x), std::string(what) + " must be within " +
                                                          std::to_string(kMaxSide) + " of the origin, got " +
                                                          std::to_string(offset.y) + ", " + std::to_string(offset.x));
}

// One axis of a Geometry, which alone makes it: `image` pixels are resized to `resized`, which start at `offset` of
// `input`.
class Axis {
 public:
  const int64_t image, resized, offset, input;

 private:
  friend class Geometry;
  Axis(int image_side, int resized_side, int start, int input_side)
      : image(image_side), resized(resized_side), offset(start), input(input_side) {}
};

struct Span {
  int first;
  int count;
};

inline int64_t floor_div(int64_t a, int64_t b) {  // b > 0
  return a / b - (a % b < 0 ? 1 : 0);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// The part of the input that shows the image.
inline Span content_of(const Axis& axis) {
  const int64_t start = std::min(std::max<int64_t>(0, axis.offset), axis.input);
  const int64_t end = std::min(axis.input, axis.offset + axis.resized);
  return {static_cast<int>(start), static_cast<int>(std::max<int64_t>(0, end - start))};
}

// The image pixels i with 0 <= (i + 1/2) * resized / image + offset < input.
inline Span visible_of(const Axis& axis) {
  const int64_t before = ceil_div(-2 * axis.offset * axis.image - axis.resized, 2 * axis.resized);
  const int64_t first = std::min(axis.image, std::max<int64_t>(0, before));
  const int64_t end =
      std::min(axis.image, ceil_div(2 * (axis.input - axis.offset) * axis.image - axis.resized, 2 * axis.resized));
  return {static_cast<int>(first), static_cast<int>(std::max<int64_t>(0, end - first))};
}

// Placement of one image: resized as a whole, then put at `offset` of the input. Every policy is this one formula.
// Offsets of letterbox and pad are not negative, and padding surrounds the image; center-crop cuts the image.
class Geometry {
 public:
  // Throws InputError if a side is not 1..kMaxSide, or the offset is farther than that from the origin.
  Geometry(Size image, Size input, Size resized, Offset offset)
      : image_(image), input_(input), resized_(resized), offset_(offset) {
    check_size(image, "the image");
    check_size(input, "the network input");
    check_size(resized, "the resized image");
    check_offset(offset, "the image's offset");
  }

  Size image() const { return image_; }
  Size input() const { return input_; }
  Size resized() const { return resized_; }
  Offset offset() const { return offset_; }

  Axis rows() const { return {image_.height, resized_.height, offset_.y, input_.height}; }
  Axis cols() const { return {image_.width, resized_.width, offset_.x, input_.width}; }

  Rect content() const {
    const Span y = content_of(rows()), x = content_of(cols());
    return {y.first, x.first, y.count, x.count};
  }

  Rect visible() const {
    const Span y = visible_of(rows()), x = visible_of(cols());
    return {y.first, x.first, y.count, x.count};
  }

 private:
  Size image_, input_, resized_;
  Offset offset_;
};

// The policies.

inline void check_sizes(Size image, Size input) {
  check_size(image, "the image");
  check_size(input, "the network input");
}

inline Geometry stretch(Size image, Size input) {
  check_sizes(image, input);
  return {image, input, input, {0, 0}};
}

// `pad` does not resize. `letterbox` resizes to the largest size of the same aspect ratio inside the input, the free
// side rounded half up. Both centre the image, or put it at the top left.
inline Geometry pad(Size image, Size input, bool is_centered = true) {
  check_sizes(image, input);
  SEG_REQUIRE(image.height <= input.height && image.width <= input.width,
              "policy pad takes images up to " + size_text(input.height, input.width) + ", got " +
                  size_text(image.height, image.width) + "; use letterbox");
  const Offset middle{(input.height - image.height) / 2, (input.width - image.width) / 2};
  return {image, input, image, is_centered ? middle : Offset{}};
}

inline Geometry letterbox(Size image, Size input, bool is_centered = true) {
  check_sizes(image, input);
  const int64_t h = image.height, w = image.width;
  Size resized = input;
  if (input.height * w <= input.width * h) {
    resized.width = static_cast<int>(std::max<int64_t>(1, (2 * w * input.height + h) / (2 * h)));
  } else {
    resized.height = static_cast<int>(std::max<int64_t>(1, (2 * h * input.width + w) / (2 * w)));
  }
  const Offset middle{(input.height - resized.height) / 2, (input.width - resized.width) / 2};
  return {image, input, resized, is_centered ? middle : Offset{}};
}

// Resizes to the smallest size of the same aspect ratio that covers the input, and cuts out the centre; halves round to
// even.
// Source: torchvision.transforms.Resize with one number, then CenterCrop.
inline Geometry center_crop(Size image, Size input) {
  check_sizes(image, input);
  const int64_t h = image.height, w = image.width;
  const bool is_wide = input.height * w >= input.width * h;
  const int64_t longer = is_wide ? w * input.height / h : h * input.width / w;
  SEG_REQUIRE(longer <= kMaxSide, "the image resized around the input must have sides of at most " +
                                      std::to_string(kMaxSide) + ", got " + std::to_string(longer) + "; cut the image");
  Size resized = input;
  (is_wide ? resized.width : resized.height) = static_cast<int>(longer);
  const auto half_even = [](int value) { return (value + (value >> 1 & 1)) >> 1; };
  return {image, input, resized, {-half_even(resized.height - input.height), -half_even(resized.width - input.width)}};
}

inline void check_samples(int n, int m) { check_size({n, m}, "the samples before and after resizing"); }

// A part without positions may lie anywhere.
inline void check_part(Span part, Span whole) {
  const int64_t first = int64_t{part.first} - whole.first;
  SEG_REQUIRE(part.count == 0 || (part.count > 0 && first >= 0 && first <= whole.count - part.count),
              "expected a part of " + std::to_string(whole.count) + " positions from " + std::to_string(whole.first) +
                  " on, got " + std::to_string(part.count) + " from " + std::to_string(part.first) + " on");
}

}  // namespace seginfer
