// cpu.h: both pixel steps and the overlay on the CPU. Plans hold what depends on sizes; calls allocate nothing.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "taps.h"
#include "threads.h"
#include "view.h"

namespace seginfer {

struct MaskJob;  // arguments of the row kernels, in src/rows/jobs.h
struct PreprocessJob;

enum class Resampling { opencv, pillow, torch, torch_antialias, nearest };

// How pixels become values of the network input: value = pixel * gain + bias, in the network's channel order.
struct PixelRule {
  Resampling resampling = Resampling::opencv;
  bool is_bgr = false;       // the network's channel order; images may have another
  bool is_mirrored = false;  // what lies outside the image is the image again, not padding; such images keep their size
  float gain[3] = {1, 1, 1};
  float bias[3] = {0, 0, 0};
  float padding[3] = {0, 0, 0};  // a value of the network input
};

// Resizes, pads and normalises images of one size and format into the network input.
class Preprocessor {
 public:
  Preprocessor(const Geometry& geometry, PixelFormat format, const PixelRule& rule);

  // Fills `out` completely. The same object may be called from several threads.
  void operator()(const ImageView& image, const TensorView& out, Threads& threads) const;

 private:
  PreprocessJob job_of(const ImageView& image, const TensorView& out) const;

  Geometry geometry_;
  PixelFormat format_;
  PixelRule rule_;
  Rect content_;
  Taps rows_, cols_;
  std::vector<int> pattern_;  // see PreprocessJob::col_pattern
};

enum class Decision {
  argmax,     // one mask of class ids; ties take the lowest
  threshold,  // one mask of 0 and 1 from one channel
  each,       // a mask of 0 and 1 per channel
};

struct MaskRule {
  Decision decision = Decision::argmax;
  float threshold = 0;    // a value of the output
  bool is_logits = true;  // probabilities otherwise; only confidence cares
  bool align_corners = false;
  int upsampling = 0;  // factor of a bilinear upsampling to be done first; 0: none
  bool upsampling_align_corners = false;
  std::vector<uint16_t> table;  // mask value of each label, unless empty
};

// The results for one image, all of its size. A plane per channel for Decision::each, `plane_stride` elements apart.
struct MaskViews {
  PlaneView<void> mask;
  int mask_bytes = 1;
  int64_t mask_plane_stride = 0;
  PlaneView<float> confidence;  // probability of the label, of the set class for Decision::each; null if not wanted
  int64_t confidence_plane_stride = 0;
  PlaneView<float> margin;  // between the two best values, or to the threshold; null if not wanted
  int64_t margin_plane_stride = 0;
};

// Where an output stands in the output of one pass over the whole image: only tiles have a corner.
struct OutputWindow {
  Size whole;
  Offset corner;
  Size size;
};

// Interpolates logits to the visible pixels of an image and decides them, in one pass.
class MaskDecoder {
 public:
  MaskDecoder(const Geometry& whole, const OutputWindow& window, Rect visible, int channels, const MaskRule& rule);

  // Returns false if a value of the logits is NaN or infinite; what was written is worthless then.
  bool operator()(const LogitsView& logits, const MaskViews& out, Threads& threads) const;

 private:
  MaskJob job_of(const LogitsView& logits, const MaskViews& out) const;

  OutputWindow window_;
  Rect visible_;
  int channels_;
  MaskRule rule_;
  Taps rows_, cols_;
  std::vector<float> col_weight_;
  std::vector<int> runs_;
  int first_column_ = -1;  // see MaskJob::first_column
};

// Writes, for every visible pixel, the label of the cell that holds its centre. T: uint8_t or uint16_t.
class LabelResampler {
 public:
  LabelResampler(const Geometry& whole, const OutputWindow& window, Rect visible);

  template <class T>
  void operator()(PlaneView<const T> labels, PlaneView<T> mask, Threads& threads) const;

 private:
  Rect visible_;
  Taps rows_, cols_;
};

// Class colours over an image, or alone. `weight` is the colours' share in 256ths; black leaves the image as it is.
struct Palette {
  Palette(const std::vector<uint8_t>& colors, int weight);  // (classes, 3), in the image's channel order

  int classes;
  std::vector<uint16_t> factors, colors;
};

// `image` is rgb, bgr or gray, or has no data; `out` is (height, width, 3). It may be the image itself.
template <class T>
void overlay(const ImageView& image, PlaneView<const T> mask, const Palette& palette, PlaneView<uint8_t> out,
             Threads& threads);

// Instruction sets that this machine has, best last, and the one in use: "portable", "avx2", "avx512".
std::vector<std::string> targets();
std::string target();
void use_target(const std::string& name);

}  // namespace seginfer
