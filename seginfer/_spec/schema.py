"""Strict conversion between frozen dataclasses and JSON values."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import types
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .._errors import SpecError

T = TypeVar("T")

_type_hints: Any = functools.cache(get_type_hints)  # a certificate has dozens of records

OLD_NAME = "old name"
"""Key of `dataclasses.field(metadata=...)`: the JSON key of the field in files of earlier versions."""


def parse_json(text: str, where: str) -> Any:
    """Parse JSON text strictly.

    Raises:
        SpecError: if it is no JSON, or holds NaN, an infinite number, or a key twice.
    """
    # A reader that takes the first of two equal keys would see another spec than one that takes the last.
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where} is not valid JSON: {error}") from error


def structure(cls: type[T], value: object, where: str) -> T:
    """Build the dataclass `cls` from a JSON object.

    Args:
        cls: a dataclass whose fields are scalars, tuples, Literals, mappings or dataclasses.
        value: a mapping, as `json.loads` returns it.
        where: name of the value in error messages, such as "input".

    Raises:
        SpecError: if a key is unknown or missing, or a value has the wrong type. The message names the key.
    """
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} must be a JSON object, got {type(value).__name__}: {value!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass by contract
    renamed = {f.metadata[OLD_NAME]: name for name, f in fields.items() if OLD_NAME in f.metadata and name not in value}
    items: dict[Any, Any] = {renamed.get(key, key): item for key, item in value.items()}
    for key in items:
        if key not in fields:
            raise SpecError(_unknown_key(where, str(key), list(fields)))
    for name, field in fields.items():
        if name not in items and _is_required(field):
            raise SpecError(f"{where}.{name} is missing; add it, it has no default")
    hints = _type_hints(cls)
    return cls(**{key: coerce(item, hints[key], f"{where}.{key}") for key, item in items.items()})


def unstructure(value: Any) -> Any:
    """Convert dataclasses and tuples into values for `json.dumps`."""
    if dataclasses.is_dataclass(value):
        return {f.name: unstructure(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [unstructure(item) for item in value]
    if isinstance(value, Mapping):
        return {key: unstructure(item) for key, item in value.items()}
    return value


def coerce_fields(instance: object, where: str) -> None:
    """Validate and normalise the fields of a frozen dataclass.

    It is called in `__post_init__`. Lists become tuples.

    Raises:
        SpecError: if a value has the wrong type. The message names the field.
    """
    for name, hint in _type_hints(type(instance)).items():
        object.__setattr__(instance, name, coerce(getattr(instance, name), hint, f"{where}.{name}"))


def coerce(value: Any, hint: Any, where: str) -> Any:
    """Convert a value to the type of a field.

    Raises:
        SpecError: if it has another type. The message names `where`.
    """
    origin = get_origin(hint)
    if origin is Literal:
        return _choice(value, get_args(hint), where)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return coerce(value, next(arg for arg in get_args(hint) if arg is not type(None)), where)
    if origin is tuple:
        return _tuple(value, get_args(hint), where)
    if origin is not None:  # Mapping[str, str]
        return _mapping(value, get_args(hint), where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else structure(hint, value, where)
    return _scalar(value, hint, where)


def check_range(where: str, least: float, most: float, **values: float | None) -> None:
    """Raise a SpecError if a value lies outside of a range. None is always inside."""
    for name, value in values.items():
        if value is not None and not least <= value <= most:
            bounds = f"at least {least:g}" if most == math.inf else f"in {least:g}..{most:g}"
            raise SpecError(f"{where}.{name} must be {bounds}, got {value:g}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double[:80]!r} occurs twice; keep one of them")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number; every value must be finite")


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _unknown_key(where: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
    return f"{where} has an unknown key {key!r}; {hint}"


def _choice(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value not in options:
        raise SpecError(f"{where} must be one of {', '.join(map(str, options))}, got {value!r}")
    return value


def _tuple(value: Any, item_hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SpecError(f"{where} must be a list, got {type(value).__name__}: {value!r}")
    if item_hints[-1] is Ellipsis:
        return tuple(coerce(item, item_hints[0], f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(item_hints):
        raise SpecError(f"{where} must hold {len(item_hints)} values, got {len(value)}: {value!r}")
    return tuple(coerce(item, item_hints[i], f"{where}[{i}]") for i, item in enumerate(value))


def _mapping(value: Any, hints: tuple[Any, ...], where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} must be a JSON object, got {type(value).__name__}: {value!r}")
    return {coerce(k, hints[0], where): coerce(v, hints[1], f"{where}.{k}") for k, v in value.items()}


def _scalar(value: Any, hint: type, where: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):  # JSON integers have no limit
            if not math.isfinite(float(value)):  # 1e999 in JSON
                raise SpecError(f"{where} must be finite, got {value}")
            return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    raise SpecError(f"{where} must be {hint.__name__}, got {type(value).__name__}: {value!r}")
