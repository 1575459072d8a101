"""Benchmark errors. Needs nothing but Python, because `run.py` imports it before it binds the process to cores."""

from __future__ import annotations


class CheckError(Exception):
    """A result is wrong, so that its time is meaningless."""


class PeerUnavailableError(Exception):
    """A peer cannot be measured here. The message is the reason and goes into the results."""


def check(holds: bool, message: str) -> None:
    """Raise CheckError unless a result is right."""
    if not holds:
        raise CheckError(message)
