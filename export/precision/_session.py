"""Session of ONNX Runtime on a graph in memory."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from seginfer._errors import ExportError
from seginfer._system.environment import usable_cores


class Session:
    """Runs a graph of one input on the CPU.

    Args:
        model: at most 2 GiB, the limit of a serialized ONNX message.

    Raises:
        ExportError: if ONNX Runtime refuses the graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = " ".join(str(error).split())
            raise ExportError(f"onnxruntime cannot load the graph ({reason}); report this with the module") from error
        network_input = self._session.get_inputs()[0]
        self._input = network_input.name
        self._batch_size = network_input.shape[0] if isinstance(network_input.shape[0], int) else 1

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return every output for one image.

        The image is repeated if the graph takes batches of a fixed size.
        """
        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {self._input: batch.repeat(self._batch_size, 0)})
        return dict(zip(names, values, strict=True))
