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
#include "taps.h"

namespace seginfer {

inline void check_cuda(cudaError_t code, const char* call) {
  if (code != cudaSuccess) {
    throw CudaError(std::string(call) + " failed: " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ")");
  }
}

// Calls the CUDA runtime and throws CudaError on failure.
#define SEG_CUDA(call) ::seginfer::check_cuda((call), #call)

// A stream of its own, or one of the caller, which it does not destroy and which must outlive it.
class Stream {
 public:
  Stream() : is_owned_(true) { SEG_CUDA(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking)); }
  explicit Stream(cudaStream_t handle) : handle_(handle) {}
  ~Stream() {
    if (is_owned_) cudaStreamDestroy(handle_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t handle() const { return handle_; }
  void synchronize() const { SEG_CUDA(cudaStreamSynchronize(handle_)); }

 private:
  cudaStream_t handle_ = nullptr;
  bool is_owned_ = false;
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

// `size` values of T in memory of one kind; see DeviceBuffer and PinnedBuffer.
template <class T, class Memory>
class CudaBuffer {
 public:
  CudaBuffer() = default;
  explicit CudaBuffer(size_t size) : size_(size) {
    SEG_REQUIRE(size <= SIZE_MAX / sizeof(T), "a buffer of " + std::to_string(size) + " values is too large");
    if (size) SEG_CUDA(Memory::allocate(reinterpret_cast<void**>(&data_), size * sizeof(T)));
  }
  ~CudaBuffer() { Memory::release(data_); }
  CudaBuffer(CudaBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  CudaBuffer& operator=(CudaBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

 protected:
  T* data_ = nullptr;
  size_t size_ = 0;
};

struct DeviceMemory {
  static cudaError_t allocate(void** to, size_t bytes) { return cudaMalloc(to, bytes); }
  static void release(void* data) { cudaFree(data); }
};

struct PinnedMemory {
  static cudaError_t allocate(void** to, size_t bytes) { return cudaMallocHost(to, bytes); }
  static void release(void* data) { cudaFreeHost(data); }
};

// Host memory that copies read and write asynchronously. Nobody may touch it before they are done.
template <class T>
class PinnedBuffer : public CudaBuffer<T, PinnedMemory> {
 public:
  using CudaBuffer<T, PinnedMemory>::CudaBuffer;

  T& operator[](size_t i) const { return this->data_[i]; }
};

// Device memory. What it holds is undefined until it is written.
template <class T>
class DeviceBuffer : public CudaBuffer<T, DeviceMemory> {
 public:
  using CudaBuffer<T, DeviceMemory>::CudaBuffer;
  explicit DeviceBuffer(const std::vector<T>& values) : CudaBuffer<T, DeviceMemory>(values.size()) {
    if (values.empty()) return;
    SEG_CUDA(cudaMemcpy(this->data_, values.data(), this->bytes(), cudaMemcpyHostToDevice));
    SEG_CUDA(cudaStreamSynchronize(nullptr));  // the copy may still be under way, and other streams do not wait for it
  }

  // Each starts on a stream and returns. Both buffers have the same size.
  void copy_from(const PinnedBuffer<T>& source, const Stream& stream) {
    check_same_size(source);
    SEG_CUDA(cudaMemcpyAsync(this->data_, source.data(), this->bytes(), cudaMemcpyHostToDevice, stream.handle()));
  }
  void copy_to(const PinnedBuffer<T>& target, const Stream& stream) const {
    check_same_size(target);
    SEG_CUDA(cudaMemcpyAsync(target.data(), this->data_, this->bytes(), cudaMemcpyDeviceToHost, stream.handle()));
  }
  void clear(const Stream& stream) {
    if (this->data_) SEG_CUDA(cudaMemsetAsync(this->data_, 0, this->bytes(), stream.handle()));
  }

 private:
  void check_same_size(const PinnedBuffer<T>& other) const {
    SEG_REQUIRE(other.size() == this->size(), "a copy needs buffers of one size, got " + std::to_string(other.size()) +
                                                  " and " + std::to_string(this->size()) + " values");
  }
};

// Number of blocks that cover `count` outputs of at most `largest`.
inline dim3 grid_of(Size largest, int count, int cols, int rows) {
  check_size(largest, "the largest output of a launch");
  SEG_REQUIRE(count >= 1 && count <= 65535, "a launch takes 1..65535 records, got " + std::to_string(count));
  const auto blocks = [](int n, int size) { return static_cast<unsigned>((n + size - 1) / size); };
  return dim3(blocks(largest.width, cols), blocks(largest.height, rows), static_cast<unsigned>(count));
}

inline dim3 block_of_threads() { return dim3(kBlockX, kBlockY, 1); }

// Kernels of templates, compiled only for what a program launches.
template <Source kSource, class F, int kTaps, class T>
SEG_KERNEL preprocess_kernel(const PreprocessPixel* records) {
  preprocess<kSource, F, kTaps, T>(records);
}

template <Source kSource, class F, class T>
SEG_KERNEL preprocess_filtered_kernel(const PreprocessPixel* records) {
  preprocess_filtered<kSource, F, T>(records);
}

template <int kTaps, class T>
SEG_KERNEL mask_kernel(const MaskPixel* records) {
  mask<kTaps, T>(records);
}

template <int kTaps, class T>
SEG_KERNEL maps_kernel(const MaskPixel* records) {
  maps<kTaps, T>(records);
}

template <class Record>
SEG_KERNEL overlay_kernel(const Record* records) {
  overlay(records);
}

// Every launch is asynchronous on its stream. `records` points to `count` records in device memory, one per image or
// mask plane, with device pointers in them; taps.h computes their indices, weights and runs. `largest` is the largest
// output of a record. T is the type of the network's values: float, uint16 for float16, uint8, int or int64. A launch
// that fails throws CudaError.

// Fills network inputs from images of one layout, with PickFilter (kTaps is 1), OpenCVFilter, or WeightedFilter with
// two weights per axis (kTaps is 2).
template <Source kSource, class F, int kTaps, class T>
void launch_preprocess(const PreprocessPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kBlockX, kGatherRows);
  preprocess_kernel<kSource, F, kTaps, T><<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// The same with PillowFilter, or WeightedFilter with any number of weights.
template <Source kSource, class F, class T>
void launch_preprocess_filtered(const PreprocessPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kBlockX, kFilterRows);
  preprocess_filtered_kernel<kSource, F, T><<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// Computes masks from logits, with two or three cells per axis, or from class ids, with one. `largest` is the largest
// (rows, cols) of the records.
template <int kTaps, class T>
void launch_mask(const MaskPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kMaskCols, kMaskRows);
  mask_kernel<kTaps, T><<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// Computes confidences and margins, where a record has pointers for them.
template <int kTaps, class T>
void launch_maps(const MaskPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kBlockX, kMapRows);
  maps_kernel<kTaps, T><<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// Blends class colours over images.
inline void launch_overlay(const OverlayPixel* records, int count, Size largest, const Stream& stream) {
  const dim3 grid = grid_of(largest, count, kOverlayCols, kBlockY);
  overlay_kernel<<<grid, block_of_threads(), 0, stream.handle()>>>(records);
  SEG_CUDA(cudaGetLastError());
}

// For every position, how often an earlier one read other samples than the one before it.
inline std::vector<int> run_numbers(const Taps& taps) {
  std::vector<int> runs(static_cast<size_t>(taps.positions));
  for (int i = 1; i < taps.positions; ++i) {
    bool is_same = true;
    for (int t = 0; t < taps.count; ++t) is_same = is_same && taps.at(t, i) == taps.at(t, i - 1);
    runs[static_cast<size_t>(i)] = runs[static_cast<size_t>(i) - 1] + !is_same;
  }
  return runs;
}

}  // namespace seginfer
