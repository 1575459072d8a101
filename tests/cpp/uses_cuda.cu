// uses_cuda.cu: calls of every function of cuda.h, to check that nvcc compiles it beside the CPU headers.
#include <vector>

#include "seginfer/seginfer.h"
#include "seginfer/cuda.h"

int main() {
  using namespace seginfer;
  const Geometry geometry = letterbox({1080, 1920}, {512, 1024});
  const Taps taps = opencv_taps(geometry.image().height, geometry.resized().height, false);
  const DeviceBuffer<int> index(taps.index), weights(taps.fixed);
  PreprocessPixel image{};
  image.row_index = index.data(), image.row_weight = weights.data();
  DeviceBuffer<PreprocessPixel> images(std::vector<PreprocessPixel>{image});
  images = DeviceBuffer<PreprocessPixel>(std::vector<PreprocessPixel>{image});
  const DeviceBuffer<LabelCell> cells(1);
  const DeviceBuffer<MaskPixel> masks(1);
  const DeviceBuffer<OverlayPixel> overlays(1);
  Stream stream;
  Event start, end;
  start.record(stream);
  launch_preprocess(images.data(), 1, geometry.input(), false, stream);
  launch_label(cells.data(), 1, {128, 256}, stream);
  launch_mask(masks.data(), 1, geometry.image(), stream);
  launch_maps(masks.data(), 1, geometry.image(), stream);
  launch_overlay(overlays.data(), 1, geometry.image(), stream);
  end.record(stream);
  end.synchronize();
  stream.synchronize();
  return end.milliseconds_since(start) > 0 ? 0 : 1;
}
