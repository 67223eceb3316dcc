"""An adapter for training loops and scripts that were written for torchvision's detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from singleshot.detectors.detector import Detector
from singleshot.detectors.targets import check_target
from singleshot.errors import UserError


class TorchvisionLabels(nn.Module):
    """A detector that takes and returns torchvision's labels: 1..K, with 0 as background."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """As `Detector.forward`, with labels 1..K in the targets and in the results."""
        if targets is not None:
            targets = [self._shifted(i, target) for i, target in enumerate(targets)]
        results = self.detector(images, targets)
        if isinstance(results, dict):
            return results
        return [{**result, "labels": result["labels"] + 1} for result in results]

    def _shifted(self, index: int, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        check_target(index, target)
        labels = target["labels"]
        if bool(((labels < 1) | (labels > self.detector.num_classes)).any()):
            raise UserError(
                f"target {index}: labels must be 1..{self.detector.num_classes} (0 is background), "
                f"got {labels.tolist()}"
            )
        return {**target, "labels": labels - 1}


def torchvision_labels(detector: Detector) -> TorchvisionLabels:
    """Wrap a detector so that it takes and returns labels 1..K, as torchvision's detectors do."""
    return TorchvisionLabels(detector)
