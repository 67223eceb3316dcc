"""The normalisation of pixels, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from singleshot.errors import UserError, short

_NAMED = {
    # torchvision's ImageNet weights: RGB, 0..1.
    "imagenet_rgb": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb"),
    # The authors' VGG-16: BGR, 0..255, means 104, 117, 123 in that order, no division (reference: section 1.2).
    "caffe_bgr": ((123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255), "bgr"),
}

_ORDERS = ("rgb", "bgr")
_LARGEST = 1e9


@dataclass(frozen=True)
class Pixels:
    """The normalisation: (value - mean) / std on RGB in 0..1, then the channel order that the weights expect."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    order: str = "rgb"  # order in which the network takes the channels; mean and std are always given as RGB

    def __post_init__(self) -> None:
        numbers = [value for part in (self.mean, self.std) if isinstance(part, tuple) for value in part]
        # Above the smallest ordinary float32, and far from the largest: both engines divide by it.
        sound = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < _LARGEST for n in numbers)
        if (
            not sound
            or len(numbers) != 6
            or len(self.mean) != 3
            or min(self.std) < 1 / _LARGEST
            or self.order not in _ORDERS
        ):
            came = short((self.mean, self.std, self.order))
            raise UserError(f"pixels must be three means, three positive stds and 'rgb' or 'bgr', got {came}")

    @classmethod
    def named(cls, choice: str | Sequence[object] | Pixels) -> Pixels:
        """`imagenet_rgb`, `caffe_bgr`, or (mean, std, order) with three numbers each, RGB, on values in 0..1."""
        if isinstance(choice, Pixels):
            return choice
        if isinstance(choice, str):
            if choice not in _NAMED:
                raise UserError(f"pixels must be one of {', '.join(_NAMED)} or (mean, std, order), got {choice!r}")
            return cls(*_NAMED[choice])
        try:
            mean, std, order = choice
            mean, std = (tuple(float(number) for number in numbers) for numbers in (mean, std))  # type: ignore[attr-defined]
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"pixels must be a name or (mean, std, order), got {short(choice)}") from None
        return cls(mean, std, order)  # type: ignore[arg-type]

    def choice(self) -> str | list[object]:
        """The inverse of `named`: a name if it has one, else [mean, std, order]."""
        numbers = (self.mean, self.std, self.order)
        name = next((name for name, known in _NAMED.items() if known == numbers), None)
        return name if name is not None else [list(self.mean), list(self.std), self.order]


IMAGENET = Pixels()
"""What torchvision's ImageNet weights expect."""
