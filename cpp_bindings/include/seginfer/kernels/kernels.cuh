// kernels.cuh: every kernel, for nvcc and NVRTC, compiled with -fmad=false.
#pragma once

// Blocks have kBlockX x kBlockY threads. blockIdx.z is the index of the record, so every image of a batch has its own
// size and placement. The grid covers the largest image; blocks outside of a smaller one return at once.

#include "maps_kernels.cuh"
#include "mask_kernels.cuh"
#include "overlay_kernels.cuh"
#include "preprocess_kernels.cuh"
