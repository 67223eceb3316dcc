"""Scores as a trained detector gives them: a stated share of them passes the threshold, never none and never all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from singleshot.detectors.detector import Detector

SHARE = 0.05
"""Of all boxes that a network predicts: how many scores pass, if nothing else is known.

Measured on real images of their own: `zoo/chess` 0.01, `zoo/bccd` (crowded) 0.38.
"""
_SPREAD = 2.0  # the standard deviation of made logits: some scores are high, most are far below the threshold
_STEPS = 40  # of the search: halvings of 60


@dataclass(frozen=True)
class Load:
    """What post-processing gets to do."""

    made: bool  # whether the weights were changed for it
    share: float  # scores above the threshold, for each box that the network predicts

    def line(self) -> str:
        """For people."""
        what = "made: the last layers were changed so that" if self.made else "of the weights as they are:"
        return f"scores {what} {100 * self.share:.1f} pass the threshold for each 100 boxes of the network"


def measured_share(detector: Detector, images: Sequence[Tensor]) -> float:
    """How many scores pass the threshold on these images, for each box that the network predicts."""
    import torch

    passed = boxes = 0
    with torch.inference_mode():
        for image in images:
            raw = detector.raw([image])
            scores = detector.postprocess.scores(raw.predictions)
            passed += int((scores > _threshold(detector)).sum())
            boxes += scores.shape[0] * scores.shape[1]
    return passed / max(1, boxes)


def made(detector: Detector, images: Sequence[Tensor], share: float = SHARE) -> Load:
    """Change the layers that predict classes so that `share` scores for each box pass the threshold on these images.

    The logits are spread as those of a trained network, and moved: a softmax's background up, sigmoids down.
    """
    import torch

    with torch.inference_mode():
        found = [detector.raw([image]).predictions for image in images]
        key = "class_logits"
        logits = torch.cat([one[key].flatten(0, 1) for one in found])
        spread = float(logits.std(0).mean())
        factor = _SPREAD / spread if spread > 0 else 1.0
        centre = logits.mean(0)
        background = logits.shape[-1] > detector.num_classes

        def passing(shift: float) -> float:
            passed = boxes = 0
            for one in found:
                moved = _moved((one[key] - centre) * factor, shift, background=background)
                scores = detector.postprocess.scores({**one, key: moved})
                passed += int((scores > _threshold(detector)).sum())
                boxes += scores.shape[0] * scores.shape[1]
            return passed / boxes

        low, high = -30.0, 30.0  # a higher shift lets fewer pass
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if passing(middle) > share else (low, middle)
        _write(detector, key, factor, centre, _moved(torch.zeros_like(centre), high, background=background))
    return Load(True, measured_share(detector, images))


def _moved(logits: Tensor, shift: float, *, background: bool) -> Tensor:
    moved = logits.clone()
    if background:
        moved[..., -1] += shift
    else:
        moved -= shift
    return moved


def _threshold(detector: Detector) -> float:
    return float(getattr(detector.postprocess, "threshold", 0.05))


def _write(detector: Detector, key: str, factor: float, centre: Tensor, shift: Tensor) -> None:
    """New weights of the predicting convolutions: new logits = (old - centre) * factor + shift."""
    for part in detector.head.modules():
        predict: Any = getattr(part, "predict", None)
        if predict is None or key not in predict:
            continue
        conv = predict[key]
        times = conv.bias.numel() // centre.numel()
        conv.weight.data.mul_(factor)
        conv.bias.data.sub_(centre.repeat(times)).mul_(factor).add_(shift.repeat(times))
