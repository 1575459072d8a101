// seginfer.h: everything, in order of dependency. This comment teaches the library.
//
// seginfer turns camera images into the input of a segmentation network, and the network's output into masks at the
// camera's own pixels. It writes, byte for byte, what seginfer/_reference.py specifies, on every instruction set, with
// any number of threads, and on a GPU.
//
//     using namespace seginfer;
//     Threads threads(2);                                     // one is the caller's own; Threads(1) starts none
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
// What holds everywhere: sizes are (height, width); images are uint8 and state their format; strides of tensors count
// elements, pitches of images bytes; nobody but the caller owns memory; plans (Preprocessor, MaskDecoder,
// LabelResampler) hold what depends on sizes, and calls allocate nothing after the first; a call that does not accept
// its arguments throws InputError, which says what was expected and what was got, and has written nothing.
//
// geometry.h  where an image sits in the network input, in integers      taps.h     which samples a position reads
// view.h      images, tensors and planes that somebody else owns         threads.h  the pool, and memory that is reused
// pixel.h     the arithmetic of one pixel, for CPU, nvcc and NVRTC       cpu.h      both steps and the overlay
//
// For GPUs, compile cuda.h with nvcc; it is not included here, since it needs CUDA.
#pragma once

#include "error.h"
#include "geometry.h"
#include "taps.h"
#include "view.h"
#include "threads.h"
#include "kernels/pixel.h"
#include "cpu.h"
