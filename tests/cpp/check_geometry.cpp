// check_geometry.cpp: prints placements by geometry.h, which the test compares with Python.
//
// Reads lines of "policy image_height image_width input_height input_width is_centered".
#include <cstdio>
#include <iostream>

#include "seginfer/geometry.h"

namespace {

using namespace seginfer;

Geometry place(const std::string& policy, Size image, Size input, bool is_centered) {
  if (policy == "stretch") return stretch(image, input);
  if (policy == "pad") return pad(image, input, is_centered);
  if (policy == "letterbox") return letterbox(image, input, is_centered);
  if (policy == "center-crop") return center_crop(image, input);
  throw std::runtime_error("unknown policy " + policy);
}

void print(const Rect& rect) { std::printf(" %d %d %d %d", rect.top, rect.left, rect.height, rect.width); }

}  // namespace

int main() {
  std::string policy;
  Size image, input;
  bool is_centered = false;
  while (std::cin >> policy >> image.height >> image.width >> input.height >> input.width >> is_centered) {
    try {
      const Geometry geometry = place(policy, image, input, is_centered);
      const Size resized = geometry.resized();
      const Offset offset = geometry.offset();
      std::printf("%d %d %d %d", resized.height, resized.width, offset.y, offset.x);
      print(geometry.content());
      print(geometry.visible());
      std::printf("\n");
    } catch (const InputError& error) {
      std::printf("refused: %s\n", error.what());
    }
  }
}
