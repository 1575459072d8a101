"""Small networks, each of which has one thing that float16 cannot do."""

# mypy: no-warn-return-any, allow-untyped-calls
# Calling a module of torch yields Any.

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Body(nn.Module):
    """Tiny with something in its middle; three wide convolutions, so that most multiplications can be float16."""

    def __init__(self, middle: nn.Module, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.middle = middle
        self.third = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, channels, 1)
        with torch.no_grad():
            self.last.weight *= 20

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(torch.relu(self.second(torch.relu(self.first(x)))))
        return self.last(torch.relu(self.third(x)))


class Attention(nn.Module):
    """Every pixel of a coarse grid looks at all others."""

    def forward(self, x: Tensor) -> Tensor:
        coarse = F.avg_pool2d(x, 4).flatten(2)
        weights = (coarse.transpose(1, 2) @ coarse).softmax(-1)
        seen = (coarse @ weights.transpose(1, 2)).unflatten(2, (x.shape[2] // 4, x.shape[3] // 4))
        return x + F.interpolate(seen, scale_factor=4, mode="bilinear")


class ChannelNorm(nn.Module):
    """Layer normalization over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WrittenNorm(nn.Module):
    """Normalization over the picture, written out: three operators that sum, and cheap ones between them."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


class TinyVariance(nn.Module):
    """Batch normalization of a plane that hardly varies, which no convolution absorbs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16, eps=1e-12)
        self.norm.running_var.fill_(1e-9)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-5 * self.norm(F.max_pool2d(1e-4 * x, 3, 1, 1))


class Times(nn.Module):
    """Out of float16's range and back: by how much is given."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x * self.factor) / self.factor


class HugeSum(nn.Module):
    """Pools by a sum over all pixels, which passes float16's largest value although no pixel does."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (x + 100).sum((2, 3), keepdim=True) * 1e-6


class Weights(nn.Module):
    """A 1x1 convolution whose weights are as large as given, and its inverse."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.there = nn.Conv2d(16, 16, 1, bias=False)
        self.back = nn.Conv2d(16, 16, 1, bias=False)
        with torch.no_grad():
            self.there.weight.copy_(torch.eye(16)[:, :, None, None] * size)
            self.back.weight.copy_(torch.eye(16)[:, :, None, None] / size)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(torch.relu(self.there(x)))


class DeadChannel(nn.Module):
    """A convolution with one weight beyond float16 on a channel that is always zero, as pruning leaves them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(16, 16, 1)
        with torch.no_grad():
            self.mix.weight[0, 0] = 1e6

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([torch.relu(-x[:, :1]), x[:, 1:]], 1))


class Bounded(nn.Module):
    """Clipped where no value comes near."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-1e9, 1e9)


class UnitLength(nn.Module):
    """Features divided by their length, with a constant of 1e-12 against division by zero."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class Offset(nn.Module):
    """Decides by differences of a thousandth on top of ten, through every layer: float16 has steps of 1/128 there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 1)
        self.layers = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(4))
        self.head = nn.Conv2d(16, 3, 1, bias=False)
        with torch.no_grad():
            self.first.weight *= 1e-3
            self.first.bias.fill_(10.0)  # type: ignore[union-attr]
            for layer in self.layers:
                nn.init.eye_(layer.get_parameter("weight")[:, :, 0, 0])
                layer.get_parameter("bias").zero_()
            centred = torch.randn(3, 16)
            self.head.weight.copy_((centred - centred.mean(1, keepdim=True))[:, :, None, None] * 1e3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


class HiddenOffset(nn.Module):
    """One layer of many carries an offset: no rule sees it, but trying the layers does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body(nn.Identity(), 16)
        self.bare = nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(16, 3, 1)
        with torch.no_grad():
            self.body.last.weight /= 20
            nn.init.eye_(self.bare.weight[:, :, 0, 0])
            self.bare.bias.fill_(500.0)  # type: ignore[union-attr]
            self.head.weight *= 20

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.bare(self.body(x)) - 500))


class Branches(nn.Module):
    """A condition inside the graph, which ONNX writes as If."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.mean() > 0, lambda x: x * 1.0, lambda x: x * 2.0, (x,))


class TwoHeads(nn.Module):
    """Two outputs from one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body(nn.Identity(), 16)
        self.out, self.aux = nn.Conv2d(16, 3, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        return {"out": self.out(features), "aux": self.aux(features)}


def activated(module: nn.Module, activation: nn.Module) -> nn.Module:
    """Return the module followed by an activation, for outputs of probabilities."""
    return nn.Sequential(module, activation)
