// check_preprocess.cpp: preprocessing touches no byte outside of its arrays, and every instruction set writes the same.
#include "preprocess_cases.h"

namespace {

using namespace checks;

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

}  // namespace

int main(int count, char** arguments) {
  Random random(count > 1 ? static_cast<unsigned>(std::atoi(arguments[1])) : 20);
  check_preprocess(random);
  check_large_preprocess(random);
  check_mirrored(random);
  return report();
}
