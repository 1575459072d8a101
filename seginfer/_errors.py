"""Exceptions of seginfer.

Every error that seginfer raises on purpose is a SegInferError and also a built-in exception::

    SegInferError
    ├── InputError                (ValueError)         an image, an array or an argument
    ├── SpecError                 (ValueError)         a ModelSpec or its JSON
    ├── MissingFileError          (FileNotFoundError)  a path that does not exist
    ├── ModelFileError            (ValueError)         a model file: truncated, foreign, or against its spec
    ├── OutputWriteError          (OSError)            a result that could not be written
    ├── MissingDependencyError    (ImportError)        an optional package
    │   └── BackendUnavailableError                    a requested backend or device
    ├── BackendError              (RuntimeError)       inference
    │   ├── BuildError                                 building an engine (_tensorrt/build.py)
    │   ├── GpuMemoryError                             memory of a GPU (_cuda/errors.py)
    │   └── CaptureError                               recording a CUDA graph, internal (_cuda/graph.py)
    ├── WeightsError              (ValueError)         a checkpoint: unreadable, unsafe, or for another model
    └── ExportError               (RuntimeError)       exporting a model
        └── ParityError                                an export that differs from PyTorch (_spec/certificate.py)

The message states what was expected, what was found, and the remedy.
"""

from __future__ import annotations

_LONGEST = 2000  # characters of a message, which may repeat parts of a hostile file


class SegInferError(Exception):
    """Base of every error that seginfer raises on purpose."""

    def __init__(self, *args: object) -> None:
        # In one line: names of files, tensors and modules may hold line breaks.
        super().__init__(*(shortened(" ".join(arg.splitlines())) if isinstance(arg, str) else arg for arg in args))


def shortened(message: str) -> str:
    """Return a message of limited length. The end is kept, where the remedy is."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"


class InputError(SegInferError, ValueError):
    """Invalid image, array or argument."""


class SpecError(SegInferError, ValueError):
    """Malformed or contradictory ModelSpec."""


class MissingFileError(SegInferError, FileNotFoundError):
    """Missing file or folder."""


class ModelFileError(SegInferError, ValueError):
    """Model file that is truncated, foreign, or contradicts its spec."""


class OutputWriteError(SegInferError, OSError):
    """Failed write. The previous file, if any, is intact."""


class MissingDependencyError(SegInferError, ImportError):
    """Missing optional package."""


class BackendUnavailableError(MissingDependencyError):
    """Requested backend or device that is not available."""


class BackendError(SegInferError, RuntimeError):
    """Failure to load or run the network."""


class WeightsError(SegInferError, ValueError):
    """Checkpoint that is unsafe, unreadable, or does not fit."""


class ExportError(SegInferError, RuntimeError):
    """Failure to export a model."""
