"""Videos: orientation, colours, times, and files that are cut off, damaged or oddly named."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from refusal import refuses

from seginfer import InputError
from seginfer._cli.inputs import sample
from seginfer._media.video import VideoReader, video_writer

Image = NDArray[np.uint8]

SIZE = (96, 160)
# Display matrix (a, b, c, d) of ISO/IEC 14496-12, which moves (x, y) to (ax + cy, bx + dy), and the same with NumPy.
TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[Image], Image]]] = {
    "90": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "270": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transposed twice": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


def write_video(path: Path, frames: int = 12, codec: str = "mpeg4", **settings: Any) -> Path:
    """Write a video whose four corners differ in colour, and whose brightness grows."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for i in range(frames):
            image = np.full((*SIZE, 3), 4 * i, np.uint8)
            image[:48, :80, 0] = image[48:, :80, 1] = image[:48, 80:, 2] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Put a display matrix into the header of an MP4 track."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def opencv_frames(path: Path) -> Iterator[Image]:
    capture = cv2.VideoCapture(str(path))
    while (found := capture.read())[0]:
        yield np.asarray(found[1], np.uint8)


@pytest.mark.parametrize(("matrix", "expected"), TURNS.values(), ids=TURNS.keys())
def test_frames_are_turned_as_the_display_matrix_says(
    matrix: tuple[int, int, int, int], expected: Callable[[Image], Image], tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4")
    plain = list(VideoReader(path))
    turn(path, matrix)
    turned = list(VideoReader(path))
    assert len(turned) == len(plain) == 12
    for a, b in zip(plain, turned, strict=True):
        assert b.flags.c_contiguous
        assert np.array_equal(expected(a), b)
    grays = list(VideoReader(path, gray=True))
    assert grays[0].shape == turned[0].shape[:2]
    images = sample([path], 3, gray=False).values()
    assert all(np.array_equal(image, turned[i]) for image, i in zip(images, (0, 6, 11), strict=True))


@pytest.mark.skipif(cv2.__version__ < "4.12", reason="OpenCV 4.11 does not turn videos")
@pytest.mark.parametrize("name", ["90", "180", "270"])
def test_turned_frames_equal_those_of_opencv(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    turn(path, TURNS[name][0])
    theirs = list(opencv_frames(path))
    ours = list(VideoReader(path))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a.astype(int) - b[..., ::-1]).mean() < 2  # another conversion from YUV


def test_a_video_turned_by_another_angle_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    data = path.read_bytes()
    at = data.index(b"tkhd") + 44
    slanted = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + slanted + data[at + 36 :])
    with refuses(InputError, "a.mp4", "quarter turns"):
        list(VideoReader(path))


@pytest.mark.skipif(int(av.__version__.partition(".")[0]) < 18, reason="an older FFmpeg does not read it")
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_motion_jpeg_is_turned_as_its_exif_orientation_says(orientation: int, turns: int, tmp_path: Path) -> None:
    exif, picture = Pillow.Exif(), np.zeros((*SIZE, 3), np.uint8)
    exif[0x0112] = orientation
    picture[:48, :80] = 200
    encoded = io.BytesIO()
    Pillow.fromarray(picture).save(encoded, "JPEG", exif=exif)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p"
        packet = av.Packet(encoded.getvalue())
        packet.pts, packet.dts, packet.time_base, packet.stream = 0, 0, Fraction(1, 25), stream
        container.mux(packet)
    (frame,) = VideoReader(tmp_path / "a.mkv")
    assert np.abs(frame.astype(int) - np.rot90(picture, turns)).max() <= 30  # around the edge


MATRICES = {"601": (5, 0.299, 0.114), "709": (1, 0.2126, 0.0722), "2020": (9, 0.2627, 0.0593)}  # ITU-R BT.*: kr, kb


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
def test_colours_are_those_of_the_matrix_and_range_of_the_file(matrix: str, is_full: bool, tmp_path: Path) -> None:
    code, red, blue = MATRICES[matrix]
    for rgb in [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]:
        r, g, b = (value / 255 for value in rgb)
        luma = red * r + (1 - red - blue) * g + blue * b
        chroma = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
        span, black, chroma_span = (255, 0, 255) if is_full else (219, 16, 224)
        u, v = (round(chroma_span * value + 128) for value in chroma)
        path = tmp_path / "colour.mp4"
        write_yuv(path, (round(span * luma + black), u, v), code, is_full)
        (frame,) = VideoReader(path)
        assert np.abs(frame.astype(int) - rgb).max() <= 3


def write_yuv(path: Path, yuv: tuple[int, int, int], matrix: int, is_full: bool) -> None:
    """Write one frame of one colour, without loss."""
    planes = [np.full((96, 160), yuv[0]), np.full((24, 160), yuv[1]), np.full((24, 160), yuv[2])]
    frame = av.VideoFrame.from_ndarray(np.concatenate(planes).astype(np.uint8), format="yuv420p")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if is_full else 1
        frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_colour_tags_that_conversions_refuse_do_not_matter(tmp_path: Path) -> None:
    """PyAV 17 raises for transfer characteristics that swscale lacks, such as this logarithmic one."""
    plain = list(VideoReader(write_video(tmp_path / "plain.mp4", codec="libx264")))
    tagged = write_video(tmp_path / "tagged.mp4", codec="libx264", color_trc=9, color_primaries=8)
    assert np.array_equal(list(VideoReader(tagged)), plain)


