"""The rows of a predicting layer in our order: those of a box stand together, the background last."""

from __future__ import annotations

from torch import Tensor


def background_last(state: dict[str, Tensor], output: str, numbers: int) -> None:
    """Move the background of the layers that predict `output` (in our names) from the first to the last place.

    `numbers`: how many rows belong to each box, the background's among them.
    """
    for key, value in state.items():
        if f".predict.{output}." in key:
            state[key] = value.reshape(-1, numbers, *value.shape[1:]).roll(-1, 1).flatten(0, 1)
