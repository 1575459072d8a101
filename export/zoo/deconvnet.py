"""DeconvNet: VGG16, and its mirror image with unpooling.

Source: H. Noh, S. Hong, B. Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
arXiv:1505.04366 (sections 3.1 and 3.2, Fig. 2, and the table of layers in its appendix).
"""

from __future__ import annotations

from torch import Tensor, nn

from ._parts import amplify, initialize, thin
from .vgg import FC_CHANNELS, VGG16, VGG16_MIRRORED, activate, conv_stages


class DeconvNet(nn.Module):
    """Encoder and decoder with fully connected layers between.

    Logits are as large as the input. Batch normalization follows every convolution but the last. The pooled features of
    a picture of 224 x 224 are 7 x 7, the window of fc6. All layers are convolutions, so larger pictures work too. See
    `SegNet` about equal maxima.

    Args:
        num_classes: channels of the output.
        divisor: divides all numbers of channels but those of input and output, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 64.
    """

    size_multiple = 32
    """Height and width of the input must be multiples of this number, and at least `smallest_size`."""
    smallest_size = 224

    def __init__(self, num_classes: int = 21, *, divisor: int = 1) -> None:
        super().__init__()
        coarse, fc, fine = (thin(channels, divisor) for channels in (VGG16[-1][-1], FC_CHANNELS, VGG16[0][0]))
        self.encoder = conv_stages(3, VGG16, divisor=divisor)
        self.pool = nn.MaxPool2d(kernel_size=2, return_indices=True)
        self.bottleneck = nn.Sequential(
            *activate(nn.Conv2d(coarse, fc, kernel_size=7), has_norm=True),
            *activate(nn.Conv2d(fc, fc, kernel_size=1), has_norm=True),
            *activate(nn.ConvTranspose2d(fc, coarse, kernel_size=7), has_norm=True),
        )
        self.unpool = nn.MaxUnpool2d(kernel_size=2)
        self.decoder = conv_stages(coarse, VGG16_MIRRORED, divisor=divisor, layer=nn.ConvTranspose2d)
        self.classifier = nn.Conv2d(fine, num_classes, kernel_size=1)
        initialize(self)
        amplify(self.bottleneck[6], 7)  # one position of its 7x7 window is filled for pictures of 224 x 224
        for stage in self.decoder:
            amplify(next(stage.children()), 2)  # an unpooling leaves three zeros around every value

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized. H and W are multiples of 32, at least 224.

        Returns:
            (N, num_classes, H, W) float32 logits.
        """
        maxima: list[Tensor] = []
        x = batch
        for stage in self.encoder:
            x, indices = self.pool(stage(x))
            maxima.append(indices)
        x = self.bottleneck(x)
        for stage, indices in zip(self.decoder, reversed(maxima), strict=True):
            x = stage(self.unpool(x, indices))
        logits: Tensor = self.classifier(x)
        return logits


def deconvnet(num_classes: int = 21, *, divisor: int = 1) -> DeconvNet:
    """Build DeconvNet with random weights. 21 classes are those of Pascal VOC."""
    return DeconvNet(num_classes, divisor=divisor)
