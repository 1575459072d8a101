"""Kernel arguments of the input step.

There is one record per image. No GPU is needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._cuda import kernel_args
from .._cuda.kernel_args import Source
from .._cuda.kernels import input_kernel
from .._cuda.steps import Launch, Records, Upload
from .._errors import InputError
from .._geometry.geometry import Geometry
from .._spec.model_spec import InputSpec
from .formats import YUV_420, PixelFormat, PixelLayout, coefficients_of, parts_of
from .preprocess import affine
from .taps import AxisTaps, input_taps


class ImageAt(NamedTuple):
    """Device addresses and row pitches of an image, in bytes.

    The chroma fields are for nv12, nv21 and i420. By default chroma rows follow the luma rows without a gap. The planes
    of i420 always follow each other.
    """

    address: int
    row_bytes: int
    chroma: int = 0
    chroma_row_bytes: int = 0


_SOURCES = {
    "rgb": Source.PACKED3,
    "bgr": Source.PACKED3,
    "rgba": Source.PACKED4,
    "bgra": Source.PACKED4,
    "gray": Source.GRAY,
}
_VALUES = {4: "float32", 2: "float16", 1: "uint8"}
_CHROMA_STEPS = {"nv12": 2, "nv21": 2, "i420": 1, "yuyv": 4, "uyvy": 4}
"""Bytes from a chroma value to the next of its kind."""


def input_records(geometries: Sequence[Geometry], spec: InputSpec, color: PixelFormat, upload: Upload) -> Records:
    """Return the records of a batch without addresses.

    `set_images` and `set_batch` add them.
    """
    records = np.zeros(len(geometries), kernel_args.PREPROCESS)
    gain, bias, padding = affine(spec)
    layout = parts_of(color)[0]
    for record, geometry in zip(records, geometries, strict=True):
        taps = input_taps(geometry, spec)
        record["filter"], record["source"] = taps.filter, _SOURCES.get(layout, Source.YUV)
        for axis, one in (("row", taps.rows), ("col", taps.cols)):
            _set_taps(record, axis, one, upload)
        record["top"], record["left"], record["content_height"], record["content_width"] = taps.content
        record["height"], record["width"] = geometry.input_hw
        record["channels"], record["value_bytes"] = spec.channels, np.dtype(spec.dtype).itemsize
        record["order"] = _byte_order(layout, spec)
        if layout in _CHROMA_STEPS:
            record["chroma_step"], record["yuv"] = _CHROMA_STEPS[layout], coefficients_of(color)
            record["luma_step"], record["chroma_shift"] = (1, 1) if layout in YUV_420 else (2, 0)
        record["gain"], record["bias"] = (1, 0) if spec.dtype == "uint8" else (gain, bias)
        record["padding"] = padding
    return records


def _set_taps(record: Any, axis: str, taps: AxisTaps, upload: Upload) -> None:
    record[f"{axis}_taps"] = len(taps.indices)
    record[f"{axis}_index"] = upload(taps.indices)
    record[f"{axis}_weight"] = 0 if taps.weights is None else upload(taps.weights)


def _byte_order(layout: PixelLayout, spec: InputSpec) -> list[int]:
    """Return the byte of a pixel for each network channel.

    YUV counts as RGB.
    """
    if spec.color == "gray":
        return [0, 0, 0]
    return [2, 1, 0] if (layout in ("bgr", "bgra")) != (spec.color == "bgr") else [0, 1, 2]


def set_images(records: Records, images: Sequence[ImageAt], geometries: Sequence[Geometry], color: PixelFormat) -> None:
    """Set the image addresses, one image per geometry.

    Raises:
        InputError: if address or pitch of a four-channel image is no multiple of 4 bytes, or a pitch is too long.
    """
    layout = parts_of(color)[0]
    for record, image, geometry in zip(records, images, geometries, strict=True):
        if record["source"] == Source.PACKED4 and (image.address % 4 or image.row_bytes % 4):
            raise InputError(
                f"an rgba or bgra image must have an address and a pitch in multiples of 4 bytes, got {image}; copy it"
            )
        if max(map(abs, image[1::2])) >= 1 << 31:
            raise InputError(f"an image must have a pitch below 2^31 bytes, got {image}; copy it")
        record["row_bytes"], record["pixels"] = image.row_bytes, image.address + (layout == "uyvy")
        if layout in _CHROMA_STEPS:
            record["u"], record["v"], record["chroma_row_bytes"] = _chroma(image, layout, geometry.image_hw[0])


def _chroma(image: ImageAt, layout: PixelLayout, height: int) -> tuple[int, int, int]:
    """Return addresses of U and V, and their pitch."""
    if layout not in YUV_420:
        u = image.address + (layout == "yuyv")
        return u, u + 2, image.row_bytes
    first = image.chroma or image.address + height * image.row_bytes
    if layout == "i420":
        pitch = image.chroma_row_bytes or image.row_bytes // 2
        return first, first + height // 2 * pitch, pitch
    pitch = image.chroma_row_bytes or image.row_bytes
    return (first + 1, first, pitch) if layout == "nv21" else (first, first + 1, pitch)


def set_batch(records: Records, address: int, spec: InputSpec) -> None:
    """Set the address of the batch.

    The batch is contiguous in the spec's layout.

    Raises:
        InputError: if an input has too many values.
    """
    height, width, channels = int(records[0]["height"]), int(records[0]["width"]), spec.channels
    if (count := channels * height * width) >= 1 << 31:
        raise InputError(f"the GPU makes inputs of fewer than 2^31 values, got {count}; use tiles")
    strides = (height * width, width, 1) if spec.layout == "NCHW" else (1, width * channels, channels)
    records["channel_stride"], records["row_stride"], records["column_stride"] = strides
    step = count * np.dtype(spec.dtype).itemsize
    records["out"] = address + step * np.arange(len(records), dtype=np.uint64)


def order_by_kernel(records: Records) -> list[int]:
    """Return the indices of records, those of one kernel after the other."""
    names = _kernels_of(records)
    return sorted(range(len(names)), key=lambda i: names.index(names[i]))


def input_launches(records: Records) -> list[Launch]:
    """Return the launches for the batch, one per kind of image.

    Images that have the size of the input are only copied.
    """
    names = _kernels_of(records)
    launches = []
    for name in dict.fromkeys(names):
        part = records[[one == name for one in names]]
        tile = kernel_args.FILTER_TILE if "filtered" in name else kernel_args.GATHER_TILE
        launches.append(Launch(name, part, kernel_args.grid(tile, part["height"], part["width"])))
    return launches


def _kernels_of(records: Records) -> list[str]:
    return [
        input_kernel(
            record["source"],
            record["filter"],
            _VALUES[int(record["value_bytes"])],
            has_many_taps=(record["row_taps"], record["col_taps"]) != (2, 2),
        )
        for record in records
    ]
