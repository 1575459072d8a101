// kernels_on_cpu.cpp: the CUDA kernels as a CPU library for tests. KERNELS names a file with the source of the kernels.
#include "cuda_on_cpu.h"
// After the shim, which stands in for CUDA:
#include KERNELS
#include "seginfer/kernels/kernels.cuh"

#include <cstddef>
#include <cstdio>
#include <cstring>

extern "C" {

// Runs a kernel of the library over a grid.
void launch(void (*kernel)(const void*), const void* records, unsigned x, unsigned y, unsigned z) {
  cuda_on_cpu::launch({x, y, z}, {seginfer::kBlockX, seginfer::kBlockY, 1}, [&] { kernel(records); });
}

// Writes how often warps passed each marked place since the last call, its line and its file.
void take_trips(char* to, size_t size) {
  *to = 0;
  for (cuda_on_cpu::Trip* trip : cuda_on_cpu::known_trips) {
    const size_t used = std::strlen(to);
    std::snprintf(to + used, size - used, "%llu %d %s\n", trip->of_warps, trip->line, trip->file);
    trip->of_warps = 0;
  }
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

  SIZE(MaskPixel);
  OFFSET(MaskPixel, logits), OFFSET(MaskPixel, row_index), OFFSET(MaskPixel, row_weight);
  OFFSET(MaskPixel, row_run), OFFSET(MaskPixel, col_index), OFFSET(MaskPixel, col_weight);
  OFFSET(MaskPixel, col_run), OFFSET(MaskPixel, table), OFFSET(MaskPixel, mask);
  OFFSET(MaskPixel, confidence), OFFSET(MaskPixel, margin), OFFSET(MaskPixel, faults);
  OFFSET(MaskPixel, mask_row_stride), OFFSET(MaskPixel, confidence_row_stride), OFFSET(MaskPixel, margin_row_stride);
  OFFSET(MaskPixel, plane_stride), OFFSET(MaskPixel, row_stride), OFFSET(MaskPixel, column_stride);
  OFFSET(MaskPixel, kind), OFFSET(MaskPixel, classes), OFFSET(MaskPixel, height);
  OFFSET(MaskPixel, width), OFFSET(MaskPixel, taps), OFFSET(MaskPixel, rows);
  OFFSET(MaskPixel, cols), OFFSET(MaskPixel, mask_bytes), OFFSET(MaskPixel, is_threshold), OFFSET(MaskPixel, threshold);
  OFFSET(MaskPixel, confidence_kind);

  SIZE(OverlayPixel);
  OFFSET(OverlayPixel, pixels), OFFSET(OverlayPixel, row_bytes), OFFSET(OverlayPixel, mask);
  OFFSET(OverlayPixel, mask_row_stride), OFFSET(OverlayPixel, palette), OFFSET(OverlayPixel, out);
  OFFSET(OverlayPixel, out_row_bytes), OFFSET(OverlayPixel, height), OFFSET(OverlayPixel, width);
  OFFSET(OverlayPixel, channels), OFFSET(OverlayPixel, mask_bytes), OFFSET(OverlayPixel, classes);
}

// Output sizes of a block, from which grids are computed.
void tiles(int* to) {
  for (const int value : {seginfer::kBlockX, seginfer::kBlockY, seginfer::kGatherRows, seginfer::kFilterRows,
                          seginfer::kMaskCols, seginfer::kMaskRows, seginfer::kMapRows, seginfer::kOverlayCols}) {
    *to++ = value;
  }
}

}  // extern "C"
