"""Convert frozen dataclasses to plain data and back, with errors that somebody who writes YAML can use."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from singleshot.errors import UserError, did_you_mean, short, shown
from singleshot.ranges import check_ranges
from singleshot.yaml_text import read_yaml

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Turn dataclasses into dicts; other values stay as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return tuple(to_plain(item) for item in value) if isinstance(value, tuple) else _lists(value)


def merge(kind: type, tree: dict[str, Any], key: str, value: Any, *, where: str = "", path: str = "") -> None:
    """Set a dotted key of a plain tree that describes a dataclass `kind`. A mapping is merged key by key.

    `where` (a file) and `path` (the dotted keys above) are for messages.
    """
    first, _, rest = key.partition(".")
    known = _types(kind)
    if first not in known:
        raise UserError(_unknown(f"{path}{key}", first, kind, where))
    place = f"{_place(where)}{path}{key}"
    inner = known[first]
    if dataclasses.is_dataclass(inner):
        if rest:
            merge(inner, tree[first], rest, value, where=where, path=f"{path}{first}.")  # type: ignore[arg-type]
        elif isinstance(value, dict):
            for name, item in value.items():
                merge(inner, tree[first], str(name), item, where=where, path=f"{path}{first}.")  # type: ignore[arg-type]
        else:
            raise UserError(f"{place}: expected a mapping of {', '.join(_types(inner))}, got {short(value)}")
    elif get_origin(inner) is dict:
        value = read_yaml(value, place) if isinstance(value, str) else value
        if rest:
            tree[first] = _put(tree[first], rest.split("."), value, place)
        elif isinstance(value, dict):
            tree[first] = {**tree[first], **value}
        else:
            raise UserError(f"{place}: expected a mapping, got {short(value)}")
    elif rest:
        raise UserError(f"{place}: {first} has no parts; set {first} itself")
    else:
        tree[first] = value


def _put(tree: Any, keys: list[str], value: Any, place: str) -> dict[str, Any]:
    """A mapping with the value set under a path of keys; missing mappings on the way are created."""
    if not isinstance(tree, dict | None):
        raise UserError(f"{place}: the value is {short(tree)}, which has no part {keys[0]!r}; set all of it at once")
    first, *rest = keys
    known = tree or {}
    return {**known, first: _put(known.get(first), rest, value, place) if rest else value}


def from_plain(kind: type[T], tree: dict[str, Any], *, where: str = "", path: str = "") -> T:
    """Build a dataclass from a plain tree, checking every key, type and range."""
    known = _types(kind)
    values = {}
    for name, value in tree.items():
        if name not in known:
            raise UserError(_unknown(f"{path}{name}", name, kind, where))
        values[name] = _convert(known[name], value, f"{path}{name}", where)
    needed = [field for field in dataclasses.fields(kind) if _has_no_default(field) and field.name not in values]  # type: ignore[arg-type]
    if needed:
        came = ", ".join(map(shown, tree)) or "nothing"
        raise UserError(f"{_place(where)}{path}{needed[0].name} is missing; got {came}")
    made = kind(**values)
    check_ranges(made, path=path, where=where)
    return made


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(kind: Any, value: Any, key: str, where: str) -> Any:
    """Convert `value` to `kind`. Text from a command line is read as YAML unless the field is text."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        nothing = ("null", "~") if str in options else ("null", "~", "none")
        if value is None or (isinstance(value, str) and value.lower() in nothing):
            return None
        return _convert(next(option for option in options if option is not type(None)), value, key, where)
    if origin is Literal:
        if value in options:
            return value
        raise UserError(f"{_place(where)}{key}: expected one of {', '.join(map(str, options))}, got {short(value)}")
    if dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return from_plain(kind, value, where=where, path=f"{key}.")  # type: ignore[arg-type]
        raise UserError(f"{_place(where)}{key}: expected a mapping of {', '.join(_types(kind))}, got {short(value)}")
    if kind is str:
        if isinstance(value, (str, Path)):
            return value if isinstance(value, str) else str(value)
        raise UserError(f"{_place(where)}{key}: expected text, got {short(value)}")
    if isinstance(value, str):
        value = read_yaml(value, f"{_place(where)}{key}")
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else value.split(",") if isinstance(value, str) else [value]
        return tuple(_convert(options[0], item, f"{key}[{i}]", where) for i, item in enumerate(items) if item != "")
    if origin is dict and isinstance(value, dict):
        return _lists(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and not isinstance(value, bool) and isinstance(value, (int, float)) and value % 1 == 0:
        return int(value)
    if kind is float and not isinstance(value, bool) and isinstance(value, (int, float)) and abs(value) < 1e300:
        return float(value)
    expected = {bool: "true or false", int: "a whole number", float: "a number", dict: "a mapping"}[origin or kind]
    raise UserError(f"{_place(where)}{key}: expected {expected}, got {short(value)}")


def _types(kind: Any) -> dict[str, Any]:
    return _hints(kind)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _unknown(key: str, name: str, kind: type, where: str) -> str:
    known = list(_types(kind))
    hint = did_you_mean(name, known, otherwise=f"known here: {', '.join(known)}", cutoff=0.5)
    return f"{_place(where)}unknown key {key!r}; {hint}"


def _place(where: str) -> str:
    return f"{where}: " if where else ""


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (tuple, list)) else value
