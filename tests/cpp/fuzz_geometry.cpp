// fuzz_geometry.cpp: geometry.h and taps.h with any numbers refuse them, or yield positions inside the image. For
// libFuzzer, or with replay.cpp for kept inputs.
#include <algorithm>
#include <limits>

#include "check.h"
#include "seginfer/taps.h"
#include "seginfer/yuv.h"

namespace {

using namespace checks;
using namespace seginfer;

constexpr int kMostSamples = 3000;  // larger taps are refused nowhere, and take long

// A side or an offset: mostly one that is taken, often small, sometimes anything.
int number(Random& random) {
  constexpr int kLimits[] = {
      0, 1, -1, kMaxSide, kMaxSide + 1, -kMaxSide, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()};
  switch (random.between(0, 15)) {
    case 0:
      return random.one_of(kLimits);
    case 1:
      return static_cast<int>(random.below(1u << 31)) * (random.coin() ? 1 : -1);
    case 2:
    case 3:
      return random.between(1, kMaxSide);
    case 4:
      return random.between(-300, 300);
    default:
      return random.between(1, 300);
  }
}

Size size_of(Random& random) { return {number(random), number(random)}; }

bool is_inside(Rect rect, Size size) {
  return rect.top >= 0 && rect.left >= 0 && rect.height >= 0 && rect.width >= 0 &&
         (rect.height == 0 || rect.top + rect.height <= size.height) &&
         (rect.width == 0 || rect.left + rect.width <= size.width);
}

// Whether the centre of an image pixel lies in the input, from the definition.
bool is_seen(const Axis& axis, int64_t pixel) {
  const int64_t twice = (2 * pixel + 1) * axis.resized + 2 * axis.offset * axis.image;
  return 0 <= twice && twice < 2 * axis.input * axis.image;
}

void check_span(const Axis& axis, int first, int count) {
  const int64_t end = static_cast<int64_t>(first) + count;
  for (const int64_t pixel : {int64_t{0}, first - int64_t{1}, int64_t{first}, end - 1, end, axis.image - 1}) {
    if (pixel < 0 || pixel >= axis.image) continue;
    expect(is_seen(axis, pixel) == (pixel >= first && pixel < end), "the visible pixels");
  }
}

Geometry geometry_of(Random& random) {
  const Size image = size_of(random), input = size_of(random);
  switch (random.between(0, 5)) {
    case 0:
      return stretch(image, input);
    case 1:
      return pad(image, input, random.coin());
    case 2:
      return letterbox(image, input, random.coin());
    case 3:
      return center_crop(image, input);
    default:
      return {image, input, size_of(random), {number(random), number(random)}};
  }
}

void check_taps(const Taps& taps, int64_t samples) {
  for (const int index : taps.index) {
    if (index < 0 || index >= samples)
      expect(false, "index " + std::to_string(index) + " of " + std::to_string(samples));
  }
  for (int i = 0; i < taps.positions && !taps.weight.empty(); ++i) {
    float sum = 0;
    for (int t = 0; t < taps.count; ++t) sum += taps.weight_at(t, i);
    expect(sum > 0.99f && sum < 1.01f, "weights");
  }
}

void fuzz_geometry(Random& random) {
  const Geometry geometry = geometry_of(random);
  const Rect visible = geometry.visible();
  expect(is_inside(geometry.content(), geometry.input()), "the content");
  expect(is_inside(visible, geometry.image()), "the visible part");
  check_span(geometry.rows(), visible.top, visible.height);
  check_span(geometry.cols(), visible.left, visible.width);
  const int cells = number(random);
  Span span{visible.top, std::min(visible.height, kMostSamples)};
  if (random.chance(8)) span = {number(random), std::min(number(random), kMostSamples)};
  switch (random.between(0, 2)) {
    case 0:
      return check_taps(mask_taps<float>(geometry.rows(), cells, span, random.coin()), cells);
    case 1:
      return check_taps(mask_taps<double>(geometry.rows(), cells, span, random.coin()), cells);
    default:
      return check_taps(label_taps(geometry.rows(), cells, span), cells);
  }
}

void fuzz_taps(Random& random) {
  const int n = number(random), m = std::min(number(random), kMostSamples);
  switch (random.between(0, 6)) {
    case 0:
      return check_taps(torch_taps(n, m), n);
    case 1:
      return check_taps(opencv_taps(n, m, random.coin()), n);
    case 2:
      return check_taps(nearest_taps(n, m), n);
    case 3:
      return check_taps(mirrored_taps(n, m, number(random)), n);
    case 4:
      if (n > kMostSamples) return;
      return random.coin() ? check_taps(triangle_taps<float>(n, m), n) : check_taps(triangle_taps<double>(n, m), n);
    case 5:
      return check_taps(upsampling_taps(n, m, random.coin()), n);
    default:
      break;
  }
  const int between = std::min(number(random), kMostSamples);
  check_taps(compose(torch_taps(between, m), upsampling_taps(n, between, random.coin())), n);
  Taps taps = part_of(torch_taps(n, m), {number(random), number(random)});
  const int cells = number(random);
  move_into_window(taps, number(random), cells);
  check_taps(taps, cells);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Random random(data, size);
  try {
    random.coin() ? fuzz_geometry(random) : fuzz_taps(random);
  } catch (const InputError&) {
  }
  if (failures) std::abort();
  return 0;
}
