"""Your own training loop: the detector is a module with torchvision's detection interface.

    python examples/plain_training_loop.py

It makes ten steps on generated pictures. The differences from torchvision: labels run from 0 to K - 1, and num_classes
does not count the background. For an existing loop, `ss.torchvision_labels(detector)` uses 1 to K.
"""

from __future__ import annotations

import numpy as np
import torch

import singleshot as ss
from singleshot.data.shapes import CLASS_NAMES, draw_shapes


def batch(step: int, count: int = 4) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Images [3, H, W] of any sizes, float in [0, 1] or uint8, and their boxes in pixels."""
    drawn = [draw_shapes(np.random.default_rng([step, i])) for i in range(count)]
    images = [torch.from_numpy(one.image.transpose(2, 0, 1).copy()) for one in drawn]
    targets = [{"boxes": torch.from_numpy(one.boxes).float(), "labels": torch.from_numpy(one.labels)} for one in drawn]
    return images, targets


def main(steps: int = 10) -> float:
    """Train a little and detect once. Returns the last loss."""
    torch.manual_seed(0)
    detector = ss.ssd(num_classes=5, class_names=CLASS_NAMES, backbone="mobilenetv2", image_size=128)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)

    detector.train()
    total = torch.zeros(())
    for step in range(steps):
        losses = detector(*batch(step))  # {"classification": ..., "box": ...}
        total = sum(losses.values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        print(f"step {step}: " + ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))

    detector.eval()
    with torch.no_grad():
        results = detector(batch(steps)[0])  # [{"boxes", "scores", "labels"}, ...], best first, in pixels of each image
    print(
        "best score in each image:",
        [round(float(one["scores"].max()), 3) if len(one["scores"]) else None for one in results],
    )
    return float(total.detach())


if __name__ == "__main__":
    main()
