// arguments.h: converts tuples and strings of Python calls to the library's types.
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "seginfer/cpu.h"

namespace seginfer::python {

using Pair = std::tuple<int, int>;
using Floats3 = std::tuple<float, float, float>;
using Ints4 = std::tuple<int, int, int, int>;

inline Size size_from(const Pair& pair) { return {std::get<0>(pair), std::get<1>(pair)}; }
inline Offset offset_from(const Pair& pair) { return {std::get<0>(pair), std::get<1>(pair)}; }

inline Rect rect_from(const Ints4& rect) {
  return {std::get<0>(rect), std::get<1>(rect), std::get<2>(rect), std::get<3>(rect)};
}

template <class T>
T find(const std::map<std::string, T>& names, const std::string& name, const char* what) {
  const auto found = names.find(name);
  if (found != names.end()) return found->second;
  std::string known;
  for (const auto& one : names) known += (known.empty() ? "" : ", ") + one.first;
  throw InputError(std::string(what) + " must be one of " + known + ", got " + name);
}

inline PixelFormat format_from(const std::string& name) {
  static const std::map<std::string, PixelFormat> names{{"rgb", PixelFormat::rgb},   {"bgr", PixelFormat::bgr},
                                                        {"rgba", PixelFormat::rgba}, {"bgra", PixelFormat::bgra},
                                                        {"gray", PixelFormat::gray}, {"nv12", PixelFormat::nv12},
                                                        {"nv21", PixelFormat::nv21}, {"i420", PixelFormat::i420},
                                                        {"yuyv", PixelFormat::yuyv}, {"uyvy", PixelFormat::uyvy}};
  return find(names, name, "the pixel format");
}

inline YuvMatrix yuv_matrix_from(const std::string& name) {
  static const std::map<std::string, YuvMatrix> names{
      {"bt601", YuvMatrix::bt601}, {"bt709", YuvMatrix::bt709}, {"bt2020", YuvMatrix::bt2020}};
  return find(names, name, "the YUV matrix");
}

inline YuvRange yuv_range_from(const std::string& name) {
  static const std::map<std::string, YuvRange> names{{"limited", YuvRange::limited}, {"full", YuvRange::full}};
  return find(names, name, "the YUV range");
}

inline Resampling resampling_from(const std::string& name) {
  static const std::map<std::string, Resampling> names{{"opencv", Resampling::opencv},
                                                       {"pillow", Resampling::pillow},
                                                       {"torch", Resampling::torch},
                                                       {"torch-antialias", Resampling::torch_antialias},
                                                       {"nearest", Resampling::nearest}};
  return find(names, name, "the resampling");
}

inline Decision decision_from(const std::string& name) {
  static const std::map<std::string, Decision> names{
      {"argmax", Decision::argmax}, {"threshold", Decision::threshold}, {"each", Decision::each}};
  return find(names, name, "the decision");
}

}  // namespace seginfer::python
