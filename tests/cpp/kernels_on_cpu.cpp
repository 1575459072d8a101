// kernels_on_cpu.cpp: the CUDA kernels as a CPU library for tests: whole grids, or one functor at a time.
#include "cuda_on_cpu.h"
// After the shim, which stands in for CUDA:
#include "seginfer/kernels/kernels.cuh"

#include <cstddef>
#include <cstring>

namespace seginfer {
namespace {

template <Source kSource>
void preprocess_pixel(const PreprocessPixel& job, int x, int y) {
  switch (job.filter) {
    case Filter::pick:
      return job.pixel<PickFilter, kSource, 1>(x, y);
    case Filter::weighted:
      return job.pixel<WeightedFilter, kSource, 0>(x, y);
    case Filter::opencv:
      return job.pixel<OpenCVFilter, kSource, 2>(x, y);
    case Filter::pillow:
      return job.pixel<PillowFilter, kSource, 0>(x, y);
  }
}

struct OnePixel {
  const PreprocessPixel& job;
  int x, y;

  template <Source kSource>
  void run() const {
    preprocess_pixel<kSource>(job, x, y);
  }
};

template <class T>
void mask_pixel(const MaskPixel& job, int x, int y) {
  switch (job.taps) {
    case 1:
      return job.pixel<1, T>(x, y);
    case 2:
      return job.pixel<2, T>(x, y);
    default:
      return job.pixel<3, T>(x, y);
  }
}

template <class Call>
void for_each_pixel(int height, int width, const Call& call) {
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) call(x, y);
  }
}

}  // namespace
}  // namespace seginfer

