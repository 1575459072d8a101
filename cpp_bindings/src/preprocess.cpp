// preprocess.cpp: plans of the preprocess step, and checks of the arrays that a call brings.
#include <utility>

#include "plans.h"
#include "targets.h"
#include "seginfer/cpu.h"

namespace seginfer {
namespace {

Taps taps_of(const Axis& axis, Resampling resampling, bool is_column_axis) {
  const int n = static_cast<int>(axis.image), m = static_cast<int>(axis.resized);
  switch (resampling) {
    case Resampling::opencv:
      return opencv_taps(n, m, is_column_axis);
    case Resampling::pillow:
      return triangle_taps<double>(n, m);
    case Resampling::torch:
      return torch_taps(n, m);
    case Resampling::torch_antialias:
      return triangle_taps<float>(n, m);
    case Resampling::nearest:
      return nearest_taps(n, m);
  }
  throw InputError("unknown resampling");
}

Taps content_taps(const Axis& axis, const PixelRule& rule, bool is_resized, bool is_column_axis) {
  if (rule.is_mirrored) {
    return mirrored_taps(static_cast<int>(axis.image), static_cast<int>(axis.input), static_cast<int>(axis.offset));
  }
  const Span content = content_of(axis);
  const Resampling resampling = is_resized ? rule.resampling : Resampling::nearest;
  return part_of(taps_of(axis, resampling, is_column_axis),
                 {content.first - static_cast<int>(axis.offset), content.count});
}

// Byte positions of pixels in windows; empty if a pixel lies outside its window. Taps must have slack.
std::vector<int> pattern_of(const Taps& taps, int pixel_bytes) {
  const int n = taps.positions, stride = n + kSlack;
  std::vector<int> pattern(static_cast<size_t>(taps.count) * static_cast<size_t>(stride));
  for (int t = 0; t < taps.count; ++t) {
    for (int i = 0; i < n; ++i) {
      const int first = taps.index[static_cast<size_t>(i / kWindowColumns * kWindowColumns)];
      const int64_t byte = pixel_bytes * static_cast<int64_t>(taps.index[static_cast<size_t>(t * stride + i)] - first);
      if (byte < 0 || byte + 3 >= kWindowBytes) return {};
      pattern[static_cast<size_t>(t * stride + i)] = static_cast<int>(byte * 0x01010101 + 0x03020100);
    }
  }
  return pattern;
}

int channels_of(PixelFormat format) { return format == PixelFormat::gray ? 1 : 3; }

Source source_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::rgb:
    case PixelFormat::bgr:
      return Source::packed3;
    case PixelFormat::rgba:
    case PixelFormat::bgra:
      return Source::packed4;
    case PixelFormat::gray:
      return Source::gray;
    case PixelFormat::nv12:
    case PixelFormat::nv21:
    case PixelFormat::i420:
    case PixelFormat::yuyv:
    case PixelFormat::uyvy:
      return Source::yuv;
  }
  throw InputError("unknown pixel format");
}

Filter filter_of(Resampling resampling) {
  switch (resampling) {
    case Resampling::nearest:
      return Filter::pick;
    case Resampling::opencv:
      return Filter::opencv;
    case Resampling::pillow:
      return Filter::pillow;
    default:
      return Filter::weighted;
  }
}

int64_t bytes_per_row(PixelFormat format, int64_t width) {
  switch (source_of(format)) {
    case Source::packed3:
      return 3 * width;
    case Source::packed4:
      return 4 * width;
    default:
      return is_yuv_422(format) ? 2 * width : width;
  }
}

void check_image(const ImageView& image, Size size, PixelFormat format) {
  SEG_REQUIRE(
      image.data && image.size.height == size.height && image.size.width == size.width && image.format == format,
      "the plan is for images of " + size_text(size.height, size.width) + " in its own format, got " +
          size_text(image.size.height, image.size.width));
  SEG_REQUIRE(image.row_bytes >= bytes_per_row(format, size.width),
              "the image must not have overlapping or flipped rows, got rows " + std::to_string(image.row_bytes) +
                  " bytes apart; give a contiguous array");
  const bool is_planar = format == PixelFormat::i420;
  SEG_REQUIRE(!is_yuv_420(format) || (image.chroma && (!is_planar || image.chroma_v) &&
                                      image.chroma_row_bytes >= (is_planar ? size.width / 2 : size.width)),
              "nv12, nv21 and i420 images need their chroma planes, with rows that do not overlap");
}

// Points a job at the planes of a yuv image.
void set_yuv(PreprocessJob& job, const ImageView& image) {
  const bool is_420 = is_yuv_420(image.format), is_uyvy = image.format == PixelFormat::uyvy;
  job.chroma_shift = is_420 ? 1 : 0;
  if (!is_420) {
    job.pixels = image.data + (is_uyvy ? 1 : 0), job.luma_step = 2;
    job.u = image.data + (is_uyvy ? 0 : 1), job.v = job.u + 2, job.chroma_step = 4;
    job.chroma_row_bytes = image.row_bytes;
    return;
  }
  const bool is_planar = image.format == PixelFormat::i420, is_v_first = image.format == PixelFormat::nv21;
  job.luma_step = 1, job.chroma_step = is_planar ? 1 : 2, job.chroma_row_bytes = image.chroma_row_bytes;
  job.u = image.chroma + (is_v_first ? 1 : 0);
  job.v = is_planar ? image.chroma_v : image.chroma + (is_v_first ? 0 : 1);
}

