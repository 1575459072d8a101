"""Keep the kernels that TensorRT for RTX compiles for one GPU.

The file model.engine.runtime lies beside model.engine. Without it, every process would compile all kernels again.
"""

# The library rejects caches of another GPU, driver or version itself. It crashes on some damaged files, and a cache
# holds code. So only what this user wrote for this engine is given to it.

from __future__ import annotations

import logging
import os
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

from .._system.atomic import atomic_path
from .._system.environment import foreign_problem

_log = logging.getLogger("seginfer")

_DIGEST = sha256().digest_size


def runtime_cache_path(engine: str | Path) -> Path:
    """Return the path of an engine's runtime cache."""
    return Path(f"{engine}.runtime")


class RuntimeCache:
    """A runtime cache of the library, loaded from its file and saved there. Thread-safe.

    Args:
        engine: path of the engine. For a link, the cache lies beside the file that it points to.
        engine_sha256: hash of the engine.
        cache: the library's empty cache.
    """

    def __init__(self, engine: Path, engine_sha256: str, cache: Any) -> None:
        self.cache = cache
        self._path, self._label = runtime_cache_path(os.path.realpath(engine)), engine_sha256.encode()
        self._lock = threading.Lock()
        data = self._read()
        if data and not cache.deserialize(data):
            _log.info("%s is of another GPU, driver or version; kernels are compiled again", self._path)
        self._saved = self._digest(self._serialize())

    def save(self) -> None:
        """Write the file if there are new kernels. A failure is logged only."""
        with self._lock:
            data = self._serialize()
            digest = self._digest(data)
            if digest == self._saved:
                return
            self._saved = digest
            try:
                if self._path.is_symlink():  # nothing is written through a link that was planted here
                    self._path.unlink()
                with atomic_path(self._path) as part:
                    part.write_bytes(digest + data)
                    part.chmod(0o600)
            except OSError as error:  # OutputWriteError is one
                _log.warning("every start compiles this engine again, because its kernels cannot be kept: %s", error)

    def _read(self) -> bytes:
        """Return the content of the file, if it is whole and trusted."""
        if not self._path.is_file():
            return b""
        try:
            content = self._path.read_bytes()
        except OSError as error:
            _log.warning("%s is not used: %s", self._path, error.strerror or error)
            return b""
        digest, data = content[:_DIGEST], content[_DIGEST:]
        problem = foreign_problem(self._path)
        if not problem and digest != self._digest(data):
            problem = f"{self._path} is damaged, or of another engine"
        if problem:
            _log.warning("kernels are compiled again: %s", problem)
        return b"" if problem else data

    def _digest(self, data: bytes) -> bytes:
        return sha256(self._label + data).digest()

    def _serialize(self) -> bytes:
        data = self.cache.serialize()
        return b"" if data is None else bytes(memoryview(data))
