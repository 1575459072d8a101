// fuzz_kernels.cpp: plans of any arguments refuse them, or touch no byte outside of their arrays, and every instruction
// set writes the same. For libFuzzer, or with replay.cpp for kept inputs.
#include "mask_cases.h"
#include "preprocess_cases.h"

namespace {

using namespace checks;

// A value, or now and then a limit that most places refuse.
int odd(Random& random, int value) {
  constexpr int kLimits[] = {0, -1, std::numeric_limits<int>::min(), std::numeric_limits<int>::max(), kMaxSide + 1};
  return random.chance(64) ? random.one_of(kLimits) : value;
}

Size size_of(Random& random, int most = 70) { return {random.between(1, most), random.between(1, most)}; }

Geometry geometry_of(Random& random) {
  const Size image = size_of(random), input = size_of(random);
  if (random.chance(4)) return placed(random, image, input);
  const Offset offset{random.between(-40, 40), random.between(-40, 40)};
  const Size resized = random.coin() ? image : size_of(random, 90);
  return {{odd(random, image.height), image.width},
          {input.height, odd(random, input.width)},
          {odd(random, resized.height), resized.width},
          {offset.y, odd(random, offset.x)}};
}

void fuzz_preprocess(Random& random) {
  const PixelFormat format = random.one_of(kFormats);
  const Resampling resampling = random.one_of(kResamplings);
  const DType dtype = dtype_of(random, resampling);
  PixelRule rule = rule_of(random, resampling, dtype);
  rule.is_mirrored = random.chance(4);
  check_preprocessor(random, geometry_of(random), format, rule, dtype, false);
}

void fuzz_masks(Random& random) {
  constexpr int kClasses[] = {1, 2, 3, 5, 8, 19, 33, 300};
  const int channels = random.one_of(kClasses);
  MaskRule rule = mask_rule(random, channels);
  rule.upsampling = odd(random, rule.upsampling);
  const Size image = size_of(random), output = size_of(random, channels > 33 ? 9 : 40);
  if (channels <= 256 && rule.table.empty()) {
    check_mask_decoder<uint8_t>(random, channels, image, output, rule, false);
  } else {
    check_mask_decoder<uint16_t>(random, channels, image, output, rule, false);
  }
}

// Windows and visible parts that need not fit their geometry.
void fuzz_windows(Random& random) {
  const Geometry whole = geometry_of(random);
  const OutputWindow window{size_of(random), {odd(random, random.between(-9, 70)), 0}, size_of(random, 9)};
  const Rect seen = whole.visible();
  const Rect visible{odd(random, seen.top + random.between(-1, 2)), seen.left, seen.height - random.between(-1, 2),
                     odd(random, seen.width)};
  const LabelResampler plan(whole, window, visible);
  Block<uint8_t> labels(static_cast<int64_t>(window.size.height) * window.size.width);
  const int64_t rows = visible.top + visible.height, columns = visible.left + visible.width;
  Block<uint8_t> mask(rows * columns);
  random.fill(labels.data(), labels.bytes());
  Same<uint8_t> same;
  on_every_target(random, false, [&](Threads& threads) {
    plan(PlaneView<const uint8_t>{labels.data(), window.size.width}, PlaneView<uint8_t>{mask.data(), columns}, threads);
    same.add(mask, "labels of a window");
  });
}

void fuzz_palette(Random& random) {
  std::vector<uint8_t> colors(random.below(60));
  random.fill(colors.data(), colors.size());
  Palette(colors, odd(random, random.between(0, 257)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Random random(data, size);
  try {
    switch (random.between(0, 7)) {
      case 0:
      case 1:
        fuzz_preprocess(random);
        break;
      case 2:
      case 3:
        fuzz_masks(random);
        break;
      case 4:
        fuzz_windows(random);
        break;
      case 5:
        random.coin() ? check_labels<uint8_t>(random, random.between(1, 70))
                      : check_labels<uint16_t>(random, random.between(1, 70));
        break;
      case 6:
        random.coin() ? check_overlay<uint8_t>(random, random.between(1, 70))
                      : check_overlay<uint16_t>(random, random.between(1, 70));
        break;
      default:
        fuzz_palette(random);
    }
  } catch (const InputError&) {
  }
  if (failures) std::abort();
  return 0;
}
