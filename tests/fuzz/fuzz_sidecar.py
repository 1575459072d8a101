"""Fuzzes the reader of engines: only a SegInferError comes of a bad sidecar, and a sealed one says what it holds."""

from __future__ import annotations

import json
from hashlib import sha256

from driver import check_refusal, folder, instrument, run

from seginfer._spec import schema
from seginfer._tensorrt import engine_file, key, report
from seginfer._tensorrt.engine_file import hash_content, read_engine, sidecar_path

PATH = folder() / "model.engine"
ENGINE = b"engine"
PATH.write_bytes(ENGINE)


def sealed(data: bytes) -> bytes:
    """Return a sidecar whose hash is that of its content, so that what it holds is read too."""
    try:
        document = json.loads(data)
        document["content_sha256"] = hash_content(document["content"])
    except (ValueError, RecursionError, TypeError, KeyError):
        return data
    return json.dumps(document).encode()


def read() -> None:
    engine = read_engine(PATH)
    assert (engine.engine_bytes, engine.engine_sha256) == (len(ENGINE), sha256(ENGINE).hexdigest())


def target(data: bytes) -> None:
    for text in (data, sealed(data)):
        sidecar_path(PATH).write_bytes(text)
        check_refusal(read)


if __name__ == "__main__":
    instrument(engine_file, key, report, schema)
    run(target, most_bytes=6000)
