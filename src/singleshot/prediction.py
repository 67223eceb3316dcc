"""The detections of one image, in NumPy arrays, so that drawing and writing them does not need PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from singleshot.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_TENSORS = ("boxes", "scores", "labels")
_SHOWN = 5  # detections that `repr` lists


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Prediction:
    """The detections of one image, best first, in pixels of that image.

    `boxes`, `scores` and `labels` are tensors, made at the first access. `boxes_array`, `scores_array` and
    `labels_array` are the same numbers as NumPy arrays, which do not need PyTorch. Both share their memory: changing
    one changes the other.

    Can be made from tensors, arrays or lists. Raises UserError if their lengths differ.
    """

    boxes: Tensor  # [N, 4] xyxy, float32, on the CPU
    scores: Tensor  # [N] float32
    labels: Tensor  # [N] int64, an index into `class_names` and `category_ids`
    class_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]  # the ids of the classes in the training data
    size: tuple[int, int]  # (height, width) of the image, after EXIF orientation
    path: str | None = None
    boxes_array: NDArray[np.float32] = field(init=False)  # the same numbers
    scores_array: NDArray[np.float32] = field(init=False)
    labels_array: NDArray[np.int64] = field(init=False)

    def __init__(
        self,
        boxes: Tensor | ArrayLike,
        scores: Tensor | ArrayLike,
        labels: Tensor | ArrayLike,
        class_names: tuple[str, ...],
        category_ids: tuple[int | str, ...],
        size: tuple[int, int],
        path: str | None = None,
    ) -> None:
        corners, values, classes = _array(boxes, np.float32), _array(scores, np.float32), _array(labels, np.int64)
        if not corners.size:
            corners = corners.reshape(0, 4)
        if values.ndim != 1 or corners.shape != (len(values), 4) or classes.shape != values.shape:
            raise UserError(
                f"a prediction needs boxes [N, 4], scores [N] and labels [N], got {list(corners.shape)}, "
                f"{list(values.shape)} and {list(classes.shape)}; give one row for each detection"
            )
        self.__dict__.update(  # sets frozen attributes, as dataclasses themselves do
            boxes_array=corners,
            scores_array=values,
            labels_array=classes,
            class_names=tuple(class_names),
            category_ids=tuple(category_ids),
            size=size,
            path=path,
        )

    if not TYPE_CHECKING:  # otherwise a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            """Make a tensor at the first access. Called only if the attribute does not exist yet."""
            if name not in _TENSORS or f"{name}_array" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            import torch

            with torch.inference_mode(False):  # an ordinary tensor, also if the first access is in inference mode
                tensor = torch.from_numpy(self.__dict__[f"{name}_array"])
            return self.__dict__.setdefault(name, tensor)

    def __len__(self) -> int:
        return len(self.scores_array)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels_array.tolist()]

    def __eq__(self, other: object) -> bool:
        """Whether the image, the classes and all numbers are equal."""
        if not isinstance(other, Prediction):
            return NotImplemented
        mine, its = self.__getstate__(), other.__getstate__()
        return all(
            np.array_equal(value, its[name]) if isinstance(value, np.ndarray) else value == its[name]
            for name, value in mine.items()
        )

    def __hash__(self) -> int:
        return hash((self.path, self.size, self.class_names, len(self)))

    def __repr__(self) -> str:
        pairs = zip(self.names[:_SHOWN], self.scores_array[:_SHOWN].tolist(), strict=True)
        told = [f"{name} {score:.2f}" for name, score in pairs]
        if len(self) > _SHOWN:
            told.append(f"{len(self) - _SHOWN} more")
        return f"Prediction(path={self.path!r}, size={self.size}, found: {', '.join(told) or 'nothing'})"

    def __getstate__(self) -> dict[str, Any]:
        """The state for a pickle or a copy: the arrays, without the tensors that share their memory."""
        return {name: value for name, value in self.__dict__.items() if name not in _TENSORS}


def _array(values: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """Numbers of any kind as a writable array. It shares their memory if they already have this type."""
    if hasattr(values, "detach"):  # a tensor; bfloat16, which NumPy does not have, is widened first
        values = values.detach().cpu()
        values = (values.float() if issubclass(dtype, np.floating) else values.long()).numpy()
    array = np.ascontiguousarray(values, dtype)
    return array if array.flags.writeable else array.copy()
