"""Recognition of files that are taken for a model or for weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

_HEAD = 1024  # bytes

# Sources: the signatures in the specifications of the formats. The third entry is the remedy.
_SIGNATURES = [
    (0, b"version https://git-lfs", "a git-lfs pointer and not the file itself; run `git lfs pull`"),
    (0, b"\xff\xd8\xff", "a JPEG image; check the path"),
    (0, b"\x89PNG", "a PNG image; check the path"),
    (0, b"\x89HDF", "an HDF5 file, as of Keras; convert it to ONNX with tf2onnx"),
    (0, b"GIF8", "a GIF image; check the path"),
    (0, b"%PDF", "a PDF document; check the path"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it to ONNX with tf2onnx"),
    (4, b"ORTM", "a model in the ORT format; use the .onnx file that it was made from"),
    (4, b"ftyp", "a video; check the path"),
]
_CHECKPOINT = "a PyTorch checkpoint; build its module and give it as --weights of `seginfer export`"


def recognise(path: str | Path) -> str | None:
    """Name the format of a foreign file and the remedy, by its first bytes.

    Returns:
        Both in one line. None if the format is unknown or the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    for offset, signature, text in _SIGNATURES:
        if head[offset:].startswith(signature):
            return text
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page and not the file itself; download the file behind it"
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file; give it as --weights of `seginfer export`"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return _CHECKPOINT
    return None


def _recognise_zip(path: str | Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return None  # cut or damaged
    if "archive_format" in members:
        return "an exported program of PyTorch; export it with `seginfer export`, under a name that ends in .pt2"
    if "constants.pkl" in members:
        return "a TorchScript archive; export the nn.Module that it was made from"
    return _CHECKPOINT if "data.pkl" in members else "a zip archive; unpack it"
