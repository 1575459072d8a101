// grid.cuh: what the kernels share: the shape of their blocks, and where a thread stands.
#pragma once

#include "pixel.h"

namespace seginfer {
inline namespace SEGINFER_TARGET {

constexpr int kBlockX = 32, kBlockY = 8, kThreads = kBlockX * kBlockY;

// Registers are kept few enough for three blocks at a time; latency is hidden by the other two.
#define SEG_KERNEL extern "C" __global__ void __launch_bounds__(256, 3)
#define SEG_DEVICE __device__ __forceinline__

SEG_DEVICE int thread_number() { return static_cast<int>(threadIdx.y) * kBlockX + static_cast<int>(threadIdx.x); }
SEG_DEVICE int column() { return static_cast<int>(blockIdx.x) * kBlockX + static_cast<int>(threadIdx.x); }
SEG_DEVICE int row_of_block(int rows) { return static_cast<int>(blockIdx.y) * rows; }

}  // namespace SEGINFER_TARGET
}  // namespace seginfer
