// mask.cpp: plans of the mask step.
#include <cstring>

#include "mask_checks.h"
#include "plans.h"
#include "targets.h"
#include "seginfer/cpu.h"

namespace seginfer {
namespace {

struct Axes {
  Taps rows, cols;
};

// Taps from image pixels into an output that covers the whole input.
Axes placed_axes(const Geometry& whole, Size output, Rect visible, bool align_corners) {
  const Span rows{visible.top, visible.height}, cols{visible.left, visible.width};
  const Axis y = whole.rows(), x = whole.cols();
  if (is_aligned(y, output.height, align_corners) && is_aligned(x, output.width, align_corners)) {
    return {mask_taps<float>(y, output.height, rows, align_corners),
            mask_taps<float>(x, output.width, cols, align_corners)};
  }
  return {mask_taps<double>(y, output.height, rows, align_corners),
          mask_taps<double>(x, output.width, cols, align_corners)};
}

Axes graph_axes(const Geometry& whole, Size output, Rect visible, const MaskRule& rule) {
  if (!rule.upsampling) return placed_axes(whole, output, visible, rule.align_corners);
  SEG_REQUIRE(rule.upsampling <= kMaxSide / std::max(output.height, output.width),
              "the upsampled output must have sides of at most " + std::to_string(kMaxSide) + ", got " +
                  size_text(output.height, output.width) + " times " + std::to_string(rule.upsampling));
  const Size upsampled{output.height * rule.upsampling, output.width * rule.upsampling};
  const Axes outer = placed_axes(whole, upsampled, visible, rule.align_corners);
  return {compose(outer.rows, upsampling_taps(output.height, upsampled.height, rule.upsampling_align_corners)),
          compose(outer.cols, upsampling_taps(output.width, upsampled.width, rule.upsampling_align_corners))};
}

// Whether every position copies one sample.
bool is_copy(const Taps& taps) {
  for (int i = 0; i < taps.positions; ++i) {
    int whole = 0, none = 0;
    for (int t = 0; t < taps.count; ++t) {
      whole += taps.weight_at(t, i) == 1;
      none += taps.weight_at(t, i) == 0;
    }
    if (whole != 1 || whole + none != taps.count) return false;
  }
  return true;
}

// Points taps without weight at the sample that has weight, where both axes copy samples. No pixel is then
// interpolated. If an axis interpolates, these taps must stay: rounding may give a pixel another label than all of its
// cells have, so the specification includes which pixels are interpolated.
void drop_unread(Taps& taps) {
  for (int i = 0; i < taps.positions; ++i) {
    int read = 0;
    while (read + 1 < taps.count && taps.weight_at(read, i) == 0) ++read;
    for (int t = 0; t < taps.count; ++t) taps.at(t, i) = taps.at(read, i);
  }
}

// First column of each run of columns that read the same samples, then the number of columns.
std::vector<int> runs_of(const Taps& taps) {
  std::vector<int> runs;
  for (int i = 0; i < taps.positions; ++i) {
    bool is_same = i > 0;
    for (int t = 0; is_same && t < taps.count; ++t) is_same = taps.at(t, i) == taps.at(t, i - 1);
    if (!is_same) runs.push_back(i);
  }
  runs.push_back(taps.positions);
  return runs;
}

// The first source sample if the positions read consecutive single samples; -1 otherwise.
int first_of_copy(const Taps& taps) {
  for (int i = 0; i < taps.positions; ++i) {
    for (int t = 0; t < taps.count; ++t) {
      if (taps.at(t, i) != taps.at(0, 0) + i) return -1;
    }
  }
  return taps.positions ? taps.at(0, 0) : -1;
}

Confidence confidence_of(const MaskRule& rule) {
  switch (rule.decision) {
    case Decision::argmax:
      return rule.is_logits ? Confidence::softmax : Confidence::value;
    case Decision::threshold:
      return rule.is_logits ? Confidence::sigmoid_of_label : Confidence::value_of_label;
    case Decision::each:
      return rule.is_logits ? Confidence::sigmoid : Confidence::value;
  }
  throw InputError("unknown decision");
}

// Points a job at one plane of the logits and at its first visible pixel in the results.
void set_plane(MaskJob& job, const LogitsView& logits, const MaskViews& out, Rect visible, int plane) {
  const auto offset = [&](int64_t row_stride, int64_t plane_stride) {
    return plane * plane_stride + visible.top * row_stride + visible.left;
  };
  const auto map_at = [&](const PlaneView<float>& map, int64_t plane_stride) {
    return map.data ? map.data + offset(map.row_stride, plane_stride) : nullptr;
  };
  job.logits = static_cast<const char*>(logits.data) + plane * logits.channel_stride * (job.is_half ? 2 : 4);
  job.mask = static_cast<char*>(out.mask.data) + out.mask_bytes * offset(out.mask.row_stride, out.mask_plane_stride);
  job.confidence = map_at(out.confidence, out.confidence_plane_stride);
  job.margin = map_at(out.margin, out.margin_plane_stride);
}

}  // namespace

MaskDecoder::MaskDecoder(const Geometry& whole, const OutputWindow& window, Rect visible, int channels,
                         const MaskRule& rule)
    : window_(window), visible_(visible), channels_(channels), rule_(rule) {
  check_window(whole, window, visible);
  check_rule(rule, channels);
  Axes axes = graph_axes(whole, window.whole, visible, rule);
  rows_ = std::move(axes.rows), cols_ = std::move(axes.cols);
  move_into_window(rows_, window.corner.y, window.size.height);
  move_into_window(cols_, window.corner.x, window.size.width);
  if (is_copy(rows_) && is_copy(cols_)) {
    drop_unread(rows_);
    drop_unread(cols_);
  }
  runs_ = runs_of(cols_);
  first_column_ = first_of_copy(cols_);
  col_weight_ = with_slack(cols_.weight, cols_.count, cols_.positions);
}

bool MaskDecoder::operator()(const LogitsView& logits, const MaskViews& out, Threads& threads) const {
  check_logits(logits, channels_, window_.size);
  check_results(out, channels_, rule_, visible_);
  MaskJob job = job_of(logits, out);
  const Target& target = target_in_use();
  const size_t scratch = target.mask_scratch(job);
  std::atomic<bool> is_finite{true};
  const auto fill = [&](int begin, int end) {
    if (!target.mask(job, begin, end, thread_scratch(scratch))) is_finite = false;
  };
  const int planes = rule_.decision == Decision::argmax ? 1 : channels_;
  for (int plane = 0; plane < planes; ++plane) {
    set_plane(job, logits, out, visible_, plane);
    job.rows == 0 ? fill(0, 0) : threads.for_each_part(job.rows, kPixelsPerPart / job.cols, fill);
  }
  return is_finite;
}

// All arguments except the pointers, which set_plane sets.
MaskJob MaskDecoder::job_of(const LogitsView& logits, const MaskViews& out) const {
  const bool is_argmax = rule_.decision == Decision::argmax;
  MaskJob job{};
  job.is_half = logits.dtype == DType::float16;
  job.channel_stride = logits.channel_stride, job.row_stride = logits.row_stride;
  job.column_stride = window_.size.width == 1 ? 1 : logits.column_stride;
  job.classes = is_argmax ? channels_ : 1, job.height = window_.size.height, job.width = window_.size.width;
  job.is_threshold = !is_argmax, job.threshold = rule_.threshold;

  job.taps = rows_.count, job.cols = cols_.positions;
  job.rows = job.cols ? rows_.positions : 0;  // without a visible pixel, values must still be finite
  job.row_index = rows_.index.data(), job.row_weight = rows_.weight.data();
  job.col_index = cols_.index.data(), job.col_weight = col_weight_.data();
  job.col_stride = cols_.positions + kSlack;
  job.runs = runs_.data(), job.run_count = static_cast<int>(runs_.size()) - 1;
  job.first_column = first_column_;

  job.mask_bytes = out.mask_bytes, job.mask_row_stride = out.mask.row_stride;
  job.table = rule_.table.empty() ? nullptr : rule_.table.data();
  job.confidence_kind = confidence_of(rule_);
  job.confidence_row_stride = out.confidence.row_stride, job.margin_row_stride = out.margin.row_stride;
  return job;
}

LabelResampler::LabelResampler(const Geometry& whole, const OutputWindow& window, Rect visible) : visible_(visible) {
  check_window(whole, window, visible);
  rows_ = label_taps(whole.rows(), window.whole.height, {visible.top, visible.height});
  cols_ = label_taps(whole.cols(), window.whole.width, {visible.left, visible.width});
  move_into_window(rows_, window.corner.y, window.size.height);
  move_into_window(cols_, window.corner.x, window.size.width);
}

template <class T>
void LabelResampler::operator()(PlaneView<const T> labels, PlaneView<T> mask, Threads& threads) const {
  SEG_REQUIRE(labels.data, "expected labels, got no memory");
  check_plane(mask, right_of(visible_), "the mask");
  T* first = mask.data + visible_.top * mask.row_stride + visible_.left;
  const int width = visible_.width;
  if (width == 0) return;
  threads.for_each_part(visible_.height, kPixelsPerPart / width, [&](int begin, int end) {
    for (int y = begin; y < end; ++y) {
      T* out = first + y * mask.row_stride;
      if (y > begin && rows_.at(0, y) == rows_.at(0, y - 1)) {
        std::memcpy(out, out - mask.row_stride, static_cast<size_t>(width) * sizeof(T));
        continue;
      }
      const T* row = labels.data + rows_.at(0, y) * labels.row_stride;
      for (int x = 0; x < width; ++x) out[x] = row[cols_.index[static_cast<size_t>(x)]];
    }
  });
}

template void LabelResampler::operator()(PlaneView<const uint8_t>, PlaneView<uint8_t>, Threads&) const;
template void LabelResampler::operator()(PlaneView<const uint16_t>, PlaneView<uint16_t>, Threads&) const;

}  // namespace seginfer
