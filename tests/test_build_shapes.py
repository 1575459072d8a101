"""Shapes that engines are built for: those of file, spec and options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nvidia_models
import pytest
from models import SPECS, make_spec, save_model
from refusal import refuses
from rtx import needs_rtx

from seginfer import InputError, ModelFileError
from seginfer._tensorrt import EngineOptions, EngineProfile, EngineTensor, ShapeRange
from seginfer._tensorrt.isolated import build_isolated
from seginfer._tensorrt.shapes import SIDE, resolve_profiles
from seginfer.assets import SOCCER

PITCH = SOCCER / "pitch.onnx"
IMAGE = (3, 192, 320)
ANY_SIZE = make_spec(size=None, multiple_of=48, resize="pad")

pytestmark = needs_rtx


def fixed(*shape: int) -> ShapeRange:
    return ShapeRange(shape, shape, shape)


def profiles(*batches: tuple[int, int, int]) -> EngineOptions:
    return EngineOptions(profiles=tuple(map(EngineProfile, batches)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (profiles((4, 4, 4)), [fixed(4, *IMAGE)]),
        (profiles((1, 8, 8)), [ShapeRange((1, *IMAGE), (8, *IMAGE), (8, *IMAGE))]),
        (profiles((1, 1, 1), (4, 4, 4), (1, 2, 16)), None),
        (replace(profiles((2, 2, 2)), optimization_level=0, max_aux_streams=0, workspace_mb=64), [fixed(2, *IMAGE)]),
    ],
)
def test_batches_are_those_of_the_options(
    options: EngineOptions, expected: list[ShapeRange] | None, tmp_path: Path
) -> None:
    found = build_isolated(PITCH, options, tmp_path / "p.engine").profiles
    if expected is None:
        shapes = [[(n, *IMAGE) for n in profile.batch] for profile in options.profiles]
        expected = [ShapeRange(*three) for three in shapes]
    assert list(found) == expected


def test_sizes_are_those_of_the_options_or_what_the_network_takes(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", ANY_SIZE)
    (found,) = build_isolated(path, EngineOptions(), tmp_path / "m.engine").profiles
    assert found == ShapeRange((1, 3, 96, 96), (1, 3, 528, 528), (1, 3, 1056, 1056))
    options = EngineOptions(profiles=(EngineProfile.fixed(2, (48, 96)), EngineProfile((1, 1, 2), ((48, 48),) * 3)))
    found_two = build_isolated(path, options, tmp_path / "m.engine").profiles
    assert found_two == (fixed(2, 3, 48, 96), ShapeRange((1, 3, 48, 48), (1, 3, 48, 48), (2, 3, 48, 48)))
    path = save_model(tmp_path / "last.onnx", make_spec(size=None, resize="pad", layout="NHWC"))
    (found,) = build_isolated(
        path, EngineOptions(profiles=(EngineProfile.fixed(1, (8, 24)),)), tmp_path / "m.engine"
    ).profiles
    assert found == fixed(1, 8, 24, 3)


def test_a_graph_without_a_spec_is_built(tmp_path: Path) -> None:
    path = nvidia_models.save(nvidia_models.any_size, tmp_path / "m.onnx")
    options = EngineOptions(profiles=(EngineProfile.fixed(1, (32, 48)),))
    assert build_isolated(path, options, tmp_path / "m.engine").profiles == (fixed(1, 3, 32, 48),)


def test_a_graph_of_one_batch_size_takes_no_other(fixed_batch_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.engine"
    for options in (EngineOptions(), profiles((2, 2, 2)), profiles((1, 1, 1), (2, 2, 2))):
        assert build_isolated(fixed_batch_model, options, target).profiles == (fixed(2, 3, 24, 32),)
    for batch in ((1, 1, 2), (4, 4, 4)):
        with refuses(InputError, "batch of a profile must be 2", f"got {batch[0]}", "without a batch size"):
            build_isolated(fixed_batch_model, profiles(batch), target)


@pytest.mark.parametrize(
    ("make", "size", "word"),
    [
        (
            lambda path: save_model(path, SPECS["semantic"]),
            (48, 48),
            "size of a profile must be 24 x 32, the only one that the network takes, got 48 x 48;",
        ),
        (lambda path: nvidia_models.save(nvidia_models.convolution, path), (48, 48), "must be 32 x 32"),
        (lambda path: save_model(path, ANY_SIZE), (64, 96), "multiples of 48 (input.multiple_of), got 64 x 96"),
    ],
)
def test_a_size_that_the_network_does_not_take_is_refused(
    make: Callable[[Path], Path], size: tuple[int, int], word: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "m.onnx")
    with refuses(InputError, "of a profile", word):
        build_isolated(path, EngineOptions(profiles=(EngineProfile.fixed(1, size),)), tmp_path / "m.engine")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("layout", "size", "expected"),
    [
        ("NCHW", (64, 96), fixed(1, 1, 64, 96)),
        ("NHWC", (64, 96), fixed(1, 64, 96, 1)),
        ("NCHW", None, ShapeRange(*((1, 1, side, side) for side in SIDE))),
    ],
)
def test_free_channels_are_those_of_the_spec(layout: Any, size: tuple[int, int] | None, expected: ShapeRange) -> None:
    spec = make_spec(size=size, layout=layout, color="gray", resize="pad")
    tensor = EngineTensor("image", "float32", (-1,) * 4)
    assert resolve_profiles((tensor,), spec, EngineOptions()) == [expected]
    options = EngineOptions(profiles=(EngineProfile.fixed(1, (64, 96)),))
    shape = (64, 96, 1) if layout == "NHWC" else (1, 64, 96)
    assert resolve_profiles((tensor,), spec, options)[0] == fixed(1, *shape)
    assert resolve_profiles((tensor,), None, options) == [fixed(1, 3, 64, 96)]


def test_profiles_that_come_to_the_same_shapes_are_one() -> None:
    tensor = EngineTensor("image", "float32", (-1, *IMAGE))
    options = profiles((1, 1, 1), (2, 2, 2), (1, 1, 1))
    assert resolve_profiles((tensor,), None, options) == [fixed(n, *IMAGE) for n in (1, 2)]


def test_a_graph_of_several_inputs_is_refused(tmp_path: Path) -> None:
    x = nvidia_models.IMAGE
    model = nvidia_models.model([nvidia_models.node("Add", "x z", "y")], inputs=[x, ("z", *x[1:])])
    path = nvidia_models.save(lambda: model, tmp_path / "m.onnx")
    with refuses(ModelFileError, "one input", "['x', 'z']"):
        build_isolated(path, EngineOptions(), tmp_path / "m.engine")
