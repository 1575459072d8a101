// jobs.h: arguments of the row kernels, as plain numbers and pointers, and the table of kernels of each target.
#pragma once

// Row kernels are compiled for processors that the machine may not have. They must share no inline function with the
// rest of the library, or the linker might keep the wrong copy. So neither this header nor target.cpp uses standard
// containers.

#include <cstddef>
#include <cstdint>

#include "seginfer/kernels/enums.h"
#include "seginfer/kernels/yuv_to_rgb.h"

namespace seginfer {

// Elements after the last weight, label and cell that vector loads and stores may touch.
constexpr int kSlack = 32;

constexpr int kWindowColumns = 16, kWindowBytes = 128;

// Resize, pad and normalise one image into one place of a batch.
struct PreprocessJob {
  Source source;
  const uint8_t* pixels;  // luma of yuv
  int64_t row_bytes;
  const uint8_t *u, *v;  // yuv only, as the fields below
  int64_t chroma_row_bytes;
  int luma_step, chroma_step;  // bytes from a value to the next of its kind; two columns share chroma
  int chroma_shift;            // 1 if two rows share chroma, else 0
  YuvToRgb yuv;
  int image_height;
  int image_width;

  Filter filter;
  int row_taps, col_taps;
  const int* row_index;  // (row_taps, content_height)
  const int* col_index;  // (col_taps, content_width), kSlack more
  const float* row_weight;
  const float* col_weight;
  const int* row_fixed;
  const int* col_fixed;
  // A window is kWindowBytes from the first pixel of kWindowColumns columns. If it holds all of their pixels, these are
  // the byte positions of each column's pixel in it, four to a word: (col_taps, content_width), kSlack more. Else null.
  const int* col_pattern;

  int top, left, content_height, content_width;  // the content inside the input
  int height, width;                             // the input
  int channels;
  int shift[3];  // bit position of each network channel in a pixel word
  float gain[3], bias[3], padding[3];

  void* out;
  int bytes_per_value;  // 4: float32, 2: float16, 1: uint8
  int64_t channel_stride, row_stride, column_stride;
};

// One mask plane from an output of float32 or float16.
struct MaskJob {
  const void* logits;
  bool is_half;
  int64_t channel_stride, row_stride, column_stride;  // in values
  int classes, height, width;
  bool is_threshold;
  float threshold;

  int taps;  // 2 or 3
  int rows, cols;
  const int* row_index;  // (taps, rows)
  const float* row_weight;
  const int* col_index;     // (taps, cols)
  const float* col_weight;  // (taps, col_stride)
  int col_stride;           // cols and slack
  const int* runs;          // first column of each run of equal indices, then `cols`
  int run_count;
  int first_column;  // the first logit column if columns read consecutive single ones; -1 otherwise

  void* mask;
  int mask_bytes;           // per value
  int64_t mask_row_stride;  // in values
  const uint16_t* table;    // mask value of each label, or null
  Confidence confidence_kind;
  float* confidence;  // null if not requested
  int64_t confidence_row_stride;
  float* margin;  // null if not requested
  int64_t margin_row_stride;
};

// Class colours over an image, or over black.
struct OverlayJob {
  const uint8_t* pixels;  // null: black
  int64_t row_bytes;
  int channels;  // 1 or 3
  const void* mask;
  int mask_bytes;
  int64_t mask_row_stride;
  int height, width;
  int classes;
  const uint16_t* factors;  // (classes + 1); the last is for all other mask values
  const uint16_t* colors;   // (classes + 1, 3), times their weight
  uint8_t* out;
  int64_t out_row_bytes;
};

// Row kernels of one instruction set. They write rows [begin, end) and no others. Scratch is aligned to 64 bytes.
struct Target {
  const char* name;
  size_t (*preprocess_scratch)(const PreprocessJob&);
  void (*preprocess)(const PreprocessJob&, int begin, int end, void* scratch);
  size_t (*mask_scratch)(const MaskJob&);
  bool (*mask)(const MaskJob&, int begin, int end, void* scratch);  // false: a value is NaN or infinite
  void (*overlay)(const OverlayJob&, int begin, int end);
};

extern const Target target_portable;
#if defined(SEGINFER_X86_TARGETS)
extern const Target target_avx2;
extern const Target target_avx512;
#endif

}  // namespace seginfer
