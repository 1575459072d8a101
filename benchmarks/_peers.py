"""Peers in separate environments, run as processes that time themselves.

Environments are made once, in a cache folder.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from _errors import PeerUnavailableError
from _timing import PEER_PAUSE_S

from seginfer._bench.turns import Contender

CACHE_VARIABLE = "SEGINFER_BENCH_CACHE"

_SET_UP_TIMEOUT_S, _ANSWER_TIMEOUT_S = 400, 120
_SCRIPTS = Path(__file__).resolve().parent / "peers"


class Peer(NamedTuple):
    """A package that does the whole work."""

    script: str
    requirements: tuple[str, ...]
    python: str | None = None
    """The only Python version that has wheels, such as "3.11". None for any."""


PEERS = {
    "model_api": Peer("run_model_api.py", ("openvino-model-api==0.4.*", "openvino==2026.*", "onnx>=1.17")),
    "mmdeploy": Peer("run_mmdeploy.py", ("mmdeploy-runtime==1.3.1", "numpy<2"), python="3.11"),
}


def cache_folder() -> Path:
    """Return the folder of the environments.

    $SEGINFER_BENCH_CACHE, or seginfer-bench in the user's cache folder.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seginfer-bench"
    return Path(os.environ.get(CACHE_VARIABLE) or default)


def set_up(name: str, *, may_download: bool = True) -> Path:
    """Return the Python of a peer's environment, made if necessary.

    Raises:
        PeerUnavailableError: if there is no environment and none can or may be made.
    """
    peer, folder = PEERS[name], cache_folder() / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(peer.requirements)
    if done.is_file() and done.read_text(encoding="utf-8") == wanted:
        return python
    if not may_download:
        raise PeerUnavailableError(f"no environment for {name} in the cache; run without --no-setup")
    _run([_interpreter(name, peer), "-m", "venv", "--clear", str(folder)], name)
    _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *peer.requirements], name)
    done.write_text(wanted, encoding="utf-8")
    return python


class PeerProcess:
    """A running peer that has saved its results.

    Args:
        name: one of PEERS.
        job: input of its script. "result" is added.
        may_download: make the environment if it is missing.

    Attributes:
        about: versions and threads that the process reports.
        results: path of the .npz file with its masks.

    Raises:
        PeerUnavailableError: if it does not start or fails on the model.
    """

    def __init__(self, name: str, job: dict[str, Any], *, may_download: bool = True) -> None:
        python = set_up(name, may_download=may_download)
        self._name, self._folder = name, tempfile.TemporaryDirectory()
        self.results = Path(self._folder.name) / "result.npz"
        self._errors = (Path(self._folder.name) / "errors.txt").open("w+", encoding="utf-8")
        command = [str(python), str(_SCRIPTS / PEERS[name].script), json.dumps({**job, "result": str(self.results)})]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        try:
            self.about = self._receive()
        except PeerUnavailableError:
            self.close()
            raise

    def contender(self, name: str, call: str) -> Contender:
        """Return a contender for one call of the script."""

        def run(n: int) -> list[float]:
            if self._process.stdin is None:
                raise PeerUnavailableError(f"{self._name} is closed")
            self._process.stdin.write(json.dumps({"call": call, "times": n}) + "\n")
            self._process.stdin.flush()
            times: list[float] = self._receive()["ms"]
            return times

        return Contender(name, run, PEER_PAUSE_S)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._folder.cleanup()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> dict[str, Any]:
        """Return the next message."""
        output = self._process.stdout
        if output is None or not select.select([output], [], [], _ANSWER_TIMEOUT_S)[0]:
            raise PeerUnavailableError(f"{self._name} did not answer within {_ANSWER_TIMEOUT_S} s")
        line = output.readline()
        if not line:
            self._errors.seek(0)
            raise PeerUnavailableError(f"{self._name} ended: {_last_line(self._errors.read())}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _interpreter(name: str, peer: Peer) -> str:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if peer.python in (None, here):
        return sys.executable
    found = shutil.which(f"python{peer.python}")
    if found is None:
        raise PeerUnavailableError(f"{name} has wheels for Python {peer.python}, which is not on the PATH")
    return found


def _run(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SET_UP_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailableError(f"the environment of {name} cannot be made: {type(error).__name__}") from error
    if done.returncode:
        raise PeerUnavailableError(f"the environment of {name} cannot be made: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    """Return the last line with text. For pip, the last error."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no output"])[-1].strip()
