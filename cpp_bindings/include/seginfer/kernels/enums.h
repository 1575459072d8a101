// enums.h: enumerations shared by the CPU and GPU kernels. Includes nothing; seginfer/_cuda/kernel_args.py repeats the
// names and numbers, and a test compares them.
#pragma once

namespace seginfer {

// Type of a tensor's values. Integers are class ids or, in uint8 batches, pixels.
enum class DType : int { float32, float16, uint8, int32, int64 };

// Memory layout of an image's pixels. Records of yuv images hold the distances between values.
enum class Source : int { packed3, packed4, gray, yuv };

// Resampling filter: nearest pixel, float32 weights, or the fixed-point arithmetic of cv2 and Pillow.
enum class Filter : int { pick, weighted, opencv, pillow };

// Formula of a pixel's confidence.
enum class Confidence : int { softmax, sigmoid_of_label, sigmoid, value, value_of_label };

}  // namespace seginfer
