"""One pass over a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import singleshot
from singleshot.analysis.passes import Visit, match, visit_images
from singleshot.errors import UserError


def test_records_go_with_their_images(tiny_model: Path, tiny_voc: Path) -> None:
    detector, data = singleshot.load(tiny_model), singleshot.open_dataset(tiny_voc, split="train")
    seen: list[Visit] = []
    told: list[tuple[int, int]] = []
    visit_images(detector, data, seen.append, batch_size=3, progress=lambda *numbers: told.append(numbers))
    assert [[record.name for record in visit.records] for visit in seen] == [["a", "b", "c"], ["d"]]
    assert told == [(0, 4), (3, 4), (4, 4)]
    for visit in seen:
        for image, record in zip(visit.images, visit.records, strict=True):
            expected = torch.from_numpy(singleshot.read_image(record.path)).permute(2, 0, 1)
            assert torch.equal(image, expected)
        assert not visit.raw.predictions["class_logits"].requires_grad


def test_truth_is_cut_and_boxes_without_area_left_out(tiny_model: Path, tiny_voc: Path) -> None:
    detector, data = singleshot.load(tiny_model), singleshot.open_dataset(tiny_voc, split="val")
    boxes = np.array([[-5.0, 8, 40, 300], [52, 30, 52, 62]])
    record = replace(data.records[0], boxes=boxes)
    seen: list[Visit] = []
    visit_images(detector, replace(data, records=(record,)), seen.append)
    matched = match(detector, seen[0])
    assert matched.positive.any()
    cut = torch.tensor([0, 8, 40, 72]) * torch.tensor([64 / 96, 64 / 72]).repeat(2)
    torch.testing.assert_close(matched.boxes[matched.positive], cut.expand(int(matched.positive.sum()), 4))
    assert (matched.labels[matched.positive] == 0).all()
    difficult = replace(record, difficult=np.array([True, False]))
    assert not match(detector, replace(seen[0], records=(difficult,)), drop_difficult=True).positive.any()


def test_wrong_data(tiny_model: Path, tiny_voc: Path, tmp_path: Path) -> None:
    detector, data = singleshot.load(tiny_model), singleshot.open_dataset(tiny_voc, split="val")
    empty = [replace(record, crowd=np.ones(2, bool)) for record in data.records]
    for wrong, said in (
        (replace(data, class_names=("other", "cell")), "has the classes other, cell, but the detector has cell, other"),
        (replace(data, records=()), "has no object"),
        (replace(data, records=tuple(empty)), "has no object"),
        (replace(data, records=(replace(data.records[0], annotated=False),)), "1 images have no annotation, such as e"),
        (replace(data, records=(replace(data.records[0], path=tmp_path / "x.jpg"),)), "x.jpg"),
    ):
        with pytest.raises(UserError, match=said):
            visit_images(detector, wrong, lambda _: None)