void check_out(const TensorView& out, Size size, int channels) {
  SEG_REQUIRE(out.data && out.size.height == size.height && out.size.width == size.width && out.channels == channels,
              "the output must hold " + std::to_string(channels) + " channels of " +
                  size_text(size.height, size.width) + ", got " + std::to_string(out.channels) + " of " +
                  size_text(out.size.height, out.size.width));
  SEG_REQUIRE(out.dtype == DType::float32 || out.dtype == DType::float16 || out.dtype == DType::uint8,
              "the output must be float32, float16 or uint8, got DType " + std::to_string(static_cast<int>(out.dtype)));
  std::pair<int64_t, int> axes[] = {
      {out.column_stride, size.width}, {out.row_stride, size.height}, {out.channel_stride, channels}};
  std::sort(std::begin(axes), std::end(axes));
  int64_t span = 1;  // values within the axes so far
  for (const auto& [stride, extent] : axes) {
    if (extent == 1) continue;
    SEG_REQUIRE(stride >= span, "values of the output must not overlap; give an NCHW or NHWC array");
    span += stride * (extent - 1);
  }
}

// uint8 outputs hold unchanged pixels only: other rules yield values that are not 0..255.
void check_raw(const PixelRule& rule, int channels) {
  const bool is_whole = rule.resampling != Resampling::torch && rule.resampling != Resampling::torch_antialias;
  for (int c = 0; c < channels; ++c) {
    SEG_REQUIRE(
        is_whole && rule.gain[c] == 1 && rule.bias[c] == 0 && rule.padding[c] >= 0 && rule.padding[c] <= 255,
        "a uint8 output takes pixels as they are: gain 1, bias 0, padding of 0..255, and no resampling of torch; "
        "give a float32 or float16 output");
  }
}

}  // namespace

Preprocessor::Preprocessor(const Geometry& geometry, PixelFormat format, const PixelRule& rule)
    : geometry_(geometry), format_(format), rule_(rule) {
  const Size image = geometry.image(), input = geometry.input(), resized = geometry.resized();
  const bool is_resized = resized.height != image.height || resized.width != image.width;
  SEG_REQUIRE(!(rule.is_mirrored && is_resized), "mirrored images keep their size");
  const Source source = source_of(format);
  SEG_REQUIRE(source != Source::yuv || image.width % 2 == 0,
              "YUV images have an even width, got " + std::to_string(image.width));
  SEG_REQUIRE(!is_yuv_420(format) || image.height % 2 == 0,
              "nv12, nv21 and i420 images have an even height, got " + std::to_string(image.height));
  yuv_ = yuv_to_rgb(rule.yuv_matrix, rule.yuv_range);
  content_ = rule.is_mirrored ? Rect{0, 0, input.height, input.width} : geometry.content();
  rows_ = content_taps(geometry.rows(), rule, is_resized, false);
  cols_ = content_taps(geometry.cols(), rule, is_resized, true);
  cols_.index = with_slack(cols_.index, cols_.count, cols_.positions);
  cols_.weight = with_slack(cols_.weight, cols_.count, cols_.positions);
  cols_.fixed = with_slack(cols_.fixed, cols_.count, cols_.positions);
  if (source == Source::packed3 || source == Source::packed4)
    pattern_ = pattern_of(cols_, source == Source::packed3 ? 3 : 4);
  if (!is_resized) rule_.resampling = Resampling::nearest;
}

void Preprocessor::operator()(const ImageView& image, const TensorView& out, Threads& threads) const {
  const int channels = channels_of(format_);
  check_image(image, geometry_.image(), format_);
  check_out(out, geometry_.input(), channels);
  if (out.dtype == DType::uint8) check_raw(rule_, channels);
  const PreprocessJob job = job_of(image, out);
  const Target& target = target_in_use();
  const size_t scratch = target.preprocess_scratch(job);
  threads.for_each_part(job.height, kPixelsPerPart / job.width,
                        [&](int begin, int end) { target.preprocess(job, begin, end, thread_scratch(scratch)); });
}

PreprocessJob Preprocessor::job_of(const ImageView& image, const TensorView& out) const {
  PreprocessJob job{};
  job.source = source_of(format_), job.filter = filter_of(rule_.resampling);
  job.pixels = image.data, job.row_bytes = image.row_bytes;
  if (job.source == Source::yuv) set_yuv(job, image);
  job.yuv = yuv_;
  job.image_height = geometry_.image().height, job.image_width = geometry_.image().width;

  job.row_taps = rows_.count, job.col_taps = cols_.count;
  job.row_index = rows_.index.data(), job.col_index = cols_.index.data();
  job.row_weight = rows_.weight.data(), job.col_weight = cols_.weight.data();
  job.row_fixed = rows_.fixed.data(), job.col_fixed = cols_.fixed.data();
  job.col_pattern = pattern_.empty() ? nullptr : pattern_.data();
  job.top = content_.top, job.left = content_.left;
  job.content_height = content_.height, job.content_width = content_.width;
  job.height = geometry_.input().height, job.width = geometry_.input().width;

  job.channels = out.channels;
  const bool is_bgr_image = format_ == PixelFormat::bgr || format_ == PixelFormat::bgra;
  for (int c = 0; c < 3; ++c) {
    job.shift[c] = job.channels == 1 ? 0 : is_bgr_image != rule_.is_bgr ? 16 - 8 * c : 8 * c;
    job.gain[c] = rule_.gain[c], job.bias[c] = rule_.bias[c], job.padding[c] = rule_.padding[c];
  }
  job.out = out.data;
  job.bytes_per_value = out.dtype == DType::float32 ? 4 : out.dtype == DType::float16 ? 2 : 1;
  job.channel_stride = out.channel_stride, job.row_stride = out.row_stride, job.column_stride = out.column_stride;
  return job;
}

}  // namespace seginfer
