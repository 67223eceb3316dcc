"""How the loss is spread over easy and hard anchors (focal loss paper, section 5.1 and Figure 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from singleshot.analysis.loss.result import LossDistribution, LossHistogram
from singleshot.analysis.passes import Visit, match, visit_images
from singleshot.data.dataset import Dataset
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError
from singleshot.losses.classification import ClassificationLoss

GAMMAS = (0.0, 0.5, 1.0, 2.0)  # Figure 4

# Bins of equal ratio: losses in one bin differ by 2.3 percent at most. The sum of each bin is kept, so the curves are
# exact at the borders of the bins. Losses below the lowest border (negligible beside any other) are in the first bin.
_LOWEST, _HIGHEST, _PER_DECADE = -30, 4, 100
_BINS = (_HIGHEST - _LOWEST) * _PER_DECADE


def loss_distribution(
    detector: Detector,
    dataset: Dataset,
    *,
    gammas: Sequence[float] = GAMMAS,
    drop_difficult: bool = False,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LossDistribution:
    """The focal loss of each anchor that training counts, for positives and negatives separately.

    The detector may have been trained with any classification loss. Its matcher says which anchors are positive,
    negative or left out.

    - Sigmoid outputs: the loss of an anchor is the sum over the classes of -(1 - p_t)^gamma log p_t (equation 4). Alpha
      is left out, because it cancels when a curve is normalised (except for the other classes of a positive, which
      weigh little).
    - Softmax over the classes and a background: the loss is -(1 - p_t)^gamma log p_t, where p_t is the probability of
      the right one of them.

    The paper draws a sample of anchors; here all are counted, in bins of the loss, so memory does not grow with the
    dataset. Use `drop_difficult` for detectors that were trained without VOC's difficult objects.

    Raises `UserError` for a gamma below 0, for class outputs that are neither sigmoids nor a softmax, for losses that
    are not finite, and in the cases of `visit_images`.
    """
    chosen = tuple(float(gamma) for gamma in gammas)
    if not chosen or not all(0 <= gamma < math.inf for gamma in chosen) or len(set(chosen)) < len(chosen):
        raise UserError(f"gammas: expected different numbers, 0 or more, got {list(gammas)}")
    classification = _classification(detector)
    link = link_of(classification, detector.num_classes)
    counts = np.zeros((2, len(chosen), _BINS), np.int64)
    sums = np.zeros((2, len(chosen), _BINS))

    def visit(seen: Visit) -> None:
        matched = match(detector, seen, drop_difficult=drop_difficult)
        logits = seen.raw.predictions[getattr(classification, "key", "class_logits")]
        for i, record in enumerate(seen.records):  # one image at a time: several tensors of this size are needed
            positive = matched.positive[i]
            losses = anchor_losses(logits[i], matched.labels[i], positive, gammas=chosen, link=link).cpu().numpy()
            if not np.isfinite(losses).all():
                raise UserError(
                    f"{record.path}: the detector's class outputs are not finite, so its weights are broken; "
                    "train it again, or use another file"
                )
            for kind, mask in enumerate((positive, matched.counted[i] & ~positive)):
                for row, values in enumerate(losses[:, mask.cpu().numpy()]):
                    place = _bins(values)
                    counts[kind, row] += np.bincount(place, minlength=_BINS)
                    sums[kind, row] += np.bincount(place, values, _BINS)

    visit_images(detector, dataset, visit, batch_size=batch_size, workers=workers, progress=progress)
    positives, negatives = (LossHistogram(*parts) for parts in zip(counts, sums, strict=True))
    return LossDistribution(chosen, link, len(dataset), positives, negatives)


def anchor_losses(logits: Tensor, labels: Tensor, positive: Tensor, *, gammas: Sequence[float], link: str) -> Tensor:
    """The focal loss of each anchor: logits [A, n], labels [A], positive [A] bool -> [gammas, A].

    `link` is "sigmoid" (n = K) or "softmax" (n = K + 1, the background last).
    """
    if link == "softmax":
        label = torch.where(positive, labels, logits.shape[-1] - 1)
        log_right = logits.log_softmax(-1).gather(-1, label[:, None])[:, 0]
        wrong = -log_right.expm1()
        return torch.stack([-log_right * wrong.pow(gamma) for gamma in gammas])
    rows = torch.arange(len(logits), device=logits.device)
    signed = -logits  # x_t, large where the answer is right: the logit of the anchor's class, minus the others
    signed[rows, labels] = torch.where(positive, logits[rows, labels], signed[rows, labels])
    entropy, wrong = -F.logsigmoid(signed), torch.sigmoid(-signed)
    return torch.stack([(entropy * wrong.pow(gamma)).sum(-1) for gamma in gammas])


def link_of(classification: ClassificationLoss, num_classes: int) -> str:
    """How a classification loss makes probabilities: "sigmoid" or "softmax", found by calling it."""
    count = classification.num_logits(num_classes)
    logits = torch.linspace(-3.0, 2.0, count).reshape(1, 1, -1)
    probabilities = classification.probabilities(logits)
    if count == num_classes and torch.allclose(probabilities, logits.sigmoid()):
        return "sigmoid"
    if count == num_classes + 1 and torch.allclose(probabilities, logits.softmax(-1)[..., :-1]):
        return "softmax"
    raise UserError(
        f"{type(classification).__name__} makes neither sigmoids nor a softmax of the class outputs, but the focal "
        "loss is defined only for these two; analyse a detector that was trained with FocalLoss or SoftmaxLoss, "
        "for example"
    )


def _classification(detector: Detector) -> ClassificationLoss:
    term: Any = detector.criterion.terms.get("classification")
    if not hasattr(term, "num_logits"):
        raise UserError(
            "the detector's criterion has no term 'classification' that gives a probability for each class; "
            "analyse a detector that has one"
        )
    found: ClassificationLoss = term
    return found


def _bins(losses: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each loss."""
    with np.errstate(divide="ignore"):
        place = (np.log10(losses.astype(np.float64)) - _LOWEST) * _PER_DECADE
    return place.clip(0, _BINS - 1).astype(np.int64)
