// grid.cuh: block shape and thread positions of the kernels.
#pragma once

#include "pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kBlockX = 32, kBlockY = 8, kThreads = kBlockX * kBlockY;

// Every kernel is a function template of records for one kind of input, made a kernel under a name of its own, so that
// it needs few registers and compiles fast. The register limit lets four blocks run at a time, so that others hide the
// latency of one.
#define SEG_KERNEL __global__ void __launch_bounds__(256, 4)
#define SEG_DEVICE __device__ __forceinline__

SEG_DEVICE int thread_number() { return static_cast<int>(threadIdx.y) * kBlockX + static_cast<int>(threadIdx.x); }
SEG_DEVICE int column() { return static_cast<int>(blockIdx.x) * kBlockX + static_cast<int>(threadIdx.x); }
SEG_DEVICE int row_of_block(int rows) { return static_cast<int>(blockIdx.y) * rows; }

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
