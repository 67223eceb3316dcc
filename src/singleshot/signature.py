"""Check a builder's arguments against its signature: one clear message before anything is built."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from singleshot.errors import UserError, did_you_mean

_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


def bound(build: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments by name, including those that `**arguments` takes.

    Raises:
        UserError: the builder does not have an argument (the message gives the nearest name), or one is missing.
    """
    signature = inspect.signature(build)
    try:
        given = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        known = list(signature.parameters)
        unknown = next((name for name in kwargs if name not in known), None)
        if unknown is None:
            raise UserError(f"{build.__name__}: {error}") from None
        hint = did_you_mean(unknown, known, otherwise=f"it takes {', '.join(known)}", cutoff=0.7)
        raise UserError(f"{build.__name__} has no argument {unknown!r}; {hint}") from None
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def check_types(build: Callable[..., Any], given: Mapping[str, Any], *, name: str | None = None) -> None:
    """Check the arguments against the types that the builder declares.

    Plain types, `Literal`, `Sequence`, `Mapping`, classes and unions of them are checked; anything else is left to the
    builder. A whole number counts as a number; true and false do not. `name` replaces the builder's own name in
    messages.

    Raises:
        UserError: a wrong type. The message names the builder and the argument, what was expected and what came.
    """
    kinds = _hints(build)
    for key, value in given.items():
        if key in kinds and not _fits(kinds[key], value):
            raise UserError(f"{name or build.__name__}: {key} must be {_expected(kinds[key])}, got {value!r}")


@functools.cache
def _hints(build: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(build)
    except NameError:  # the user's own builder uses names that only a type checker imports
        return {}


def _fits(kind: Any, value: Any) -> bool:
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(option, value) for option in options)
    if origin is Literal:
        return value in options
    if origin is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(options[0], v) for v in value)
    if isinstance(origin, type):
        return isinstance(value, origin)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind is Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    return isinstance(value, kind)


def _expected(kind: Any) -> str:
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(option) for option in options)
    if origin is Literal:
        return f"one of {', '.join(map(str, options))}"
    if origin is Sequence:
        item = _WORDS.get(options[0], "")
        return f"a list of {item[2:]}s" if item.startswith("a ") else "a list"
    if origin is not None:
        return "a mapping" if origin is Mapping else origin.__name__
    return _WORDS.get(kind, kind.__name__)