extern "C" {

// Runs a kernel by name over a grid; returns whether there is one of that name.
int launch(const char* name, const void* records, unsigned x, unsigned y, unsigned z) {
  using namespace seginfer;
  const auto call = [&](const char* known, auto kernel, auto* first) {
    if (std::strcmp(name, known) != 0) return 0;
    cuda_on_cpu::launch({x, y, z}, {kBlockX, kBlockY, 1}, [&] { kernel(static_cast<decltype(first)>(records)); });
    return 1;
  };
  const PreprocessPixel* images = nullptr;
  const LabelCell* cells = nullptr;
  const MaskPixel* masks = nullptr;
  const OverlayPixel* overlays = nullptr;
  return call("seginfer_preprocess", seginfer_preprocess, images) ||
         call("seginfer_preprocess_filtered", seginfer_preprocess_filtered, images) ||
         call("seginfer_label", seginfer_label, cells) || call("seginfer_mask", seginfer_mask, masks) ||
         call("seginfer_maps", seginfer_maps, masks) || call("seginfer_overlay", seginfer_overlay, overlays);
}

// The functors, pixel by pixel.
void preprocess_pixels(const seginfer::PreprocessPixel* record) {
  seginfer::for_each_pixel(record->height, record->width, [&](int x, int y) {
    seginfer::with_source(record->source, seginfer::OnePixel{*record, x, y});
  });
}

void mask_pixels(const seginfer::MaskPixel* record) {
  seginfer::for_each_pixel(record->rows, record->cols, [&](int x, int y) {
    record->kind == seginfer::DType::float16 ? seginfer::mask_pixel<seginfer::uint16>(*record, x, y)
                                             : seginfer::mask_pixel<float>(*record, x, y);
  });
}

// The layout of the records: size, then the offset of every field in order.
#define SIZE(type) *to++ = static_cast<int>(sizeof(seginfer::type))
#define OFFSET(type, field) *to++ = static_cast<int>(offsetof(seginfer::type, field))

void layout(int* to) {
  SIZE(PreprocessPixel);
  OFFSET(PreprocessPixel, pixels), OFFSET(PreprocessPixel, row_bytes), OFFSET(PreprocessPixel, u);
  OFFSET(PreprocessPixel, v), OFFSET(PreprocessPixel, chroma_row_bytes), OFFSET(PreprocessPixel, row_index),
      OFFSET(PreprocessPixel, col_index);
  OFFSET(PreprocessPixel, row_weight), OFFSET(PreprocessPixel, col_weight), OFFSET(PreprocessPixel, out);
  OFFSET(PreprocessPixel, channel_stride), OFFSET(PreprocessPixel, row_stride);
  OFFSET(PreprocessPixel, column_stride), OFFSET(PreprocessPixel, source), OFFSET(PreprocessPixel, filter);
  OFFSET(PreprocessPixel, row_taps), OFFSET(PreprocessPixel, col_taps), OFFSET(PreprocessPixel, top);
  OFFSET(PreprocessPixel, left), OFFSET(PreprocessPixel, content_height), OFFSET(PreprocessPixel, content_width);
  OFFSET(PreprocessPixel, height), OFFSET(PreprocessPixel, width), OFFSET(PreprocessPixel, channels);
  OFFSET(PreprocessPixel, value_bytes), OFFSET(PreprocessPixel, order), OFFSET(PreprocessPixel, gain);
  OFFSET(PreprocessPixel, bias), OFFSET(PreprocessPixel, padding), OFFSET(PreprocessPixel, luma_step);
  OFFSET(PreprocessPixel, chroma_step), OFFSET(PreprocessPixel, chroma_shift), OFFSET(PreprocessPixel, yuv);

  SIZE(LabelCell);
  OFFSET(LabelCell, values), OFFSET(LabelCell, channel_stride), OFFSET(LabelCell, row_stride);
  OFFSET(LabelCell, column_stride), OFFSET(LabelCell, labels), OFFSET(LabelCell, faults), OFFSET(LabelCell, kind);
  OFFSET(LabelCell, classes), OFFSET(LabelCell, height), OFFSET(LabelCell, width), OFFSET(LabelCell, is_threshold);
  OFFSET(LabelCell, threshold);

  SIZE(MaskPixel);
  OFFSET(MaskPixel, logits), OFFSET(MaskPixel, plane_stride), OFFSET(MaskPixel, row_stride);
  OFFSET(MaskPixel, column_stride), OFFSET(MaskPixel, labels), OFFSET(MaskPixel, row_index);
  OFFSET(MaskPixel, row_weight), OFFSET(MaskPixel, col_index), OFFSET(MaskPixel, col_weight);
  OFFSET(MaskPixel, table), OFFSET(MaskPixel, mask), OFFSET(MaskPixel, mask_row_stride);
  OFFSET(MaskPixel, confidence), OFFSET(MaskPixel, confidence_row_stride), OFFSET(MaskPixel, margin);
  OFFSET(MaskPixel, margin_row_stride), OFFSET(MaskPixel, kind), OFFSET(MaskPixel, classes), OFFSET(MaskPixel, width);
  OFFSET(MaskPixel, taps), OFFSET(MaskPixel, rows), OFFSET(MaskPixel, cols), OFFSET(MaskPixel, mask_bytes);
  OFFSET(MaskPixel, is_threshold), OFFSET(MaskPixel, threshold), OFFSET(MaskPixel, confidence_kind);

  SIZE(OverlayPixel);
  OFFSET(OverlayPixel, pixels), OFFSET(OverlayPixel, row_bytes), OFFSET(OverlayPixel, mask);
  OFFSET(OverlayPixel, mask_row_stride), OFFSET(OverlayPixel, palette), OFFSET(OverlayPixel, out);
  OFFSET(OverlayPixel, out_row_bytes), OFFSET(OverlayPixel, height), OFFSET(OverlayPixel, width);
  OFFSET(OverlayPixel, channels), OFFSET(OverlayPixel, mask_bytes), OFFSET(OverlayPixel, classes);
}

// Output sizes of a block, from which grids are computed.
void tiles(int* to) {
  for (const int value : {seginfer::kBlockX, seginfer::kBlockY, seginfer::kGatherRows, seginfer::kFilterRows,
                          seginfer::kMaskCols, seginfer::kMaskRows, seginfer::kOverlayCols}) {
    *to++ = value;
  }
}

}  // extern "C"
