"""What every extra output offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from singleshot.errors import UserError
from singleshot.losses.criterion import LossTerm


@dataclass(frozen=True)
class Factor:
    """How the sigmoid of an output counts in the score of every class (`ClassScores` has the formula).

    `name`: the name of alpha in `vary` and `--sweep`; it ends in "_alpha". `alpha`: from 1 (the class alone) to 0 (this
    output alone; IoU-aware paper, equation 5); None is the plain product. `title`: what is predicted, for messages; by
    default the name without "_alpha".

    Raises `UserError` for an alpha outside of 0..1.
    """

    name: str
    alpha: float | None = None
    title: str = ""

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name.removesuffix("_alpha"))
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if self.alpha is not None and not (number and 0 <= self.alpha <= 1):
            raise UserError(
                f"{self.name} must be a number from 0 (the predicted {self.title} alone) to 1 (the class alone), or "
                f"None for the plain product of both, got {self.alpha!r}"
            )


@dataclass(frozen=True)
class ExtraOutput:
    """One more prediction of the head for each anchor: how it is trained, and how it counts in the score.

    Head, criterion and scores take a sequence of these values. `key`: its name among the predictions, logits
    [B, A, `channels`]. One channel serves all classes; otherwise there is one channel per class. `name`: the name of
    its loss. `factor`: None if it does not count in the score. `own_tower`: True gives it its own tower, as deep as the
    boxes' tower; otherwise it shares that one.
    """

    key: str
    name: str
    loss: LossTerm
    factor: Factor | None
    channels: int = 1
    own_tower: bool = False


class OutputKind(Protocol):
    """A frozen dataclass that holds the user's choices for one kind of output."""

    def output(self) -> ExtraOutput:
        """The output with these choices."""


@dataclass(frozen=True)
class ScoredOutput(ABC):
    """A kind of output with one choice: how it counts in the score (`alpha` of `Factor`)."""

    alpha: float | None = None

    @abstractmethod
    def output(self) -> ExtraOutput:
        """The output with these choices."""


def loss_terms(outputs: Sequence[ExtraOutput]) -> dict[str, LossTerm]:
    """The losses by name, as `Criterion` takes them."""
    return {output.name: output.loss for output in outputs}
