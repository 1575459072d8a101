// source_rows.h: reads pixels of one image row as 32-bit words and as channels. Part of target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

SEG_HD uint32 load_word(const uint8* from) {
  uint32 word;
  memcpy(&word, from, 4);
  return word;
}

// Reads pixels at `index` as words: channels from the lowest byte up in the image's order, or Y, U, V.
template <Source kSource>
SEG_HD void fetch_row(const PreprocessJob& job, int row, const int* index, int n, uint32* words) {
  const uint8* p = job.pixels + row * job.row_bytes;
  if constexpr (kSource == Source::packed3) {
    if (row + 1 < job.image_height) {  // the byte after a row's last pixel is inside the image
      for (int i = 0; i < n; ++i) words[i] = load_word(p + 3 * static_cast<int64>(index[i]));
    } else {
      for (int i = 0; i < n; ++i) {
        const uint8* q = p + 3 * static_cast<int64>(index[i]);
        words[i] = q[0] | static_cast<uint32>(q[1]) << 8 | static_cast<uint32>(q[2]) << 16;
      }
    }
  } else if constexpr (kSource == Source::packed4) {
    for (int i = 0; i < n; ++i) words[i] = load_word(p + 4 * static_cast<int64>(index[i]));
  } else if constexpr (kSource == Source::gray) {
    for (int i = 0; i < n; ++i) words[i] = p[index[i]];
  } else {
    const int64 chroma_row = (row >> job.chroma_shift) * job.chroma_row_bytes;
    const uint8 *u = job.u + chroma_row, *v = job.v + chroma_row;
    const int luma_step = job.luma_step, chroma_step = job.chroma_step;  // `words` may alias the job's
    for (int i = 0; i < n; ++i) {
      const int at = (index[i] >> 1) * chroma_step;
      words[i] = p[index[i] * luma_step] | static_cast<uint32>(u[at]) << 8 | static_cast<uint32>(v[at]) << 16;
    }
  }
}

#if defined(__AVX512VBMI__)
constexpr bool kHasWindows = true;

// Reads kLanes pixels with one permutation of bytes.
SEG_HD Ints permuted(const uint8* window, const int* pattern) {
  static_assert(kLanes == kWindowColumns, "a vector of words is one window");
  const __m512i words = _mm512_permutex2var_epi8(_mm512_loadu_si512(window), _mm512_loadu_si512(pattern),
                                                 _mm512_loadu_si512(window + 64));
  return load<Ints>(&words);
}
#else
constexpr bool kHasWindows = false;
SEG_HD Ints permuted(const uint8*, const int*) { return Ints{}; }
#endif

// The window of the columns from x on; near the end of the image, a copy of the remaining bytes.
template <Source kSource>
SEG_HD const uint8* window_at(const PreprocessJob& job, int row, int x, uint8* copy) {
  constexpr int kBytes = kSource == Source::packed3 ? 3 : 4;
  const uint8* from = job.pixels + row * job.row_bytes + kBytes * static_cast<int64>(job.col_index[x]);
  const uint8* end = job.pixels + (job.image_height - 1) * job.row_bytes + kBytes * static_cast<int64>(job.image_width);
  if (end - from >= kWindowBytes) return from;
  memcpy(copy, from, static_cast<size_t>(end - from));
  return copy;
}

// The network's channels of kLanes pixel words, 0..255.
template <Source kSource>
SEG_HD void unpack(const PreprocessJob& job, Ints word, Ints* channels) {
  if constexpr (kSource == Source::gray) {
    channels[0] = word;
  } else if constexpr (kSource == Source::yuv) {
    Ints red, green, blue;
    rgb_from_yuv<Ints>(word & 255, (word >> 8) & 255, (word >> 16) & 255, job.yuv, red, green, blue);
    channels[0] = job.shift[0] ? blue : red;
    channels[1] = green;
    channels[2] = job.shift[0] ? red : blue;
  } else {
    for (int c = 0; c < 3; ++c) channels[c] = (word >> job.shift[c]) & 255;
  }
}

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
