"""Parts that a builder takes as arguments, as plain data and back."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from singleshot.detectors.iou_head import IoUHead
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.focal import FocalLoss, FocalStarLoss
from singleshot.losses.ohem import OHEMLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy, HingeLoss
from singleshot.preprocess import Pixels

CLASSIFICATION_LOSSES = (FocalLoss, BalancedCrossEntropy, FocalStarLoss, HingeLoss, OHEMLoss, SoftmaxLoss)

PARTS: dict[str, Any] = {part.__name__: part for part in (*CLASSIFICATION_LOSSES, IoUHead, Pixels)}
"""Every part that files, recipes and the command line may name."""


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
    if PARTS.get(type(value).__name__) is type(value):
        fields = {field.name: store_argument(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    raise UserError(
        f"cannot store {value!r} ({type(value).__name__}): arguments must be plain data or parts of this package "
        f"({', '.join(PARTS)})"
    )


def restore_argument(value: Any) -> Any:
    """The inverse of `store_argument`: dicts that name a part become it; names outside of the table are refused."""
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
        return PARTS[name](**{key: _frozen(restore_argument(one)) for key, one in value.items() if key != "type"})
    except TypeError as error:
        raise UserError(f"part {name}: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
