"""Peers of the GPU benchmark: scripts without seginfer."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from _settings import missing
from cpu_networks import MEAN, STD
from idioms import cv2_mask, numpy_batch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .backends import Case, onnxruntime_missing, torch_missing

Array = NDArray[Any]

# fp32 must mean the same for all. The backends of seginfer keep all 24 bits too.
TF32 = "off for everyone, in PyTorch and ONNX Runtime too, where convolutions have it by default"


class Peer(Protocol):
    """A script that makes masks of frames."""

    about: str
    first_calls: int
    """Calls until all one-time work is done."""

    def __call__(self, images: Sequence[Array]) -> Sequence[Array]:
        """Return the masks."""

    def close(self) -> None:
        """Free the script's memory."""


class TorchScript:
    """The whole pipeline in PyTorch on the device.

    Args:
        case: what to run.
        is_compiled: use torch.compile for everything between upload and download. The mode is the one with CUDA graphs
            that its documentation recommends for small batches.
    """

    def __init__(self, case: Case, *, is_compiled: bool) -> None:
        self._device = torch.device(case.device)
        self._module = case.network.module_on(case.device, case.precision)
        self._dtype = torch.float16 if case.precision == "fp16" else torch.float32
        self._input_hw = case.network.input_hw
        self._mean, self._std = (torch.tensor(values, device=self._device)[:, None, None] for values in (MEAN, STD))
        self._whole: Callable[[Tensor], Tensor] = self._masks
        if is_compiled:
            # fullgraph: an error instead of a silent fall-back to eager mode
            self._whole = torch.compile(self._masks, mode="reduce-overhead", dynamic=False, fullgraph=True)
        self._is_compiled = is_compiled
        self.first_calls = 3 if is_compiled else 1  # warm-up, capture, replay
        self.about = f"torch {torch.__version__}" + (", torch.compile(mode='reduce-overhead')" if is_compiled else "")

    def _masks(self, frames: Tensor) -> Tensor:
        pixels = frames.permute(0, 3, 1, 2).float()
        resized = F.interpolate(pixels, size=self._input_hw, mode="bilinear", align_corners=False)
        batch = (resized / 255 - self._mean) / self._std
        logits = self._module(batch.to(self._dtype))
        full = F.interpolate(logits, size=frames.shape[1:3], mode="bilinear", align_corners=False)
        return full.argmax(1).to(torch.uint8)

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Return one mask per image."""
        with torch.inference_mode():
            frames = torch.from_numpy(np.stack(images)).to(self._device)
            return list(self._whole(frames).cpu().numpy())

    def close(self) -> None:
        """Free the memory."""
        del self._module, self._whole
        if self._is_compiled:
            torch.compiler.reset()  # otherwise its graphs keep their memory


class OnnxRuntimeScript:
    """cv2 and NumPy around a session, as in most inference scripts."""

    first_calls = 1

    def __init__(self, case: Case) -> None:
        ort = importlib.import_module("onnxruntime")
        providers: list[Any] = ["CPUExecutionProvider"]
        if case.device != "cpu":
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))
        self._session = ort.InferenceSession(str(case.network.files[case.precision].plain), providers=providers)
        taken = self._session.get_providers()[0]
        if case.device != "cpu" and taken != "CUDAExecutionProvider":
            raise RuntimeError(f"the CUDA provider did not load, {taken} would have run")
        self._input, self._input_hw = self._session.get_inputs()[0].name, case.network.input_hw
        self.about = f"onnxruntime {ort.__version__}, {taken}, cv2 and NumPy"

    def __call__(self, images: Sequence[Array]) -> list[Array]:
        """Return one mask per image."""
        batch = np.concatenate([numpy_batch(image, self._input_hw) for image in images])
        (logits,) = self._session.run(None, {self._input: batch})
        return [cv2_mask(one[None], image.shape[:2]) for one, image in zip(logits, images, strict=True)]

    def close(self) -> None:
        """Free the session."""
        del self._session


PEERS: dict[str, Callable[[Case], Peer]] = {
    "eager": lambda case: TorchScript(case, is_compiled=False),
    "compile": lambda case: TorchScript(case, is_compiled=True),
    "onnxruntime": OnnxRuntimeScript,
}


def why_no_peer(name: str, device: str) -> str:
    """Return why a peer is missing, or an empty string."""
    if name != "onnxruntime":
        return torch_missing(device)
    return onnxruntime_missing(device) or missing("cv2") or ""


def use_no_tf32() -> None:
    """Turn TF32 off in PyTorch."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
