"""The papers' rates on real images, from the first step on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import singleshot as ss
from singleshot import recipes
from singleshot.training.recipe import override

RATES = {"retinanet_r50_800_coco": 0.01, "iou_retinanet_r50_coco": 0.01, "refinedet320_coco": 0.001}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RATES])
@pytest.mark.parametrize("weights", [True, False])
def test_no_nan_in_200_steps_at_the_published_rate_with_batch_2(
    shared: Path, tmp_path: Path, name: str, weights: bool
) -> None:
    """The whole rate for two images, on crowded photographs: a loss that is not finite would stop the run."""
    recipe = recipes.get(name)
    changes = {
        "batch_size": 2,
        "optimizer.base_batch_size": 0,  # the rate as it stands
        "schedule.steps": 200,
        "schedule.epochs": None,
        "data.path": str(shared / "coco128"),
        "data.format": "coco",
        "data.split": None,
        "data.val_split": "none",
        "arguments.backbone": "mobilenetv2",
        "arguments.image_size": 256,
        "arguments.backbone_weights": str(shared / "weights/mobilenet_v2_imagenet.safetensors") if weights else None,
        "log.every": 1,
    }
    if "retinanet" in name:
        changes["arguments.max_size"] = 416
    assert recipe.optimizer.lr == RATES[name]
    torch.manual_seed(0)
    result = ss.train(override(recipe, changes), out=tmp_path / "run")
    detector = ss.load(result.last)
    assert all(bool(p.isfinite().all()) for p in detector.parameters())
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert len(steps) == 200
    assert all(math.isfinite(value) for step in steps for value in step["losses"].values())
