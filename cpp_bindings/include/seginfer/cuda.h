// cuda.h: launches of the kernels from C++, with RAII streams, events and device memory. Include it in one .cu file,
// compiled by nvcc with -fmad=false.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#include "geometry.h"
#include "kernels/kernels.cuh"

namespace seginfer {

inline void check_cuda(cudaError_t code, const char* call) {
  if (code != cudaSuccess) {
    throw CudaError(std::string(call) + " failed: " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ")");
  }
}

// Calls the CUDA runtime and throws CudaError on failure.
#define SEG_CUDA(call) ::seginfer::check_cuda((call), #call)

class Stream {
 public:
  Stream() { SEG_CUDA(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(handle_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t handle() const { return handle_; }
  void synchronize() const { SEG_CUDA(cudaStreamSynchronize(handle_)); }

 private:
  cudaStream_t handle_ = nullptr;
};

// A timestamp on a stream.
class Event {
 public:
  Event() { SEG_CUDA(cudaEventCreate(&handle_)); }
  ~Event() { cudaEventDestroy(handle_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream) { SEG_CUDA(cudaEventRecord(handle_, stream.handle())); }
  void synchronize() const { SEG_CUDA(cudaEventSynchronize(handle_)); }

  // Both events must have been recorded, and this one completed.
  float milliseconds_since(const Event& start) const {
    float elapsed = 0;
    SEG_CUDA(cudaEventElapsedTime(&elapsed, start.handle_, handle_));
    return elapsed;
  }

 private:
  cudaEvent_t handle_ = nullptr;
};

// `size` values of T in device memory.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t size) : size_(size) {
    if (size) SEG_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T)));
  }
  explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(values.size()) {
    if (size_) SEG_CUDA(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// Number of blocks that cover `count` outputs of at most `largest`.
inline dim3 grid_of(Size largest, int count, int cols, int rows) {
  check_size(largest, "the largest output of a launch");
  SEG_REQUIRE(count >= 1 && count <= 65535, "a launch takes 1..65535 records, got " + std::to_string(count));
  const auto blocks = [](int n, int size) { return static_cast<unsigned>((n + size - 1) / size); };
  return dim3(blocks(largest.width, cols), blocks(largest.height, rows), static_cast<unsigned>(count));
}

inline dim3 block_of_threads() { return dim3(kBlockX, kBlockY, 1); }

// Every launch is asynchronous on its stream. `records` points to `count` records in device memory, one per image or
// mask plane, with device pointers in them; taps.h computes their indices and weights. `largest` is the largest output
// of a record. A launch that fails throws CudaError.

// Fills network inputs. `is_filtered`: a record has the filter pillow, or another number of weights per axis than two.
inline void launch_preprocess(const PreprocessPixel* records, int count, Size largest, bool is_filtered,
                              const Stream& stream) {
  if (is_filtered) {
    const dim3 grid = grid_of(largest, count, kBlockX, kFilterRows);
    seginfer_preprocess_filtered<<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  } else {
    const dim3 grid = grid_of(largest, count, kBlockX, kGatherRows);
    seginfer_preprocess<<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  }
  SEG_CUDA(cudaGetLastError());
}

// Labels cells; `largest` is the size of the logits. Launch it before launch_mask.
inline void launch_label(const LabelCell* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kBlockX, kBlockY);
  seginfer_label<<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// Computes masks; `largest` is the largest (rows, cols) of the records.
inline void launch_mask(const MaskPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kMaskCols, kMaskRows);
  seginfer_mask<<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// Computes confidences and margins, where a record has pointers for them.
inline void launch_maps(const MaskPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kBlockX, kBlockY);
  seginfer_maps<<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// Blends class colours over images.
inline void launch_overlay(const OverlayPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kOverlayCols, kBlockY);
  seginfer_overlay<<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

}  // namespace seginfer
