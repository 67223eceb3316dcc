"""RefineDet (paper section 4, and the authors' scripts). DATA is the VOCdevkit folder, or COCO's.

The settings are SSD's with expansion. The figures are for one scale. The published COCO figures come from a test script
that always applies linear soft-NMS; the paper does not mention it. `--arguments.soft_nms null` gives greedy NMS.
"""

from __future__ import annotations

from typing import Any

from singleshot.recipes.benchmarks import (
    COCO,
    COCO_TEST_DEV,
    VOC07_TEST,
    VOC12_TEST,
    VOC_07_12,
    VOC_07_PLUS_12,
    Measure,
)
from singleshot.recipes.paper import REFINEDET_PAPER, caffe_recipe, steps
from singleshot.training.recipe import Data, Published, Recipe, Schedule

# COCO's threshold and candidates are those of the released ResNet-101 model of 512 pixels: only its test file is still
# available. The authors' training scripts of the 320 models have 0.01 and 1000 for the tests during training.
# If a recipe starts from COCO's detector (--from), its own test numbers count, not those of that file.
_VOC_TEST = {"threshold": 0.01, "candidates": 1000, "soft_nms": None}
_COCO_TEST = {"threshold": 0.016, "candidates": None, "soft_nms": 0.3}

# Fine-tuning from COCO, thousands of steps: (all, those before the drop). The rate is 5e-5, then a fifth of it
# (authors' finetune_VGG16_VOC*.py).
_FINE = {"voc": (120, 80), "voc12": (160, 120)}
_FROM_COCO = {
    name: Schedule(steps=1000 * end, kind="step", milestones=(1000 * drop,), gamma=0.2)
    for name, (end, drop) in _FINE.items()
}

# Name: data, schedule, arguments, what was measured, figures at 320 and 512, their source.
_SETTINGS: dict[str, tuple[Data, Schedule, dict[str, Any], Measure, tuple[float, float], str]] = {
    "voc": (VOC_07_12, steps(80, 20, 20), {}, VOC07_TEST, (80.0, 81.8), "Table 1"),
    "voc12": (VOC_07_PLUS_12, steps(160, 40, 40), {}, VOC12_TEST, (78.1, 80.1), "Table 1"),
    "coco": (COCO, steps(280, 80, 40), _COCO_TEST, COCO_TEST_DEV, (29.4, 33.0), "Table 3"),
    "r101_coco": (COCO, steps(280, 80, 40), _COCO_TEST, COCO_TEST_DEV, (32.0, 36.4), "Table 3"),
    "voc_from_coco": (VOC_07_12, _FROM_COCO["voc"], _VOC_TEST, VOC07_TEST, (84.0, 85.2), "Table 4"),
    "voc12_from_coco": (VOC_07_PLUS_12, _FROM_COCO["voc12"], _VOC_TEST, VOC12_TEST, (82.7, 85.0), "Table 4"),
}


def _recipes() -> list[Recipe]:
    made = []
    for name, (data, schedule, test, measure, figures, table) in _SETTINGS.items():
        for size, figure in zip((320, 512), figures, strict=True):
            large = name == "r101_coco" and size == 512  # 4 GPUs with 5 images each (footnote 7, authors' solver)
            made.append(
                caffe_recipe(
                    f"refinedet{size}_{name}",
                    builder="refinedet",
                    arguments={"backbone": "resnet101" if "r101" in name else "vgg16", "image_size": size, **test},
                    data=data,
                    schedule=steps(400, 80, 60) if large else schedule,
                    expected=(Published(measure.name, figure, f"{REFINEDET_PAPER}, {table}"),),
                    metric=measure.best,
                    batch_size=20 if large else 32,
                    lr=5e-5 if name.endswith("from_coco") else 1e-3,
                )
            )
    return made


RECIPES: tuple[Recipe, ...] = tuple(_recipes())
