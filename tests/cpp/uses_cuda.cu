// uses_cuda.cu: an image through every step of cuda.h, to check that nvcc compiles it beside the CPU headers, and on a
// GPU, that it paints a half of each of two classes.
#include <vector>

#include "seginfer/cuda.h"
#include "seginfer/seginfer.h"

namespace {

using namespace seginfer;

constexpr int kHeight = 32, kWidth = 48, kCells = 4;  // of the image and of the logits, which are 4 x 4
constexpr int kPixels = kHeight * kWidth;

// Indices and weights of an axis in device memory.
struct DeviceTaps {
  DeviceBuffer<int> index, run, fixed;
  DeviceBuffer<float> weight;

  explicit DeviceTaps(const Taps& taps)
      : index(taps.index), run(run_numbers(taps)), fixed(taps.fixed), weight(taps.weight) {}
};

// A grey image of 48 x 32 becomes 24 x 16 values, the logits of two halves its mask, and both an overlay.
int paint(cudaStream_t users) {
  const Stream stream(users);
  PinnedBuffer<uint8> pixels(3 * kPixels), painted(3 * kPixels), labels(kPixels);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = 100;
  DeviceBuffer<uint8> image(pixels.size()), mask(kPixels), out(pixels.size());
  image.copy_from(pixels, stream);

  const DeviceTaps rows(opencv_taps(kHeight, kHeight / 2, false)), cols(opencv_taps(kWidth, kWidth / 2, true));
  const DeviceBuffer<float> batch(3 * kPixels / 4);
  PreprocessPixel input{};
  input.pixels = image.data(), input.row_bytes = 3 * kWidth, input.out = batch.data();
  input.row_index = rows.index.data(), input.row_weight = rows.fixed.data(), input.row_taps = 2;
  input.col_index = cols.index.data(), input.col_weight = cols.fixed.data(), input.col_taps = 2;
  input.channel_stride = kPixels / 4, input.row_stride = kWidth / 2, input.column_stride = 1;
  input.height = input.content_height = kHeight / 2, input.width = input.content_width = kWidth / 2;
  input.channels = 3, input.order[1] = 1, input.order[2] = 2;
  for (float& gain : input.gain) gain = 1.0f;
  const DeviceBuffer<PreprocessPixel> inputs(std::vector<PreprocessPixel>{input});
  launch_preprocess<Source::packed3, OpenCVFilter, 2, float>(inputs.data(), 1, {kHeight / 2, kWidth / 2}, stream);

  std::vector<float> values(2 * kCells * kCells);
  for (int i = 0; i < kCells * kCells; ++i) values[static_cast<size_t>(i)] = i % kCells < kCells / 2 ? 1.0f : -1.0f;
  const DeviceBuffer<float> logits(values), confidence(kPixels), margin(kPixels);
  const DeviceTaps y(torch_taps(kCells, kHeight)), x(torch_taps(kCells, kWidth));
  DeviceBuffer<uint32> faults(1);
  faults.clear(stream);
  MaskPixel plane{};
  plane.logits = logits.data(), plane.mask = mask.data(), plane.faults = faults.data();
  plane.row_index = y.index.data(), plane.row_weight = y.weight.data(), plane.row_run = y.run.data();
  plane.col_index = x.index.data(), plane.col_weight = x.weight.data(), plane.col_run = x.run.data();
  plane.confidence = confidence.data(), plane.margin = margin.data();
  plane.mask_row_stride = plane.confidence_row_stride = plane.margin_row_stride = kWidth;
  plane.plane_stride = kCells * kCells, plane.row_stride = kCells, plane.column_stride = 1;
  plane.classes = 2, plane.height = plane.width = kCells, plane.taps = 2;
  plane.rows = kHeight, plane.cols = kWidth, plane.mask_bytes = 1;
  const DeviceBuffer<MaskPixel> planes(std::vector<MaskPixel>{plane});
  launch_mask<2, float>(planes.data(), 1, {kHeight, kWidth}, stream);
  launch_maps<2, float>(planes.data(), 1, {kHeight, kWidth}, stream);

  const DeviceBuffer<PaletteEntry> palette(std::vector<PaletteEntry>{{0, {256, 0, 0}}, {256, {}}, {256, {}}});
  OverlayPixel overlay{};
  overlay.pixels = image.data(), overlay.row_bytes = overlay.out_row_bytes = 3 * kWidth;
  overlay.mask = mask.data(), overlay.mask_row_stride = kWidth, overlay.palette = palette.data();
  overlay.out = out.data(), overlay.height = kHeight, overlay.width = kWidth;
  overlay.channels = 3, overlay.mask_bytes = 1, overlay.classes = 2;
  const DeviceBuffer<OverlayPixel> overlays(std::vector<OverlayPixel>{overlay});
  launch_overlay(overlays.data(), 1, {kHeight, kWidth}, stream);
  mask.copy_to(labels, stream);
  out.copy_to(painted, stream);
  stream.synchronize();
  const bool is_right = labels[0] == 0 && labels[kWidth - 1] == 1 && painted[0] == 1 && painted[3 * kWidth - 1] == 100;
  return is_right ? 0 : 1;
}

}  // namespace

int main() {
  const Stream stream;
  Event start, end;
  start.record(stream);
  const int result = paint(stream.handle());
  end.record(stream);
  end.synchronize();
  return end.milliseconds_since(start) > 0 ? result : 1;
}
