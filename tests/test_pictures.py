"""Pictures: files that are cut off, damaged, deep or of several pictures, and inputs that are no files at all."""

from __future__ import annotations

import json
import os
import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import models
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, features
from refusal import refuses

from seginfer import InputError
from seginfer._cli import main
from seginfer._media.images import read_image

OPENCV = tuple(map(int, cv2.__version__.split(".")[:2]))
RNG = np.random.default_rng(6)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (120, 160, 3), np.uint8), (5, 5), 0)

ENCODINGS: dict[str, tuple[str, list[int]]] = {
    "jpeg": (".jpg", []),
    "progressive jpeg": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "jpeg with restarts": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "png": (".png", []),
    "lossy webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
    "lossless webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    "tiff": (".tif", [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
    "tiff with lzw": (".tif", [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
    "bmp": (".bmp", []),
    "ppm": (".ppm", []),
    "jpeg 2000": (".jp2", []),
}


def encode(suffix: str, image: NDArray[Any], settings: list[int] | None = None) -> bytes:
    is_ok, encoded = cv2.imencode(suffix, image, settings or [])
    assert is_ok
    return encoded.tobytes()


@pytest.mark.parametrize(("suffix", "settings"), ENCODINGS.values(), ids=ENCODINGS.keys())
def test_a_picture_that_is_cut_off_is_refused(suffix: str, settings: list[int], tmp_path: Path) -> None:
    whole = encode(suffix, PHOTO, settings)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole)
    assert read_image(path).shape == PHOTO.shape
    for share in (0.3, 0.6, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with refuses(InputError, str(path)):
            read_image(path)


@pytest.mark.parametrize("kind", [b"IDAT", b"IEND"])
def test_a_false_length_in_a_png_takes_no_memory(kind: bytes, tmp_path: Path) -> None:
    whole = bytearray(encode(".png", PHOTO))
    at = whole.index(kind) - 4
    whole[at : at + 4] = (3 << 30).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(whole)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refuses(InputError, "breaks off"):
        read_image(tmp_path / "a.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (1 << 20)  # KiB: OpenCV would take 3 << 20


def with_thumbnail(photo: bytes) -> bytes:
    """Put a segment with a whole JPEG into a JPEG, as cameras do."""
    inner = encode(".jpg", PHOTO[:16, :16])
    return photo[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + photo[2:]


def test_the_end_of_a_thumbnail_is_not_the_end_of_a_jpeg(tmp_path: Path) -> None:
    whole = with_thumbnail(encode(".jpg", PHOTO))
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with refuses(InputError, "breaks off"):
        read_image(path)
    path.write_bytes(whole + b"appended by a camera" + encode(".jpg", PHOTO[:32]))
    assert read_image(path).shape == PHOTO.shape


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_few_bits_stored_in_16_are_refused(suffix: str, bits: int, tmp_path: Path) -> None:
    path = tmp_path / f"deep{suffix}"
    deep = RNG.integers(0, 1 << bits, (24, 32), np.uint16)
    for image in (deep, np.dstack([deep] * 3)) if suffix != ".pgm" else (deep,):
        path.write_bytes(encode(suffix, image))
        for gray in (False, True):
            with refuses(InputError, str(path), "16 bits", f"highest value is {deep.max()}", "0..65535"):
                read_image(path, gray=gray)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_all_16_bits_are_divided_by_256(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"deep{suffix}"
    deep = RNG.integers(0, 1 << 16, (24, 32), np.uint16)
    path.write_bytes(encode(suffix, deep))
    assert np.array_equal(read_image(path, gray=True), deep >> 8)
    path.write_bytes(encode(suffix, deep * 0))
    assert not read_image(path).any()


def test_floats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(encode(".tif", PHOTO.astype(np.float32) / 255))
    with refuses(InputError, "float32", "8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", *([".gif"] if OPENCV >= (4, 12) else [])])
def test_several_pictures_in_one_file_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    pictures = [Pillow.fromarray(np.roll(PHOTO, 20 * i, axis=1)) for i in range(3)]
    pictures[0].save(path)
    assert read_image(path).shape == PHOTO.shape
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    with refuses(InputError, str(path), "holds 3 pictures"):
        read_image(path)


def test_deep_flags_change_no_8_bit_picture(tmp_path: Path) -> None:
    """Alpha, palettes, 1 bit and CMYK, against Pillow."""
    photo = Pillow.fromarray(PHOTO)
    alpha = photo.copy()
    alpha.putalpha(128)
    files = {
        "rgba.png": alpha,
        "la.png": photo.convert("LA"),
        "palette.png": photo.convert("P"),
        "one.png": photo.convert("1"),
        "one.tif": photo.convert("1"),
        "cmyk.jpg": photo.convert("CMYK"),
        "gray.jpg": photo.convert("L"),
        "palette.bmp": photo.convert("P"),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
        with Pillow.open(tmp_path / name) as stored:
            expected = np.asarray(stored.convert("RGB"), int)
        assert np.abs(read_image(tmp_path / name) - expected).max() <= 3, name


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", *([".webp"] if OPENCV >= (4, 13) else [])])
def test_pictures_are_turned_as_their_exif_orientation_says(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    for orientation in range(1, 9):
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        Pillow.fromarray(PHOTO).save(path, exif=exif, quality=95)
        with Pillow.open(path) as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"), int)
        assert np.abs(read_image(path) - expected).max() <= 3


@pytest.mark.parametrize("suffix", [".avif", *([] if OPENCV >= (4, 13) else [".webp"])])
def test_orientations_that_opencv_ignores_are_refused(suffix: str, tmp_path: Path) -> None:
    if not features.check(suffix[1:]) or not cv2.haveImageWriter(f"a{suffix}"):
        pytest.skip(f"needs {suffix} in Pillow and in OpenCV")
    path = tmp_path / f"a{suffix}"
    Pillow.fromarray(PHOTO).save(path)
    assert read_image(path).shape == PHOTO.shape
    for orientation in range(2, 9):
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        Pillow.fromarray(PHOTO).save(path, exif=exif)
        with refuses(InputError, str(path), "turned"):
            read_image(path)


def huge_png() -> bytes:
    """Return a PNG of 40000 x 30000 pixels of one bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (40000).to_bytes(4, "big") + (30000).to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(5001 * 1000)) for _ in range(30)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_bad_inputs_are_listed_and_the_others_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    (photos / "folder.jpg").mkdir(parents=True)
    write: Callable[[str, bytes], object] = lambda name, data: (photos / name).write_bytes(data)  # noqa: E731
    good = encode(".png", PHOTO)
    for name in ("a.png", "z.png", "folder.jpg/inside.png", "\udcff.png"):
        write(name, good)
    write("huge.png", huge_png())
    write("empty.mp4", b"")
    write("n" * 246 + ".png", good)
    (photos / "itself.png").symlink_to("itself.png")
    (photos / "dangling.mp4").symlink_to("nowhere.mp4")
    (photos / "device.png").symlink_to("/dev/zero")
    os.mkfifo(photos / "fifo.png")
    os.mkfifo(photos / "fifo.mp4")
    model = models.save_model(tmp_path / "m.onnx", models.SPECS["semantic"])
    assert main(["run", str(model), str(photos), "-o", str(tmp_path / "out"), "--json"]) == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert [Path(entry["input"]).name for entry in result["outputs"]] == ["a.png", "z.png", "\udcff.png", "inside.png"]
    failed = {Path(entry["input"]).name: entry["error"] for entry in result["failed"]}
    words = {
        "huge.png": "OPENCV_IO_MAX_IMAGE_PIXELS",
        "empty.mp4": "not a readable video",
        "n" * 246 + ".png": "File name too long",
        "itself.png": "Too many levels of symbolic links",
        "dangling.mp4": "no video at",
        "device.png": "not a regular file",
        "fifo.png": "not a regular file",
        "fifo.mp4": "not a regular file",
    }
    assert failed.keys() == words.keys()
    assert all(word in failed[name] for name, word in words.items())
    assert not any("\n" in text for text in failed.values())


def test_a_picture_that_does_not_fit_into_memory_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = models.make_spec(size=None, resize="pad", multiple_of=1 << 20)  # 12 TiB for every picture
    model = models.save_model(tmp_path / "m.onnx", spec)
    (tmp_path / "a.png").write_bytes(encode(".png", PHOTO))
    assert main(["run", str(model), str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)["failed"]
    assert "more memory than there is" in entry["error"]


def test_files_of_any_name_are_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from test_videos import write_video

    model = models.save_model(tmp_path / "m.onnx", models.SPECS["semantic"])
    (tmp_path / "picture").write_bytes(encode(".png", PHOTO))
    write_video(tmp_path / "v.mp4", 2).rename(tmp_path / "video.x")
    inputs = [str(tmp_path / name) for name in ("picture", "video.x")]
    assert main(["run", str(model), *inputs, "-o", str(tmp_path / "out"), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["outputs"]
    assert [entry.get("frames") for entry in entries] == [None, 2]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2", ".pbm", ".gif"])
def test_a_folder_holds_pictures_of_every_suffix(suffix: str, tmp_path: Path) -> None:
    from seginfer._cli.inputs import expand

    (tmp_path / f"a{suffix}").write_bytes(b"")
    assert [file.is_video for file in expand([tmp_path])] == [False]
