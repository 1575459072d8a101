// digest.cpp: prints a digest of all results per instruction set, to compare compilers and processors.
#include <cstdio>
#include <vector>

#include "seginfer/seginfer.h"

using namespace seginfer;

namespace {

struct Random {
  uint32_t state = 12345;
  uint32_t next() {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
  }
  int below(int n) { return static_cast<int>(next() % static_cast<uint32_t>(n)); }
  // Whole 1024ths, which every platform makes alike.
  float value() { return static_cast<float>(static_cast<int>(next() % 8192u) - 4096) / 1024.0f; }
};

uint64_t digest = 14695981039346656037u;

template <class T>
void add(const std::vector<T>& values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(T); ++i) digest = (digest ^ bytes[i]) * 1099511628211u;
}

const PixelFormat kFormats[] = {PixelFormat::rgb,  PixelFormat::bgr,  PixelFormat::rgba, PixelFormat::bgra,
                                PixelFormat::gray, PixelFormat::nv12, PixelFormat::nv21, PixelFormat::i420,
                                PixelFormat::yuyv, PixelFormat::uyvy};
const YuvMatrix kMatrices[] = {YuvMatrix::bt601, YuvMatrix::bt709, YuvMatrix::bt2020};
const Resampling kResamplings[] = {Resampling::opencv, Resampling::pillow, Resampling::torch,
                                   Resampling::torch_antialias, Resampling::nearest};

void preprocess_once(Random& random, PixelFormat format, Resampling resampling, DType dtype, Threads& threads) {
  Size size{2 * (1 + random.below(40)), 2 * (1 + random.below(90))};
  const Size input{1 + random.below(60), 1 + random.below(140)};
  const int pixel = format == PixelFormat::gray || is_yuv_420(format)            ? 1
                    : is_yuv_422(format)                                         ? 2
                    : format == PixelFormat::rgba || format == PixelFormat::bgra ? 4
                                                                                 : 3;
  std::vector<uint8_t> memory(static_cast<size_t>(size.height * 3 / 2 * size.width * pixel));
  for (uint8_t& byte : memory) byte = static_cast<uint8_t>(random.next());
  const int64_t pitch = size.width * pixel;
  ImageView image{memory.data(), pitch, size, format};
  image.chroma = memory.data() + size.height * pitch;
  image.chroma_row_bytes = format == PixelFormat::i420 ? pitch / 2 : pitch;
  image.chroma_v = image.chroma + size.height / 2 * image.chroma_row_bytes;
  PixelRule rule;
  rule.resampling = resampling, rule.is_bgr = random.below(2) == 1;
  rule.yuv_matrix = kMatrices[random.below(3)];
  rule.yuv_range = random.below(2) ? YuvRange::full : YuvRange::limited;
  for (int c = 0; c < 3; ++c) {
    rule.gain[c] = dtype == DType::uint8 ? 1.0f : random.value() / 64.0f;
    rule.bias[c] = dtype == DType::uint8 ? 0.0f : random.value();
    rule.padding[c] = dtype == DType::uint8 ? 114.0f : random.value();
  }
  const Preprocessor plan(letterbox(size, input), format, rule);
  const int channels = format == PixelFormat::gray ? 1 : 3;
  std::vector<float> out(static_cast<size_t>(channels * input.height * input.width));
  const int64_t plane = static_cast<int64_t>(input.height) * input.width;
  plan(image, {out.data(), dtype, channels, input, plane, input.width, 1}, threads);
  add(out);
}

void mask_once(Random& random, int classes, Decision decision, int upsampling, Threads& threads) {
  const Size logits_hw{2 + random.below(20), 2 + random.below(40)};
  const int total = 4 * (upsampling ? upsampling : 1);
  const Size input{logits_hw.height * total, logits_hw.width * total},
      size{1 + random.below(90), 1 + random.below(150)};
  const int cell = 1 + 3 * random.below(2);
  std::vector<float> logits(static_cast<size_t>(classes * logits_hw.height * logits_hw.width));
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = i % static_cast<size_t>(cell) ? logits[i - 1] : random.value();
  MaskRule rule;
  rule.decision = decision, rule.upsampling = upsampling;
  rule.align_corners = random.below(2) == 1;
  const Geometry geometry = letterbox(size, input);
  const MaskDecoder plan(geometry, {logits_hw, {0, 0}, logits_hw}, geometry.visible(), classes, rule);
  const int planes = decision == Decision::each ? classes : 1;
  const int64_t plane = static_cast<int64_t>(size.height) * size.width;
  std::vector<uint16_t> mask(static_cast<size_t>(planes * plane));
  std::vector<float> margin(mask.size());
  MaskViews out;
  out.mask = {mask.data(), size.width}, out.mask_bytes = 2, out.mask_plane_stride = plane;
  const LogitsView view{logits.data(),
                        DType::float32,
                        classes,
                        logits_hw,
                        static_cast<int64_t>(logits_hw.height) * logits_hw.width,
                        logits_hw.width,
                        1};
  plan(view, out, threads);
  add(mask);
  out.margin = {margin.data(), size.width}, out.margin_plane_stride = plane;
  plan(view, out, threads);
  add(mask), add(margin);
}

}  // namespace

int main() {
  Threads threads(2);
  for (const std::string& name : targets()) {
    use_target(name);
    digest = 14695981039346656037u;
    Random random;
    for (int round = 0; round < 4; ++round) {
      for (const PixelFormat format : kFormats) {
        for (const Resampling resampling : kResamplings) {
          for (const DType dtype : {DType::float32, DType::float16, DType::uint8}) {
            const bool yields_floats = resampling == Resampling::torch || resampling == Resampling::torch_antialias;
            if (dtype == DType::uint8 && yields_floats) continue;
            preprocess_once(random, format, resampling, dtype, threads);
          }
        }
      }
      for (const int classes : {1, 2, 3, 19, 300}) {
        for (const int upsampling : {0, 2}) mask_once(random, classes, Decision::argmax, upsampling, threads);
      }
      mask_once(random, 1, Decision::threshold, 0, threads);
      mask_once(random, 3, Decision::each, 3, threads);
    }
    std::printf("%s %016llx\n", name.c_str(), static_cast<unsigned long long>(digest));
  }
}
