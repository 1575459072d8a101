// check_masks.cpp: masks and overlays touch no byte outside of their arrays; every instruction set writes the same.
#include "mask_cases.h"

namespace {

using namespace checks;

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

}  // namespace

int main(int count, char** arguments) {
  Random random(count > 1 ? static_cast<unsigned>(std::atoi(arguments[1])) : 20);
  check_masks(random);
  check_large_masks(random);
  for (int width = 1; width <= kMostWidth; ++width) {
    check_labels<uint8_t>(random, width), check_labels<uint16_t>(random, width);
    check_overlay<uint8_t>(random, width), check_overlay<uint16_t>(random, width);
  }
  return report();
}
