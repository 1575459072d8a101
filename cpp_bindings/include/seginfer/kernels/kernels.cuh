// kernels.cuh: every kernel, for nvcc and NVRTC; blocks have kBlockX x kBlockY threads.
//
// blockIdx.z picks the record, so every image of a batch has its own size and place; the grid covers the largest, and
// blocks outside of the others do nothing. Include it in one translation unit, compiled with -fmad=false.
#pragma once

#include "mask_kernels.cuh"
#include "overlay_kernels.cuh"
#include "preprocess_kernels.cuh"
