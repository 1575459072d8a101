// mask_scratch.h: scratch memory of a thread that computes a mask. Part of target.cpp.
#pragma once

namespace seginfer {
inline namespace SEGINFER_TARGET {
namespace {

constexpr int kMaskBlock = 64;  // columns interpolated at a time; their values stay in the first-level cache

// Adjacent columns; the first lies in run `run`.
struct Columns {
  int begin, end, run;
};

// Scratch of one thread.
struct MaskScratch {
  float* values;   // (taps, classes, kMaskBlock + kSlack)
  int* chosen;     // (classes): the classes that a block interpolates
  uint16* agreed;  // (width): the label that all logit rows of the band have, or kMixed
  uint16* filled;  // (cols): labels of filled pixels
  uint32* bits;    // (classes / 32, width + kMaskBlock): the classes that can win in each logit cell
  Columns* spans;  // columns to interpolate, from left to right
};

SEG_HD int64 block_stride() { return kMaskBlock + kSlack; }

SEG_HD int bit_words(const MaskJob& job) { return (job.classes + 31) / 32; }

SEG_HD int64 bit_stride(const MaskJob& job) { return job.width + kMaskBlock; }

SEG_HD size_t bit_bytes(const MaskJob& job) {
  return sizeof(uint32) * static_cast<size_t>(bit_words(job)) * static_cast<size_t>(bit_stride(job));
}

SEG_HD size_t value_bytes(const MaskJob& job) {
  return rounded(sizeof(float) * static_cast<size_t>(job.taps) * static_cast<size_t>(job.classes) *
                 static_cast<size_t>(block_stride()));
}

size_t mask_scratch(const MaskJob& job) {
  const size_t width = static_cast<size_t>(job.width), cols = static_cast<size_t>(job.cols);
  return LogitRows::copy_bytes(job) + LogitRows::label_bytes(job) + value_bytes(job) +
         rounded(sizeof(int) * static_cast<size_t>(job.classes)) + rounded(sizeof(uint16) * width) +
         rounded(sizeof(uint16) * (cols + kSlack)) + rounded(bit_bytes(job)) +
         rounded(sizeof(Columns) * (static_cast<size_t>(job.run_count) / 2 + 1));
}

// Divides a block of memory into parts.
struct Parts {
  char* at;

  template <class T>
  T* take(size_t bytes) {
    T* part = reinterpret_cast<T*>(at);
    at += rounded(bytes);
    return part;
  }
};

MaskScratch divide(const MaskJob& job, Parts& parts) {
  MaskScratch scratch;
  scratch.values = parts.take<float>(value_bytes(job));
  scratch.chosen = parts.take<int>(sizeof(int) * static_cast<size_t>(job.classes));
  scratch.agreed = parts.take<uint16>(sizeof(uint16) * static_cast<size_t>(job.width));
  scratch.filled = parts.take<uint16>(sizeof(uint16) * static_cast<size_t>(job.cols + kSlack));
  scratch.bits = parts.take<uint32>(bit_bytes(job));
  scratch.spans = reinterpret_cast<Columns*>(parts.at);
  return scratch;
}

}  // namespace
}  // namespace SEGINFER_TARGET
}  // namespace seginfer
