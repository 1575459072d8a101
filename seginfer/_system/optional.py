"""Import optional packages where they are used, with the remedy in the error."""

from __future__ import annotations

import importlib
from types import ModuleType

from .._errors import MissingDependencyError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or say which extra brings it.

    Raises:
        MissingDependencyError: if the import fails.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs {module}, which is not importable ({error}); pip install 'seginfer[{extra}]'"
        ) from error
