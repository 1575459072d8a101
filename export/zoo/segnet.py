"""SegNet: VGG16, and a decoder that undoes its poolings.

Source: V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation", PAMI 2017, arXiv:1511.00561 (section 3, Fig. 2 and 3).
"""

from __future__ import annotations

from torch import Tensor, nn

from ._parts import amplify, initialize, thin
from .vgg import VGG16, VGG16_MIRRORED, conv_stages

CAMVID_CLASSES = 11


class SegNet(nn.Module):
    """Thirteen convolutions down and thirteen up.

    The last convolution is the classifier, and logits are as large as the input. The decoder's unpooling puts values at
    the places of the encoder's maxima, and zeros elsewhere. If the two largest values of a window are equal up to
    rounding, another runtime may choose another place. Usually some of a picture's million windows are such.

    The poolings round up, as Caffe's do, so every pixel is in a window: the paper's 360 x 480 becomes 12 x 15.

    Args:
        num_classes: channels of the output.
        divisor: divides all numbers of channels but those of input and output, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 64.
    """

    size_multiple = 1
    """Any height and width. Multiples of 32 halve five times without a remainder."""

    def __init__(self, num_classes: int = CAMVID_CLASSES, *, divisor: int = 1) -> None:
        super().__init__()
        decoder = (*VGG16_MIRRORED[:-1], VGG16_MIRRORED[-1][:-1])  # the classifier replaces the last one
        self.encoder = conv_stages(3, VGG16, divisor=divisor)
        self.pool = nn.MaxPool2d(kernel_size=2, ceil_mode=True, return_indices=True)
        self.unpool = nn.MaxUnpool2d(kernel_size=2)
        self.decoder = conv_stages(thin(VGG16[-1][-1], divisor), decoder, divisor=divisor)
        self.classifier = nn.Conv2d(thin(decoder[-1][-1], divisor), num_classes, kernel_size=3, padding=1)
        initialize(self)
        for stage in self.decoder:
            amplify(next(stage.children()), 2)  # an unpooling leaves three zeros around every value

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized.

        Returns:
            (N, num_classes, H, W) float32 logits.
        """
        maxima = []
        x = batch
        for stage in self.encoder:
            x = stage(x)
            height, width = x.shape[2:]
            x, indices = self.pool(x)
            maxima.append((indices, (height, width)))
        for stage, (indices, size) in zip(self.decoder, reversed(maxima), strict=True):
            x = stage(self.unpool(x, indices, output_size=size))
        logits: Tensor = self.classifier(x)
        return logits


def segnet(num_classes: int = CAMVID_CLASSES, *, divisor: int = 1) -> SegNet:
    """Build SegNet with random weights. Eleven classes are those of CamVid."""
    return SegNet(num_classes, divisor=divisor)
