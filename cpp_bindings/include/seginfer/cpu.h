// cpu.h: preprocessing, mask decoding and overlays on the CPU. Plans are computed once per size, and calls of a plan
// allocate nothing after the first.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "taps.h"
#include "threads.h"
#include "view.h"
#include "yuv.h"

namespace seginfer {

struct MaskJob;  // arguments of the row kernels, in src/rows/jobs.h
struct PreprocessJob;

enum class Resampling { opencv, pillow, torch, torch_antialias, nearest };

// Conversion of pixels to network input: value = pixel * gain + bias, in the network's channel order.
struct PixelRule {
  Resampling resampling = Resampling::opencv;
  bool is_bgr = false;                      // channel order of the network input; images may have another
  YuvMatrix yuv_matrix = YuvMatrix::bt601;  // of yuv images; the default is that of cv2.cvtColor
  YuvRange yuv_range = YuvRange::limited;
  bool is_mirrored = false;  // mirror the image instead of padding it; such images are not resized
  float gain[3] = {1, 1, 1};
  float bias[3] = {0, 0, 0};
  float padding[3] = {0, 0, 0};  // in values of the network input
};

// Resizes, pads and normalises images of one size and format into the network input.
class Preprocessor {
 public:
  Preprocessor(const Geometry& geometry, PixelFormat format, const PixelRule& rule);

  // Fills `out` completely. Safe to call from several threads at once.
  void operator()(const ImageView& image, const TensorView& out, Threads& threads) const;

 private:
  PreprocessJob job_of(const ImageView& image, const TensorView& out) const;

  Geometry geometry_;
  PixelFormat format_;
  PixelRule rule_;
  YuvToRgb yuv_;
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
  float threshold = 0;    // in values of the output
  bool is_logits = true;  // false: probabilities; only confidences depend on it
  bool align_corners = false;
  int upsampling = 0;  // factor of a bilinear upsampling before the decision; 0: none
  bool upsampling_align_corners = false;
  std::vector<uint16_t> table;  // mask value of each label, unless empty
};

// Result arrays of one image, of the image's size. Decision::each has a plane per channel, plane strides apart.
// Plane strides count elements.
struct MaskViews {
  PlaneView<void> mask;
  int mask_bytes = 1;
  int64_t mask_plane_stride = 0;
  PlaneView<float> confidence;  // probability of the label; for Decision::each, of the class; null if not requested
  int64_t confidence_plane_stride = 0;
  PlaneView<float> margin;  // between the two best values, or to the threshold; null if not requested
  int64_t margin_plane_stride = 0;
};

// Position of an output within the output for the whole image. Only tiles have a corner other than (0, 0).
struct OutputWindow {
  Size whole;
  Offset corner;
  Size size;
};

// Interpolates logits at the visible pixels of an image and labels them, in one pass.
class MaskDecoder {
 public:
  MaskDecoder(const Geometry& whole, const OutputWindow& window, Rect visible, int channels, const MaskRule& rule);

  // Returns false if a logit is NaN or infinite. The results are then undefined.
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

// Copies the label of the cell at each visible pixel's centre. T is uint8_t or uint16_t.
class LabelResampler {
 public:
  LabelResampler(const Geometry& whole, const OutputWindow& window, Rect visible);

  template <class T>
  void operator()(PlaneView<const T> labels, PlaneView<T> mask, Threads& threads) const;

 private:
  Rect visible_;
  Taps rows_, cols_;
};

// Class colours for overlays. `weight` is the opacity in 256ths; classes in black leave the image unchanged.
struct Palette {
  Palette(const std::vector<uint8_t>& colors, int weight);  // (classes, 3), in the image's channel order

  int classes;
  std::vector<uint16_t> factors, colors;
};

// Blends class colours over an rgb, bgr or gray image, or over black where the image has no data. `out` is
// (height, width, 3) and may be the image itself.
template <class T>
void overlay(const ImageView& image, PlaneView<const T> mask, const Palette& palette, PlaneView<uint8_t> out,
             Threads& threads);

// Targets are instruction sets: "portable", "avx2", "avx512". `targets` lists those of this machine, best last;
// `target` is the one in use.
std::vector<std::string> targets();
std::string target();
void use_target(const std::string& name);

}  // namespace seginfer
