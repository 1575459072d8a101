"""Check a case against PyTorch, then time it in pairs."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seginfer import BackendUnavailableError, Segmenter
from seginfer._bench.statistics import summarize
from seginfer._bench.turns import Contender, make_contender

from .backends import BackendName, Case, NetworkAlone, open_segmenter, prepare, runs_as, why_missing
from .check import Frames, check_masks, check_segmenter
from .machine import MemoryWatch, free_and_total_bytes, gpu_state, release_memory
from .peers import PEERS, Peer, why_no_peer
from .run import Record, Run, or_reason
from .turns import time_pair

GOAL = 1.2
"""End to end over the network alone, at most."""


class Subject(NamedTuple):
    """A segmenter that passed the check against PyTorch."""

    segmenter: Segmenter
    contender: Contender
    batch: NDArray[Any]
    """Input of its network."""
    record: Record


def find_missing(run: Run) -> None:
    """Record the backends and peers that are missing."""
    for kind, names, why in (("backend", run.backends, why_missing), ("peer", run.peers, why_no_peer)):
        for name in names:
            if reason := why(name, run.device):
                run.missing[f"{kind} {name}"] = reason


def measure_case(case: Case, frames: Frames, run: Run) -> Record:
    """Return the record of one case.

    Measurements that failed have a reason under "wrong", "skipped" or "failed".
    """
    frames = frames.batch(case.batch)
    with ExitStack() as held:
        peers = _Peers(case, frames, run)
        held.callback(peers.close)
        results = {name: or_reason(partial(_measure, name, case, frames, peers, run)) for name in run.backends}
    for name, result in results.items():
        run.say(f"  {name}: {_describe(result)}")
    return {
        "network": case.network.name,
        "input_hw": case.network.input_hw,
        "precision": case.precision,
        "batch": case.batch,
        "peers": peers.records,
        "backends": results,
    }


def _measure(name: BackendName, case: Case, frames: Frames, peers: _Peers, run: Run) -> Record:
    """Measure one backend.

    Where GPU memory is scarce, it holds the backend, its network and one peer at most.
    """
    if reason := run.missing.get(f"backend {name}"):
        return {"skipped": reason}
    run.check_time()
    release_memory(case.device)
    try:
        with ExitStack() as held:
            subject = _open(name, case, frames, run, held)
            network = or_reason(lambda: _against_network(subject, run))
            against = {peer: or_reason(partial(peers.against, peer, subject)) for peer in run.peers}
            state = None if case.device == "cpu" else gpu_state()
            return {**subject.record, **_numbers(network, against, case.batch), "gpu": state}
    except BackendUnavailableError as error:
        run.missing[f"backend {name}"] = str(error)
        raise
    finally:
        release_memory(case.device)


def _open(name: BackendName, case: Case, frames: Frames, run: Run, held: ExitStack) -> Subject:
    before = time.perf_counter()
    prepare(name, case, run.check_time)
    start = time.perf_counter()
    with MemoryWatch(case.device) as memory:
        segmenter = held.enter_context(open_segmenter(name, case))
        opened = time.perf_counter()
        outs = [np.empty(image.shape[:2], np.uint8) for image in frames.images]
        segmenter(frames.images, out=outs)
        first = time.perf_counter()
    checked, batch = check_segmenter(segmenter, frames, case.precision)
    record = {
        "backend": segmenter.backend.description,
        "pipeline": segmenter.pipeline.description,
        "runs_as": runs_as(segmenter),
        "build_s": start - before,
        "open_s": opened - start,
        "first_batch_s": first - opened,
        "peak_gpu_memory_mib": memory.peak_mib,
        "checks": checked,
    }
    contender = make_contender("seginfer", lambda: segmenter(frames.images, out=outs))
    return Subject(segmenter, contender, batch, record)


def _against_network(subject: Subject, run: Run) -> Record:
    run.check_time()
    network = NetworkAlone(subject.segmenter, subject.batch)
    try:
        return {"how": network.how, "pair": time_pair(subject.contender, network.contender(), run.turns)}
    finally:
        network.close()


def _numbers(network: Record, against: dict[str, Record], batch: int) -> Record:
    """Return the times of all pairs. End to end summarizes our calls in all of them."""
    pairs = [record["pair"] for record in (network, *against.values()) if "pair" in record]
    calls = [ms for pair in pairs for ms in pair.ours_ms]
    end_to_end = asdict(summarize(calls)) if calls else None
    ratio = 1 / network["pair"].ratio if "pair" in network else None
    return {
        "end_to_end": end_to_end,
        "frames_per_s": batch * 1e3 / end_to_end["median_ms"] if end_to_end else None,
        "network": _with_numbers(network),
        "end_to_end_over_network": ratio,
        "is_goal_met": None if ratio is None else ratio <= GOAL,
        "against": {name: _with_numbers(record) for name, record in against.items()},
    }


def _with_numbers(record: Record) -> Record:
    """Return a record with its pair replaced by numbers."""
    rest, pair = dict(record), record.get("pair")
    if pair is None:
        return rest
    del rest["pair"]
    return {**rest, **asdict(pair.theirs), "ours": asdict(summarize(pair.ours_ms)), "over_ours": pair.ratio}


class _Peers:
    """Peers of one case.

    Each is opened and checked on first use, and kept while memory allows.
    """

    def __init__(self, case: Case, frames: Frames, run: Run) -> None:
        self._case, self._frames, self._run = case, frames, run
        self._open: dict[str, Peer] = {}
        self.records: dict[str, Record] = {}

    def against(self, name: str, subject: Subject) -> Record:
        """Time a segmenter against a peer."""
        if reason := self._run.missing.get(f"peer {name}"):
            raise BackendUnavailableError(reason)
        self._run.check_time()
        try:
            peer = self._open_peer(name)
            theirs = make_contender(name, lambda: peer(self._frames.images))
            return {"pair": time_pair(subject.contender, theirs, self._run.turns)}
        except Exception:  # its memory must be free for the others
            self._close(name)
            raise
        finally:
            if not self._has_room():
                self.close()

    def _open_peer(self, name: str) -> Peer:
        if name not in self._open:
            start = time.perf_counter()
            with MemoryWatch(self._case.device) as memory:
                peer = self._open[name] = PEERS[name](self._case)
                for _ in range(peer.first_calls):
                    masks = peer(self._frames.images)
            share = check_masks(f"{self._case}: {name}", masks, self._frames, quick=self._run.is_quick)
            self.records[name] = {
                "about": peer.about,
                "open_and_first_calls_s": time.perf_counter() - start,
                "peak_gpu_memory_mib": memory.peak_mib,
                "pixel_agreement": share,
            }
        return self._open[name]

    def _has_room(self) -> bool:
        """Return whether half of the memory is free, for the next backend."""
        if self._case.device == "cpu":
            return True
        free, total = free_and_total_bytes()
        return 2 * free >= total

    def _close(self, name: str) -> None:
        peer = self._open.pop(name, None)
        with suppress(Exception):  # of a failed GPU: earlier results must be written
            if peer is not None:
                peer.close()
                del peer
            release_memory(self._case.device)

    def close(self) -> None:
        """Close all peers."""
        for name in list(self._open):
            self._close(name)


def _describe(result: Record) -> str:
    if "end_to_end" not in result:
        return _reason(result)
    words = ["nothing timed" if result["end_to_end"] is None else f"{result['end_to_end']['median_ms']:.3g} ms"]
    ratio = result["end_to_end_over_network"]
    words.append(f"network {_reason(result['network'])}" if ratio is None else f"{ratio:.3g}x its network")
    for name, one in result["against"].items():
        words.append(f"{name} takes {one['over_ours']:.3g}x" if "over_ours" in one else f"{name} {_reason(one)}")
    return ", ".join(words)


def _reason(record: Record) -> str:
    return next(f"{kind}: {record[kind]}" for kind in ("wrong", "skipped", "failed") if kind in record)
