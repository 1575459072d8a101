// seginfer.h: every header for the CPU, with an example. For GPUs, compile cuda.h with nvcc.
#pragma once

#include "error.h"
#include "geometry.h"
#include "taps.h"
#include "view.h"
#include "yuv.h"
#include "threads.h"
#include "kernels/pixel.h"
#include "cpu.h"

// seginfer converts camera images to the input of a segmentation network, and the network's output to masks at the
// camera's own pixels. Results equal seginfer/_reference byte for byte, on every instruction set, with any number of
// threads, and on a GPU. Confidences are within 1e-6 of it.
//
//     using namespace seginfer;
//     Threads threads(2);                                     // the caller's thread counts; Threads(1) starts none
//     const Geometry geometry = letterbox({1080, 1920}, {512, 1024});
//
//     PixelRule rule;                                         // value = pixel * gain + bias
//     rule.resampling = Resampling::opencv;                   // the library that the network was trained with
//     const Preprocessor preprocess(geometry, PixelFormat::bgr, rule);
//     preprocess({frame, 1920 * 3, {1080, 1920}, PixelFormat::bgr},
//                {batch, DType::float32, 3, {512, 1024}, 512 * 1024, 1024, 1}, threads);
//
//     // ... run the network: logits (19, 128, 256) ...
//
//     const OutputWindow window{{128, 256}, {0, 0}, {128, 256}};
//     const MaskDecoder decode(geometry, window, geometry.visible(), 19, MaskRule{});
//     MaskViews out;
//     out.mask = {mask, 1920};                                // uint8 (1080, 1920)
//     decode({logits, DType::float32, 19, {128, 256}, 128 * 256, 256, 1}, out, threads);
//
// Conventions:
// - Sizes are (height, width). Images are uint8 and state their format.
// - Strides of tensors count elements. Pitches of images count bytes.
// - The caller owns all memory.
// - Plans (Preprocessor, MaskDecoder, LabelResampler) hold everything that depends on sizes. Calls of a plan allocate
//   nothing after the first.
// - Invalid arguments throw InputError, and then nothing has been written.
//
// geometry.h       placement of an image in the network input    taps.h     sampling positions and weights
// view.h           images, tensors and planes of the caller      threads.h  thread pool and reusable memory
// yuv.h            matrices and ranges of YUV                    cpu.h      preprocessing, masks and overlays
// kernels/pixel.h  arithmetic of one pixel, also for GPUs
