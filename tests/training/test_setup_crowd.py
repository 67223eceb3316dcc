"""What `data.crowd: ignore` means for the detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from singleshot.data.dataset import Dataset
from singleshot.training.recipe import Recipe, override
from singleshot.training.start import build_detector


@pytest.mark.parametrize(("crowd", "expected"), [("drop", False), ("ignore", True)])
def test_regions_to_ignore_reach_the_matcher(crowd: str, expected: bool) -> None:
    data = Dataset(Path(), "coco", "train", ("a", "b"), (1, 2), ())
    arguments = {"arguments": {"backbone": "resnet18", "image_size": 64}}
    recipe = override(Recipe(), {**arguments, "data.crowd": crowd})
    detector = build_detector(recipe, data).detector
    assert detector.criterion.matcher.ignore_crowd is expected
