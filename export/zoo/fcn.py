"""FCN-32s, FCN-16s and FCN-8s on VGG16.

Source: J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
arXiv:1411.4038 (sections 4.1 to 4.3, Fig. 3, Table 1), and E. Shelhamer, J. Long, T. Darrell, PAMI 2017,
arXiv:1605.06211.
Paddings and crops are those of the authors' released networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._parts import initialize, thin
from .vgg import FC_CHANNELS, VGG16, conv_stages

PADDING = 100
"""Of the first convolution. With it, even a small picture fills the 7x7 window of fc6."""
CROPS = {32: 19, 16: 27, 8: 31}
"""First row and column of the upsampled scores that lie over the picture, per stride."""
SKIP_CROPS = (5, 9)
"""First row and column within the scores of pool4 and of pool3."""


class FCN(nn.Module):
    """Fully convolutional VGG16 with logits as large as any input.

    The poolings round up, as Caffe's do, and the crops depend on it. Upsampling is a transposed convolution from all
    classes to all classes, without bias. It starts as bilinear interpolation class by class. The last one, to the
    picture's size, stays so. The authors start the score layers at zero, beside pretrained convolutions. Here all
    weights are random, because with zeros all classes would tie.

    Args:
        stride: step of the scores before the last upsampling: 32, 16 or 8.
        num_classes: channels of the output.
        divisor: divides all numbers of channels but those of input and output, for quick tests.

    Raises:
        ValueError: if `stride` is another number, or `divisor` does not divide 64.
    """

    size_multiple = 1
    """Any height and width."""

    def __init__(self, stride: int, num_classes: int = 21, *, divisor: int = 1) -> None:
        if stride not in CROPS:
            raise ValueError(f"stride must be one of {tuple(CROPS)}, got {stride}")
        super().__init__()
        fc, pool4, pool3 = (thin(channels, divisor) for channels in (FC_CHANNELS, VGG16[3][-1], VGG16[2][-1]))
        skips = {32: (), 16: (pool4,), 8: (pool4, pool3)}[stride]
        self.stride = stride
        self.encoder = conv_stages(3, VGG16, divisor=divisor, has_norm=False, first_padding=PADDING)
        self.pool = nn.MaxPool2d(kernel_size=2, ceil_mode=True)
        self.classifier = nn.Sequential(
            nn.Conv2d(thin(VGG16[4][-1], divisor), fc, kernel_size=7),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Conv2d(fc, fc, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Dropout(),
        )
        self.score = nn.Conv2d(fc, num_classes, kernel_size=1)
        self.skip_scores = nn.ModuleList(nn.Conv2d(channels, num_classes, kernel_size=1) for channels in skips)
        initialize(self)
        self.skip_ups = nn.ModuleList(bilinear_upsampling(num_classes, 2) for _ in skips)
        self.up = bilinear_upsampling(num_classes, stride).requires_grad_(False)

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized.

        Returns:
            (N, num_classes, H, W) float32 logits.
        """
        pools: list[Tensor] = []
        for stage in self.encoder:
            pools.append(self.pool(stage(pools[-1] if pools else batch)))
        scores = self.score(self.classifier(pools[4]))
        # There are fewer skips than pools at strides 32 and 16.
        for up, skip_score, pool, crop in zip(
            self.skip_ups, self.skip_scores, (pools[3], pools[2]), SKIP_CROPS, strict=False
        ):
            scores = up(scores)
            scores = scores + _crop(skip_score(pool), crop, scores)
        return _crop(self.up(scores), CROPS[self.stride], batch)


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Build a transposed convolution that interpolates bilinearly.

    Its output begins half a kernel before the centre of the first value, so the part over the input has to be cut out.

    Args:
        channels: of input and output.
        factor: an even number of output pixels per input pixel.

    Returns:
        (N, channels, h, w) to (N, channels, (h + 1) * factor, (w + 1) * factor), without bias.

    Source: the hat function 1 - |x| / factor, sampled at the centres of output pixels.
    """
    up = nn.ConvTranspose2d(channels, channels, kernel_size=2 * factor, stride=factor, bias=False)
    distance = (torch.arange(2 * factor, dtype=torch.float32) - (factor - 0.5)).abs()
    hat = 1 - distance / factor
    classes = torch.arange(channels)
    with torch.no_grad():
        up.weight.zero_()
        up.weight[classes, classes] = hat[:, None] * hat
    return up


def fcn32s(num_classes: int = 21, *, divisor: int = 1) -> FCN:
    """Build FCN-32s with random weights: one upsampling by 32."""
    return FCN(32, num_classes, divisor=divisor)


def fcn16s(num_classes: int = 21, *, divisor: int = 1) -> FCN:
    """Build FCN-16s with random weights: FCN-32s plus scores of pool4."""
    return FCN(16, num_classes, divisor=divisor)


def fcn8s(num_classes: int = 21, *, divisor: int = 1) -> FCN:
    """Build FCN-8s with random weights: FCN-16s plus scores of pool3."""
    return FCN(8, num_classes, divisor=divisor)


def _crop(x: Tensor, first: int, like: Tensor) -> Tensor:
    height, width = like.shape[2:]
    return x[..., first : first + height, first : first + width]
