"""The exceptions of seginfer: one root, and children that are also the matching built-in.

::

    SegInferError
    ├── InputError                (ValueError)         an image, an array or an argument
    ├── SpecError                 (ValueError)         a ModelSpec or its JSON
    ├── MissingFileError          (FileNotFoundError)  a path that does not exist
    ├── ModelFileError            (ValueError)         a model file: truncated, foreign, without or against its spec
    ├── OutputWriteError          (OSError)            a result that could not be written
    ├── MissingDependencyError    (ImportError)        an optional package
    │   └── BackendUnavailableError                    a backend or device that was asked for and is not there
    ├── BackendError              (RuntimeError)       inference itself failed
    ├── WeightsError              (ValueError)         a checkpoint that cannot be read or does not fit
    └── ExportError               (RuntimeError)       a model that cannot be exported
        └── ParityError                                an export that does not say what PyTorch says (_certificate.py)

Every message states what was expected, what was got, and the remedy.
"""

from __future__ import annotations


class SegInferError(Exception):
    """Root of every error that seginfer raises on purpose."""


class InputError(SegInferError, ValueError):
    """An image, an array or an argument is not what the call accepts."""


class SpecError(SegInferError, ValueError):
    """A ModelSpec is malformed or contradicts itself."""


class MissingFileError(SegInferError, FileNotFoundError):
    """A path given by the user does not exist."""


class ModelFileError(SegInferError, ValueError):
    """A model file is truncated, foreign, without a spec, or contradicts its spec."""


class OutputWriteError(SegInferError, OSError):
    """A result could not be written; the previous file, if any, is intact."""


class MissingDependencyError(SegInferError, ImportError):
    """An optional package is needed for this call and is not installed."""


class BackendUnavailableError(MissingDependencyError):
    """A backend or a device was asked for by name and is not available."""


class BackendError(SegInferError, RuntimeError):
    """The backend failed while it loaded or ran the network."""


class WeightsError(SegInferError, ValueError):
    """A checkpoint cannot be read safely or does not fit the model."""


class ExportError(SegInferError, RuntimeError):
    """A model cannot be exported."""
