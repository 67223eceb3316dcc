"""How much each of RefineDet's two modules improves the boxes: their IoU with the objects, before and after.

    python benchmarks/refinement.py MODEL DATA [--split val] [--format voc]

An anchor belongs to the object that it overlaps most after the first module. It counts if that IoU is 0.5 or more (the
second module's positives). It is "near" if its regular anchor already had an IoU of 0.5 or more, and "far" if that was
below 0.3. The numbers are means over all anchors of all images.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from torch import Tensor

import singleshot as ss
from singleshot.data.dataset import ImageRecord
from singleshot.data.images import read_image
from singleshot.ops.boxes import aligned_iou, pairwise_iou


@torch.no_grad()
def overlaps(detector: ss.Detector, record: ImageRecord) -> tuple[Tensor, int, int]:
    """IoU of the regular, the refined and the final boxes with their objects [3, A], and two numbers.

    The numbers count the objects, and the regular anchors that have an IoU of 0.5 or more with any of them.
    """
    picture = torch.from_numpy(read_image(record.path)).permute(2, 0, 1)
    raw = detector.raw([picture])
    truth = torch.as_tensor(record.boxes, dtype=torch.float32) * raw.batch.scales[0].repeat(2)
    truth = truth[(truth[:, 2:] > truth[:, :2]).all(1)]
    refined = raw.anchors.boxes[0]
    final = detector.postprocess.coder.decode(raw.predictions["box_deltas"], raw.anchors.boxes)[0]
    after, owner = pairwise_iou(refined, truth).max(1)
    own = truth[owner]
    regular = int((pairwise_iou(raw.base.boxes, truth).amax(1) >= 0.5).sum())
    return torch.stack([aligned_iou(raw.base.boxes, own), after, aligned_iou(final, own)]), len(truth), regular


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--format", choices=["voc", "coco"])
    options = parser.parse_args()
    detector = ss.load(options.model).eval()
    if detector.refiner is None:
        parser.error(f"{options.model}: this detector has no anchor refinement module")
    dataset = ss.open_dataset(options.data, split=options.split, format=options.format)
    found: dict[str, list[Tensor]] = defaultdict(list)
    objects = regular = 0
    for record in dataset.records:
        if not len(record.boxes):
            continue
        ious, here, near = overlaps(detector, record)
        objects, regular = objects + here, regular + near
        before, positive = ious[0], ious[1] >= 0.5
        groups = {"all": positive, "near": positive & (before >= 0.5), "far": positive & (before < 0.3)}
        for name, kept in groups.items():
            found[name].append(ious[:, kept])
    print(f"{objects} objects; anchors with an IoU of 0.5 or more for each: {regular / objects:.1f} regular", end=", ")
    print(f"{sum(part.shape[1] for part in found['all']) / objects:.1f} refined")
    print("| anchors | for each object | IoU: regular | after the first module | after the second |")
    print("| --- | --- | --- | --- | --- |")
    for name, parts in found.items():
        joined = torch.cat(parts, 1)
        means = " | ".join(f"{value:.3f}" for value in joined.mean(1).tolist())
        print(f"| {name} | {joined.shape[1] / objects:.1f} | {means} |")


if __name__ == "__main__":
    main()
