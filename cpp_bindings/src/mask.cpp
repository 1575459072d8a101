// mask.cpp: plans of the mask step, checked against the views that calls bring.
#include <cstring>

#include "targets.h"
#include "seginfer/cpu.h"

namespace seginfer {
namespace {

constexpr int kPixelsPerPart = 1 << 14;  // fewer are done sooner than a thread wakes up

bool is_inside(int64_t first, int64_t count, int64_t low, int64_t extent) {
  return count >= 0 && first >= low && first + count <= low + extent;
}

void check_window(const Geometry& whole, const OutputWindow& window, Rect visible) {
  check_geometry(whole);
  check_size(window.whole, "the output");
  check_size(window.size, "the output's window");
  check_offset(window.corner, "the window's corner");
  const Rect seen = whole.visible();
  SEG_REQUIRE(is_inside(visible.top, visible.height, seen.top, seen.height) &&
                  is_inside(visible.left, visible.width, seen.left, seen.width),
              "the visible pixels must be " + size_text(seen.height, seen.width) + " from " + std::to_string(seen.top) +
                  ", " + std::to_string(seen.left) + " on, or a part of them, got " +
                  size_text(visible.height, visible.width) + " from " + std::to_string(visible.top) + ", " +
                  std::to_string(visible.left) + " on");
}

struct Axes {
  Taps rows, cols;
};

// From image pixels into an output that covers the whole input.
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

// Whether every position is one sample as it is.
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

// Lets taps without weight read what the other reads, where both axes copy samples: no pixel is left whose cells
// differ. Where one axis interpolates, they must stay: rounding may give a pixel another label than all of its cells
// have, and which pixels are interpolated is part of the specification.
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

// The first source sample where every position reads one, in a row; -1 elsewhere.
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

}  // namespace

Masker::Masker(const Geometry& whole, const OutputWindow& window, Rect visible, int channels, const MaskRule& rule)
    : window_(window), visible_(visible), channels_(channels), rule_(rule) {
  check_window(whole, window, visible);
  SEG_REQUIRE(channels >= 1 && channels <= 65535, "expected 1..65535 channels, got " + std::to_string(channels));
  SEG_REQUIRE(rule.decision != Decision::threshold || channels == 1, "a threshold decides one channel");
  SEG_REQUIRE(rule.upsampling == 0 || rule.upsampling >= 2,
              "the upsampling factor must be at least 2, or 0 for none, got " + std::to_string(rule.upsampling));
  const size_t labels = rule.decision == Decision::argmax ? static_cast<size_t>(channels) : 2;
  SEG_REQUIRE(rule.table.empty() || rule.table.size() == labels,
              "the table must hold " + std::to_string(labels) + " values, got " + std::to_string(rule.table.size()));
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
  const size_t n = static_cast<size_t>(cols_.positions), stride = n + kSlack;
  col_weight_.resize(static_cast<size_t>(cols_.count) * stride);
  for (int t = 0; t < cols_.count; ++t) {
    std::copy_n(cols_.weight.begin() + t * static_cast<int64_t>(n), n,
                col_weight_.begin() + t * static_cast<int64_t>(stride));
  }
}

bool Masker::operator()(const LogitsView& logits, const MaskViews& out, Threads& threads) const {
  const Size size = window_.size;
  SEG_REQUIRE(logits.data && logits.channels == channels_ && logits.size.height == size.height &&
                  logits.size.width == size.width && (logits.dtype == DType::float32 || logits.dtype == DType::float16),
              "expected logits of " + std::to_string(channels_) + " x " + size_text(size.height, size.width) +
                  ", got " + std::to_string(logits.channels) + " x " +
                  size_text(logits.size.height, logits.size.width));
  SEG_REQUIRE(logits.channel_stride >= 0 && logits.row_stride >= 0 && logits.column_stride >= 0,
              "logits must not have negative strides");
  SEG_REQUIRE(out.mask.data && (out.mask_bytes == 1 || out.mask_bytes == 2), "a mask is uint8 or uint16");
  const bool is_argmax = rule_.decision == Decision::argmax;
  SEG_REQUIRE(rule_.table.empty()
                  ? (out.mask_bytes == 2 || !is_argmax || channels_ <= 256)
                  : (out.mask_bytes == 2 || *std::max_element(rule_.table.begin(), rule_.table.end()) < 256),
              "mask values above 255 need a uint16 mask");

  const size_t planes = is_argmax ? 1 : static_cast<size_t>(channels_);
  MaskJob mask{};
  mask.is_half = logits.dtype == DType::float16;
  mask.channel_stride = logits.channel_stride, mask.row_stride = logits.row_stride;
  mask.column_stride = size.width == 1 ? 1 : logits.column_stride;
  mask.height = size.height, mask.width = size.width;
  mask.is_threshold = !is_argmax, mask.threshold = rule_.threshold;
  mask.classes = is_argmax ? channels_ : 1;
  mask.taps = rows_.count, mask.cols = cols_.positions;
  mask.rows = mask.cols ? rows_.positions : 0;  // what no pixel shows is still looked at
  mask.row_index = rows_.index.data(), mask.row_weight = rows_.weight.data();
  mask.col_index = cols_.index.data(), mask.col_weight = col_weight_.data();
  mask.col_stride = cols_.positions + kSlack;
  mask.runs = runs_.data(), mask.run_count = static_cast<int>(runs_.size()) - 1;
  mask.first_column = first_column_;
  mask.mask_bytes = out.mask_bytes, mask.mask_row_stride = out.mask.row_stride;
  mask.table = rule_.table.empty() ? nullptr : rule_.table.data();
  mask.confidence_kind = confidence_of(rule_);
  mask.confidence_row_stride = out.confidence.row_stride, mask.margin_row_stride = out.margin.row_stride;
  const auto place = [&](auto* data, int64_t row_stride, int64_t plane_stride, size_t p) {
    return data ? data + static_cast<int64_t>(p) * plane_stride + visible_.top * row_stride + visible_.left : nullptr;
  };
  const Target& target = target_in_use();
  const size_t scratch = target.mask_scratch(mask);
  const int64_t channel_bytes = logits.channel_stride * (mask.is_half ? 2 : 4);
  std::atomic<bool> is_finite{true};
  for (size_t p = 0; p < planes; ++p) {
    mask.logits = static_cast<const char*>(logits.data) + static_cast<int64_t>(p) * channel_bytes;
    mask.mask = out.mask_bytes == 1
                    ? static_cast<void*>(
                          place(static_cast<uint8_t*>(out.mask.data), out.mask.row_stride, out.mask_plane_stride, p))
                    : place(static_cast<uint16_t*>(out.mask.data), out.mask.row_stride, out.mask_plane_stride, p);
    mask.confidence = place(out.confidence.data, out.confidence.row_stride, out.confidence_plane_stride, p);
    mask.margin = place(out.margin.data, out.margin.row_stride, out.margin_plane_stride, p);
    const auto fill = [&](int begin, int end) {
      if (!target.mask(mask, begin, end, thread_scratch(scratch))) is_finite = false;
    };
    mask.rows == 0 ? fill(0, 0) : threads.for_each_part(mask.rows, kPixelsPerPart / mask.cols, fill);
  }
  return is_finite;
}

LabelPicker::LabelPicker(const Geometry& whole, const OutputWindow& window, Rect visible) : visible_(visible) {
  check_window(whole, window, visible);
  rows_ = label_taps(whole.rows(), window.whole.height, {visible.top, visible.height});
  cols_ = label_taps(whole.cols(), window.whole.width, {visible.left, visible.width});
  move_into_window(rows_, window.corner.y, window.size.height);
  move_into_window(cols_, window.corner.x, window.size.width);
}

template <class T>
void LabelPicker::operator()(PlaneView<const T> labels, PlaneView<T> mask, Threads& threads) const {
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

template void LabelPicker::operator()(PlaneView<const uint8_t>, PlaneView<uint8_t>, Threads&) const;
template void LabelPicker::operator()(PlaneView<const uint16_t>, PlaneView<uint16_t>, Threads&) const;

}  // namespace seginfer
