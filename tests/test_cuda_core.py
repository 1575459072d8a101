"""The fake cuda-core has only what the real one has, and seginfer uses nothing that is not there."""

from __future__ import annotations

import ast
import ctypes
import inspect
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_arrays
import fake_cuda_core
import fake_cuda_driver
import numpy as np
import pytest

core: Any = pytest.importorskip("cuda.core", reason="needs cuda-core: pip install 'seginfer[cuda]'")
driver: Any = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings: pip install 'seginfer[cuda]'")

SOURCES = sorted((Path(fake_cuda_core.__file__).parents[1] / "seginfer" / "_cuda").glob("*.py"))
CLASSES = [name for name, value in vars(fake_cuda_core.CORE).items() if inspect.isclass(value)]
FUNCTIONS = [name for name, value in vars(fake_cuda_driver.DRIVER).items() if inspect.isfunction(value)]
BUILT_OTHERWISE = {"Buffer", "Stream", "Event", "ObjectCode"}
"""Classes whose constructors are not public; others make them."""


def check_parameters(fake: Callable[..., Any], real: Callable[..., Any]) -> None:
    """Hold a fake function to the real one: every call that it takes must be one that the real one takes."""
    there, here = (inspect.signature(function).parameters for function in (real, fake))
    required = {
        name
        for name, p in there.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and name != "cls"
    }
    assert required <= set(here), f"{fake.__qualname__} lacks {required - set(here)}"
    for (name, one), at in zip(here.items(), range(len(here)), strict=True):
        assert name in there, f"{fake.__qualname__} takes {name}"
        if there[name].kind is one.KEYWORD_ONLY:
            assert one.kind is one.KEYWORD_ONLY, f"{name} is for keywords alone"
        if one.kind is one.POSITIONAL_OR_KEYWORD:
            assert list(there)[at] == name, f"{fake.__qualname__} takes {name} elsewhere"


def members(fake: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(fake).items():
        if not name.startswith(("fake_", "__")):
            yield name, value


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_and_method_of_the_fake_is_real(name: str) -> None:
    fake, real = getattr(fake_cuda_core.CORE, name), getattr(core, name)
    public = [(member, value) for member, value in members(fake) if not member.startswith("_")]
    for member, value in public:
        there = inspect.getattr_static(real, member, None)
        assert there is not None, f"{name} has no {member}"
        is_method = inspect.isroutine(getattr(real, member))
        assert is_method == (inspect.isfunction(value) or isinstance(value, staticmethod)), member
        if is_method:
            assert isinstance(value, staticmethod) == isinstance(there, staticmethod) or name == "Buffer"
            check_parameters(getattr(fake, member), getattr(real, member))
    assert public or name in ("LaunchConfig", "EventOptions")


def test_what_the_fake_constructs_can_be_constructed() -> None:
    assert core.LaunchConfig(grid=(3, 2, 1), block=(32, 8, 1)).block == (32, 8, 1)
    assert core.EventOptions(timing_enabled=True).timing_enabled
    core.LegacyPinnedMemoryResource()
    check_parameters(fake_cuda_core.Device.__init__, as_method(core.Device.__new__))
    for name in BUILT_OTHERWISE - {"ObjectCode"}:
        with pytest.raises((RuntimeError, TypeError, NotImplementedError)):
            getattr(core, name)()


def as_method(constructor: Any) -> Callable[..., Any]:
    """Return a function with the signature that a constructor would have as `__init__`."""
    found = inspect.signature(constructor)
    first, *rest = found.parameters.values()

    def method(*_: Any) -> None: ...

    method.__signature__ = found.replace(parameters=[first.replace(name="self"), *rest])  # type: ignore[attr-defined]
    return method


def test_launching_takes_what_the_fake_takes() -> None:
    check_parameters(fake_cuda_core.launch, core.launch)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_driver_take_what_the_fake_takes(name: str) -> None:
    fake, real = getattr(fake_cuda_driver.DRIVER, name), getattr(driver, name)
    assert list(inspect.signature(fake).parameters) == parameters_of(real)


STRUCTS = ["CUDA_KERNEL_NODE_PARAMS", "CUDA_MEMCPY2D", "CUDA_MEMSET_NODE_PARAMS"]


@pytest.mark.parametrize("name", STRUCTS)
def test_structures_of_the_driver_have_the_fields_of_the_fake(name: str) -> None:
    fake = getattr(fake_cuda_driver.DRIVER, name)
    assert set(fake.fields) <= set(dir(getattr(driver, name)))


def test_arguments_of_a_kernel_are_taken_as_the_address_of_their_addresses() -> None:
    params, argument = driver.CUDA_KERNEL_NODE_PARAMS(), ctypes.c_uint64(5)
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
    params.kernelParams, params.kern = ctypes.addressof(pointers), driver.CUkernel(7)
    assert (int(params.kernelParams), int(params.kern)) == (ctypes.addressof(pointers), 7)


def test_a_view_of_a_tensor_says_what_is_read() -> None:
    view_of = pytest.importorskip("cuda.core.utils").StridedMemoryView.from_any_interface
    array = np.zeros((4, 5, 3), np.uint8)[:, 1:]
    view = view_of(array, stream_ptr=-1)
    assert (view.ptr, view.readonly, view.is_device_accessible) == (array.ctypes.data, False, False)
    assert (tuple(view.shape), tuple(view.strides), np.dtype(view.dtype)) == ((4, 4, 3), (15, 3, 1), np.uint8)
    check_parameters(fake_arrays.StridedMemoryView.from_any_interface, view_of)


def parameters_of(real: Any) -> list[str]:
    return [name.strip("_") for name in inspect.signature(real).parameters]


@pytest.mark.parametrize("name", ["CUresult", "CUstreamCaptureMode", "CUmemorytype"])
def test_numbers_of_the_driver_are_those_of_the_fake(name: str) -> None:
    fake: type[IntEnum] = getattr(fake_cuda_driver, name)
    real = getattr(driver, name)
    assert {one.name: int(one) for one in fake} == {one.name: int(getattr(real, one.name)) for one in fake}


def used(owners: set[str]) -> set[str]:
    """Return the attributes that seginfer takes from objects of these names."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and name_of(node.value) in owners:
                found.add(node.attr)
    return found


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(
    ("owners", "module", "fake"),
    [
        ({"_core", "core"}, core, fake_cuda_core.CORE),
        ({"driver", "_driver"}, driver, fake_cuda_driver.DRIVER),
    ],
    ids=["cuda-core", "driver"],
)
def test_everything_that_seginfer_uses_is_there(owners: set[str], module: Any, fake: SimpleNamespace) -> None:
    names = used(owners)
    assert len(names) > 5
    assert all(hasattr(module, name) for name in names)
    assert names <= set(vars(fake)), "the fake is behind"


def test_a_device_has_what_seginfer_asks_of_one() -> None:
    for name in ("arch", "name", "device_id", "memory_resource", "properties"):
        assert hasattr(core.Device, name)
    assert hasattr(core.DeviceMemoryResource, "handle")
