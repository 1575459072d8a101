"""Every tolerance of the tests in one table: what may differ, by how much, why, and how much it was seen to differ.

Measured with OpenCV 5.0, Pillow 13.0, torch 2.15, NumPy 2.4 on x86-64, over 100 000 drawn sizes of 1..180
for the resizes and some thousand of 1..120 for masks and confidence.
A limit may be tightened; it is not loosened to make a test pass.
"""

from typing import NamedTuple


class Tolerance(NamedTuple):
    limit: float
    measured: float
    reason: str


OPENCV_WITH_IPP = Tolerance(
    limit=1,
    measured=0,
    reason="levels of 0..255; Intel's IPP, where OpenCV was built with it, may round the same weights differently",
)
PILLOW_PASS_ORDER = Tolerance(
    limit=1,
    measured=1,
    reason="levels of 0..255; Pillow 13 may run the vertical pass first when the height shrinks, and rounds in between",
)
YUV = Tolerance(
    limit=0.501,
    measured=0.501,
    reason="levels of 0..255 from the formula in float64; half a level of rounding, and 20-bit coefficients",
)
OPENCV_YUV = Tolerance(
    limit=0.7,
    measured=0.69,
    reason="the same for BT.601 of limited range, whose coefficients are OpenCV's, from three decimals",
)
SWSCALE = Tolerance(
    limit=1,
    measured=1,
    reason="levels of 0..255; swscale with its flag for accurate rounding, and 3 without it",
)
TORCH_RESIZE = Tolerance(
    limit=1e-5,
    measured=6.8e-6,
    reason="pixels in 0..1; torch's fused multiply-add moves source positions, which are float32",
)
TORCH_ANTIALIAS = Tolerance(
    limit=2e-6,
    measured=6.0e-7,
    reason="pixels in 0..1; both sum float32 products, not always in the same order",
)
NORMALIZED = Tolerance(
    limit=1e-6,
    measured=4.4e-7,
    reason="relative to the largest value; gain and bias are folded into one float32 multiplication and addition",
)
FLOAT16_STEP = Tolerance(
    limit=2**-10,
    measured=4.7e-4,
    reason="relative to the largest value; half a float16 step, a whole one where the float32 values differ at all",
)
MARGIN = Tolerance(
    limit=2.5e-5,
    measured=1.7e-5,
    reason="logits of about 1; twice the interpolation error, which is torch's fused multiply-add: 7e-7 where torch "
    "runs without it (ATEN_CPU_CAPABILITY=default) or with align_corners",
)
POSITION = Tolerance(
    limit=4e-7,
    measured=2.2e-7,
    reason="relative to the cells that the whole image would cover; positions are float32",
)
NEAR_TIES = Tolerance(
    limit=5e-4,
    measured=1.0e-4,
    reason="share of pixels whose margin is below MARGIN; keeps MARGIN from excusing everything",
)
ACTIVATION = Tolerance(
    limit=1e-6,
    measured=2.4e-7,
    reason="probability; exp and tanh of two libraries",
)
CONFIDENCE = Tolerance(
    limit=6e-6,
    measured=2.9e-6,
    reason="probability of interpolated logits of about 1; the interpolation error of MARGIN again",
)
MASK_ROUNDING = Tolerance(
    limit=5e-7,
    measured=2.9e-8,
    reason="margin of a pixel with another label, relative to the largest logit; the weights are float32",
)
ADAPTIVE_POOL = Tolerance(
    limit=1e-6,
    measured=4.8e-7,
    reason="values of a standard normal; torch adds and then divides, the matrices weigh and then add",
)
ANTIALIAS_BY_MATRIX = Tolerance(
    limit=4e-6,
    measured=1.1e-6,
    reason="pixels in 0..1; both sum float32 products in orders of their own",
)
SURGERY_IN_HALF = Tolerance(
    limit=8e-3,
    measured=0,
    reason="values up to 4; matrix products in float16 round weights, products and the sum in between",
)
RESIZE_IN_ONNX = Tolerance(
    limit=1e-5,
    measured=2.4e-6,
    reason="pixels in 0..1; ONNX Runtime rounds source positions otherwise than torch",
)
UPSAMPLING = Tolerance(
    limit=5e-7,
    measured=1.8e-7,
    reason="values of 0..1; a transposed convolution and interpolate() sum the same four products in another order",
)
SAME_PIXELS = Tolerance(
    limit=5e-6,
    measured=1.4e-6,
    reason="relative to the largest logit; convolutions of a tile and of the whole picture sum in another order",
)
RAMP = Tolerance(
    limit=1e-12,
    measured=1.8e-15,
    reason="relative to the largest value; a float64 network of means maps a ramp to itself",
)
HALF_ON_CPU = Tolerance(
    limit=2e-3,
    measured=9.2e-4,
    reason="relative to the largest logit; ONNX Runtime's CPU provider leaves out roundings between float16 operators",
)
NATIVE_CONFIDENCE = Tolerance(
    limit=1e-6,
    measured=2.4e-7,
    reason="probability; the compiled core has an exponential of its own",
)
