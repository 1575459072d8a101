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

// Plain data: kernels take an array of records, one per image of a batch, each with its own geometry.
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
  int64 channel_stride, row_stride, column_stride;  // in values
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

  // The network's channels of one source pixel, 0..255.
  template <Source kSource>
  SEG_HD void fetch(int row, int column, int* levels) const {
    const uint8* p = pixels + row * row_bytes;
    if constexpr (kSource == Source::packed3) {
      p += 3 * static_cast<int64>(column);
      for (int c = 0; c < 3; ++c) levels[c] = loaded(p + order[c]);
    } else if constexpr (kSource == Source::packed4) {
      const uint32 word = loaded(reinterpret_cast<const uint32*>(p) + column);
      for (int c = 0; c < 3; ++c) levels[c] = static_cast<int>((word >> 8 * order[c]) & 255u);
    } else if constexpr (kSource == Source::gray) {
      levels[0] = loaded(p + column);
    } else {
      const int64 at = (row >> chroma_shift) * chroma_row_bytes + (column >> 1) * chroma_step;
      int red, green, blue;
      rgb_from_yuv<int>(loaded(p + column * luma_step), loaded(u + at), loaded(v + at), yuv, red, green, blue);
      levels[0] = order[0] ? blue : red;
      levels[1] = green;
      levels[2] = order[0] ? red : blue;
    }
  }

  // A source row, resampled along its length at column x of the content.
  template <class F, Source kSource, int kTaps>
  SEG_HD void row_cells(int row, int x, typename F::Cell* cells) const {
    const int taps = kTaps ? kTaps : col_taps;
    for (int c = 0; c < channels_of<kSource>(); ++c) cells[c] = F::row_start();
    for (int tap = 0; tap < taps; ++tap) {
      const int64 at = static_cast<int64>(tap) * content_width + x;
      int levels[3];
      fetch<kSource>(row, loaded(col_index + at), levels);
      for (int c = 0; c < channels_of<kSource>(); ++c) cells[c] = F::add_pixel(cells[c], levels[c], col_weight, at);
    }
    for (int c = 0; c < channels_of<kSource>(); ++c) cells[c] = F::row_end(cells[c]);
  }

  // Combines cells of the source rows that row y of the content reads; `cells_of(row, cells)` sets them.
  template <class F, Source kSource, int kTaps, class CellsOf>
  SEG_HD void content_pixel(int x, int y, const CellsOf& cells_of) const {
    const int taps = kTaps ? kTaps : row_taps;
    typename F::Cell sums[3] = {F::column_start(), F::column_start(), F::column_start()};
    for (int tap = 0; tap < taps; ++tap) {
      const int64 at = static_cast<int64>(tap) * content_height + y;
      typename F::Cell cells[3];
      cells_of(loaded(row_index + at), cells);
      for (int c = 0; c < channels_of<kSource>(); ++c) sums[c] = F::add_cell(sums[c], cells[c], row_weight, at);
    }
    for (int c = 0; c < channels_of<kSource>(); ++c) {
      write(left + x, top + y, c, normalized(F::column_end(sums[c]), gain[c], bias[c]));
    }
  }

  // Pixel (x, y) of the input.
  template <class F, Source kSource, int kTaps>
  SEG_HD void pixel(int x, int y) const {
    if (!has_content(x, y)) return padding_pixel(x, y);
    content_pixel<F, kSource, kTaps>(x - left, y - top, [this, x](int row, typename F::Cell* cells) {
      row_cells<F, kSource, kTaps>(row, x - left, cells);
    });
  }

  SEG_HD void padding_pixel(int x, int y) const {
    SEG_UNROLL
    for (int c = 0; c < 3; ++c) {
      if (c < channels) write(x, y, c, padding[c]);
    }
  }

  SEG_HD void write(int x, int y, int channel, float value) const {
    const int64 at = channel * channel_stride + y * row_stride + x * column_stride;
    if (value_bytes == 4) {
      static_cast<float*>(out)[at] = value;
    } else if (value_bytes == 2) {
      static_cast<uint16*>(out)[at] = half_from_float(value);
    } else {
      static_cast<uint8*>(out)[at] = static_cast<uint8>(value);
    }
  }
};

static_assert(sizeof(PreprocessPixel) == 240, "seginfer/_cuda/kernel_args.py states the same layout");

// Calls visit.run<kSource>() for the layout of an image.
template <class Visit>
SEG_HD void with_source(Source source, const Visit& visit) {
  switch (source) {
    case Source::packed3:
      return visit.template run<Source::packed3>();
    case Source::packed4:
      return visit.template run<Source::packed4>();
    case Source::gray:
      return visit.template run<Source::gray>();
    case Source::yuv:
      return visit.template run<Source::yuv>();
  }
}

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
