"""Parts that a builder takes as arguments: to plain data and back."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from singleshot.errors import UserError
from singleshot.losses import CLASSIFICATION_LOSSES
from singleshot.outputs import OUTPUTS

_OTHERS = {"Pixels": "singleshot.preprocess"}

PARTS: Mapping[str, str] = ChainMap(_OTHERS, OUTPUTS, CLASSIFICATION_LOSSES)
"""Every part that files, recipes and the command line may name, and its module."""


def find_part(name: str) -> Any:
    """The class of a part in `PARTS`."""
    return getattr(importlib.import_module(PARTS[name]), name)


def store_argument(value: Any) -> Any:
    """A builder's argument as JSON-able data; a part becomes {"type": name, field: value, ...}.

    Raises `UserError` naming a value that cannot be stored.
    """
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [store_argument(one) for one in value]
    if isinstance(value, dict):
        return {str(key): store_argument(one) for key, one in value.items()}
    name = type(value).__name__
    if name in PARTS and find_part(name) is type(value):
        fields = {field.name: store_argument(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": name, **fields}
    raise UserError(
        f"cannot store {value!r} ({name}): arguments must be plain data or parts of this package ({', '.join(PARTS)})"
    )


def restore_argument(value: Any) -> Any:
    """The inverse of `store_argument`: dicts with a part's name become that part. Unknown names are refused."""
    if isinstance(value, list):
        return [restore_argument(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "type" not in value:
        return {key: restore_argument(one) for key, one in value.items()}
    name = value["type"]
    if not isinstance(name, str) or name not in PARTS:
        raise UserError(f"unknown part {name!r}: expected one of {', '.join(PARTS)}")
    try:
        return find_part(name)(**{key: _frozen(restore_argument(one)) for key, one in value.items() if key != "type"})
    except TypeError as error:
        raise UserError(f"part {name}: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
