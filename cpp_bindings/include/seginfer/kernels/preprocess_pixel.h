// preprocess_pixel.h: computes one pixel of the network input from an image. Includes only headers of this folder.
#pragma once

#include "enums.h"
#include "filters.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

template <Source kSource>
SEG_HD constexpr int channels_of() {
  return kSource == Source::gray ? 1 : 3;
}

// Plain data: kernels take an array of records, one per image of a batch, each with its own geometry. Pitches, and the
// number of values of an input, are below 2^31.
struct PreprocessPixel {
  const uint8* pixels;  // packed4 is read in words: its first byte and its pitch are multiples of 4; luma of yuv
  int64 row_bytes;
  const uint8 *u, *v;  // yuv only
  int64 chroma_row_bytes;
  const int* row_index;    // (row_taps, content_height)
  const int* col_index;    // (col_taps, content_width)
  const void* row_weight;  // float32, or int32 for opencv and pillow
  const void* col_weight;
  void* out;
  int channel_stride, row_stride, column_stride;  // in values
  Source source;
  Filter filter;
  int row_taps, col_taps;
  int top, left, content_height, content_width;  // the content inside the input
  int height, width;                             // the input
  int channels;
  int value_bytes;  // 4: float32, 2: float16, 1: uint8
  int order[3];     // byte of a pixel for each channel of the network
  float gain[3], bias[3], padding[3];
  int luma_step, chroma_step;  // bytes from a value of yuv to the next of its kind; two columns share chroma
  int chroma_shift;            // 1 if two rows share chroma, else 0
  YuvToRgb yuv;

  SEG_HD bool has_content(int x, int y) const {
    return x >= left && x < left + content_width && y >= top && y < top + content_height;
  }

  // The values of one source pixel, 0..255, in the order of its bytes; yuv counts as rgb.
  template <Source kSource>
  SEG_HD void fetch(const uint8* line, int row, int column, int* levels) const {
    if constexpr (kSource == Source::packed3) {
      const uint8* p = line + 3 * column;
      for (int c = 0; c < 3; ++c) levels[c] = loaded(p + c);
    } else if constexpr (kSource == Source::packed4) {
      const uint32 word = loaded(reinterpret_cast<const uint32*>(line) + column);
      for (int c = 0; c < 3; ++c) levels[c] = static_cast<int>((word >> 8 * c) & 255u);
    } else if constexpr (kSource == Source::gray) {
      levels[0] = loaded(line + column);
    } else {
      const int at = (column >> 1) * chroma_step;
      const int64 before = static_cast<int64>(row >> chroma_shift) * static_cast<int>(chroma_row_bytes) + at;
      rgb_from_yuv<int>(loaded(line + column * luma_step), loaded(u + before), loaded(v + before), yuv, levels[0],
                        levels[1], levels[2]);
    }
  }

  // A source row, resampled along its length at column x of the content.
  template <class F, Source kSource, int kTaps>
  SEG_HD void row_cells(int row, int x, typename F::Cell* cells) const {
    const uint8* line = pixels + static_cast<int64>(row) * static_cast<int>(row_bytes);  // one multiplication
    for (int c = 0; c < channels_of<kSource>(); ++c) cells[c] = F::row_start();
    const auto add = [&](int at) {
      int levels[3];
      fetch<kSource>(line, row, loaded(col_index + at), levels);
      for (int c = 0; c < channels_of<kSource>(); ++c) cells[c] = F::add_pixel(cells[c], levels[c], col_weight, at);
    };
    if constexpr (kTaps > 0) {
      for (int tap = 0; tap < kTaps; ++tap) add(tap * content_width + x);
    } else {
      SEG_NO_UNROLL
      for (int tap = 0, at = x; tap < col_taps; ++tap, at += content_width) {
        SEG_TRIP;
        add(at);
      }
    }
    for (int c = 0; c < channels_of<kSource>(); ++c) cells[c] = F::row_end(cells[c]);
  }

  // Combines cells of the source rows that row y of the content reads; `cells_of(row, cells)` sets them.
  template <class F, Source kSource, int kTaps, class T, class CellsOf>
  SEG_HD void content_pixel(int x, int y, const CellsOf& cells_of) const {
    typename F::Cell sums[3] = {F::column_start(), F::column_start(), F::column_start()};
    const auto add = [&](int at) {
      typename F::Cell cells[3];
      cells_of(loaded(row_index + at), cells);
      for (int c = 0; c < channels_of<kSource>(); ++c) sums[c] = F::add_cell(sums[c], cells[c], row_weight, at);
    };
    if constexpr (kTaps > 0) {
      for (int tap = 0; tap < kTaps; ++tap) add(tap * content_height + y);
    } else {
      SEG_NO_UNROLL
      for (int tap = 0, at = y; tap < row_taps; ++tap, at += content_height) {
        SEG_TRIP;
        add(at);
      }
    }
    T* to = at<T>(left + x, top + y);
    for (int c = 0; c < channels_of<kSource>(); ++c) {
      const bool is_swapped = channels_of<kSource>() == 3 && order[0] != 0;
      const int channel = is_swapped ? 2 - c : c;
      const float scale = is_swapped ? gain[2 - c] : gain[c], shift = is_swapped ? bias[2 - c] : bias[c];
      put(to + channel * channel_stride, normalized(F::column_end(sums[c]), scale, shift));
    }
  }

  // Pixel (x, y) of the input.
  template <class F, Source kSource, int kTaps, class T>
  SEG_HD void pixel(int x, int y) const {
    if (!has_content(x, y)) return padding_pixel<T>(x, y);
    content_pixel<F, kSource, kTaps, T>(x - left, y - top, [this, x](int row, typename F::Cell* cells) {
      row_cells<F, kSource, kTaps>(row, x - left, cells);
    });
  }

  template <class T>
  SEG_HD void padding_pixel(int x, int y) const {
    T* to = at<T>(x, y);
    for (int c = 0; c < 3; ++c) {
      if (c < channels) put(to + c * channel_stride, padding[c]);
    }
  }

  template <class T>
  SEG_HD T* at(int x, int y) const {
    return static_cast<T*>(out) + (y * row_stride + x * column_stride);
  }

  static SEG_HD void put(float* to, float value) { *to = value; }
  static SEG_HD void put(uint16* to, float value) { *to = half_from_float(value); }
  static SEG_HD void put(uint8* to, float value) { *to = static_cast<uint8>(value); }
};

static_assert(sizeof(PreprocessPixel) == 224, "seginfer/_cuda/kernel_args.py states the same layout");

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
