"""Conversion of an fp32 graph to float16."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

import onnx
from numpy.typing import NDArray

from seginfer._errors import ExportError

from ._convert import to_float16
from ._fp32_nodes import choose_fp32_nodes, fill_gaps
from ._graph import MULTIPLYING, Graph, key_of, label_of
from ._losses import Loss, measure_losses
from ._ranges import Ranges, observe
from ._simulate import simulate_fp16
from .limits import Limits
from .precision import Precision

LOST = "lost agreement with PyTorch"
_MIN_SHARE = 0.5  # of the multiplications: below it, the file would be fp16 in name only
_MAX_RETRIES = 3
_REST = 1 / 16  # of the squared error may be left after each retry, a quarter of the error
_NAMED = 5

_log = logging.getLogger("seginfer")


class Half:
    """A graph in float16, with some nodes in float32.

    Nodes stay in float32 if their values ask for it, and go back to float32 if they lose agreement with PyTorch.

    Args:
        model: the fp32 graph, not modified.
        batches: network inputs of one image each, from which ranges are learned.

    Raises:
        ExportError: if less than half of the multiplications could be done in float16.
    """

    def __init__(self, model: onnx.ModelProto, batches: Iterable[NDArray[Any]]) -> None:
        self._graph = Graph(model)
        batches = iter(batches)
        self._batch = next(batches)
        self._ranges: Ranges = observe(self._graph, chain([self._batch], batches))
        self._reasons = choose_fp32_nodes(self._graph, self._ranges)
        self._losses: list[Loss] | None = None
        self._retries = 0
        self.suspects: tuple[str, ...] = ()
        """Names of the layers that lose agreement, the worst first. Empty before the first `retry`."""
        share = self._share(self._reasons)
        if share < _MIN_SHARE:
            raise ExportError(
                f"only {share:.0%} of the multiplications could be done in float16, expected {_MIN_SHARE:.0%} "
                f"(in float32: {self._format_fp32_nodes()}); export with precision 'fp32'"
            )
        self._log_fp32_nodes()

    @property
    def model(self) -> onnx.ModelProto:
        """The float16 graph. Its outputs are float32."""
        model = to_float16(self._graph, self._reasons)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            reason = " ".join(str(error).split())
            raise ExportError(
                f"the float16 graph is not valid ({reason}); export with precision 'fp32', and report this"
            ) from error
        return model

    @property
    def fp32_nodes(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that stay in float32, by reason."""
        names: dict[str, list[str]] = defaultdict(list)
        for node in self._graph.computing_nodes():
            if key_of(node) in self._reasons:
                names[self._reasons[key_of(node)]].append(label_of(node))
        return {reason: tuple(names[reason]) for reason in sorted(names)}

    @property
    def simulated(self) -> onnx.ModelProto:
        """A float32 graph that rounds like the float16 graph."""
        return simulate_fp16(self.model)

    def retry(self) -> bool:
        """Return the layers that lose most to float32.

        Each call aims at a quarter of the error.

        Returns:
            False if no layer loses anything, or too little would be left in float16.
        """
        if self._losses is None:
            _log.info("agreement is lost: trying each layer in float16 alone")
            self._losses = measure_losses(self._graph, self._reasons, self._batch)
            self.suspects = self._layers_of(self._losses)
        returned = self._worst_that_fit(self._losses)
        self._retries += 1
        if not returned or self._retries > _MAX_RETRIES:
            return False
        self._losses = [loss for loss in self._losses if loss not in returned]
        self._reasons = fill_gaps(self._graph, self._with(returned))
        self._log_fp32_nodes()
        return True

    def _worst_that_fit(self, losses: list[Loss]) -> list[Loss]:
        """Return the worst losses, until the rest is small.

        Losses without which too little would be left in float16 are passed over.
        """
        rest = sum(loss.error for loss in losses)
        allowed, worst = _REST * rest, list[Loss]()
        for loss in losses:
            if rest > allowed and loss.error > 0 and self._share(self._with([*worst, loss])) >= _MIN_SHARE:
                worst.append(loss)
                rest -= loss.error
        return worst

    def _with(self, losses: list[Loss]) -> dict[str, str]:
        return {**self._reasons, **{key: LOST for loss in losses for key in loss.keys}}

    def _layers_of(self, losses: list[Loss]) -> tuple[str, ...]:
        """Return the names of layers with losses, the worst first."""
        nodes = {key_of(node): node for node in self._graph.computing_nodes()}
        lost = [nodes[key] for loss in losses if loss.error > 0 for key in loss.keys]
        return tuple(label_of(node) for node in [node for node in lost if node.op_type in MULTIPLYING] or lost)

    def _share(self, fp32_nodes: dict[str, str]) -> float:
        """Return the share of multiplications that are done in float16."""
        macs = self._ranges.macs
        return sum(count for key, count in macs.items() if key not in fp32_nodes) / max(sum(macs.values()), 1)

    def _format_fp32_nodes(self) -> str:
        parts = []
        for reason, names in self.fp32_nodes.items():
            more = ", ..." if len(names) > _NAMED else ""
            parts.append(f"{reason}: {', '.join(islice(names, _NAMED))}{more}")
        return "; ".join(parts)

    def _log_fp32_nodes(self) -> None:
        count = len(self._reasons)
        _log.info(
            "float16 does %.1f%% of the multiplications; %d of %d nodes stay in float32",
            100 * self._share(self._reasons), count, len(self._graph.computing_nodes()),
        )  # fmt: skip
        for reason, names in self.fp32_nodes.items():
            _log.info("in float32, %s: %s", reason, ", ".join(names))


# Measured errors, relative to the largest value: 4e-4 where weights alone are rounded. Where activations are too,
# 9e-4 in the logits of the shipped U-Net, 5e-3 in its probabilities, 2e-3 to 3e-3 in ResNets and MobileNets with random
# weights. A channel that is five times fainter was off by 7e-3 of its own largest value. That leaves 0.06 % of the
# U-Net's pixels undecided and 0.002 % in another class. The limit of a tenth refuses files that decide too little.
FP16 = Precision(
    "fp16",
    Half,
    Limits(
        network_share=1e-2,
        channel_share=5e-2,
        channel_floor=1e-3,
        undecided_share=0.1,
        pixel_agreement=0.998,
        mean_iou=0.98,
    ),
    simulated=True,
    needs_calibration=True,
)