def test_times_of_a_variable_frame_rate_are_kept(tmp_path: Path) -> None:
    times = [Fraction(i, 25) for i in range(5)] + [4 + Fraction(i, 25) for i in range(5)]
    with video_writer(tmp_path / "vfr.webm", SIZE, Fraction(25)) as sink:
        for time in times:
            sink.write(np.zeros((*SIZE, 3), np.uint8), time)
    assert [time for time, _ in VideoReader(tmp_path / "vfr.webm").timed()] == times
    with video_writer(tmp_path / "cfr.webm", SIZE, Fraction(30)) as sink:
        for _ in range(31):
            sink.write(np.zeros((*SIZE, 3), np.uint8))
    times = [time for time, _ in VideoReader(tmp_path / "cfr.webm").timed()]
    assert [round(time * 30) for time in times] == list(range(31))
    assert times[30] == 1, "rounding does not add up"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".mpg"])
def test_a_whole_video_is_taken_for_whole_and_a_cut_one_is_not(suffix: str, tmp_path: Path) -> None:
    codec = {".webm": "libvpx-vp9", ".flv": "flv1", ".mpg": "mpeg2video"}.get(suffix, "mpeg4")
    options = {"options": {"movflags": "faststart"}} if suffix in (".mp4", ".mov") else {}
    whole = write_video(tmp_path / f"whole{suffix}", 48, codec)
    if options:
        remux(whole, tmp_path / f"front{suffix}")
        whole = tmp_path / f"front{suffix}"
    assert len(list(VideoReader(whole))) == 48
    data = whole.read_bytes()
    for share in (0.6, 0.9, 0.95, 0.97, 0.99):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(data[: int(len(data) * share)])
        frames: list[Image] = []
        problem = ""
        try:
            frames += VideoReader(cut)
        except InputError as error:
            problem = str(error)
        is_whole = share > 0.9 and len(frames) == 48  # the index after the frames is cut
        assert is_whole or str(cut) in problem


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".flv", ".ts", ".webm"])
def test_a_whole_video_of_any_timing_is_taken_for_whole(suffix: str, tmp_path: Path) -> None:
    """Frames out of order, pauses, a late start, and a longer soundtrack."""
    codecs = {".webm": ("libvpx-vp9", "libopus"), ".avi": ("mpeg4", "aac")}
    codec, sound = codecs.get(suffix, ("libx264", "aac"))
    for times in (range(0, 1200, 40), range(300, 1500, 40), [*range(0, 600, 40), *range(4000, 4600, 40)]):
        path = tmp_path / f"a{suffix}"
        with av.open(str(path), "w") as container:
            stream, audio = container.add_stream(codec, rate=25), container.add_stream(sound, rate=48000)
            stream.height, stream.width = SIZE
            stream.codec_context.time_base = Fraction(1, 1000)
            for time in times:
                frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), time % 251, np.uint8), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            for i in range(300):
                silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
                silence.sample_rate, silence.pts = 48000, 1024 * i
                container.mux(audio.encode(silence))
            container.mux(stream.encode())
            container.mux(audio.encode())
        assert len(list(VideoReader(path))) == 30


def remux(source: Path, target: Path) -> None:
    """Copy a video with its index in front, as files for streaming have it."""
    with av.open(str(source)) as a, av.open(str(target), "w", options={"movflags": "faststart"}) as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(a.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                b.mux(packet)


def test_a_video_damaged_midway_yields_the_frames_before_and_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 48)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    frames: list[Image] = []
    with refuses(InputError, "a.mp4", "damaged"):
        frames += VideoReader(path)


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30:05.mp4", "pipe:0.mp4", "100%03d [1]? 'é'.mp4", "\udcff.mp4"):
        write_video(tmp_path / "plain.mp4").rename(name)
        assert len(list(VideoReader(name))) == 12


def test_a_still_picture_beside_the_video_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as container:
        cover, stream = container.add_stream("mjpeg", rate=1), container.add_stream("mpeg4", rate=25)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        stream.height, stream.width = SIZE
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        for one in (cover, stream):
            container.mux(one.encode())
    assert [frame.shape for frame in VideoReader(path)] == [(*SIZE, 3)] * 10


def test_a_playlist_cannot_reach_the_network(tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with refuses(InputError, "list.m3u8"):
        list(VideoReader(tmp_path / "list.m3u8"))


def test_tags_in_latin_1_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "cafe cafe"
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"cafe cafe", "café café".encode("latin-1")))
    assert len(list(VideoReader(path))) == 1


def test_a_frame_in_hours_has_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(1, 5000))
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(3):
            image = np.zeros((32, 48, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    reader = VideoReader(path)
    assert float(reader.frame_rate) == pytest.approx(1 / 5000, rel=0.01)
    assert [round(time) for time, _ in reader.timed()] == [0, 5000, 10000]
