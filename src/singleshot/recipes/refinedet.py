"""RefineDet (paper section 4, and the authors' scripts). DATA is the VOCdevkit folder, or COCO's.

As SSD's with expansion; the figures are those of one scale. The published COCO figures come from a test script that
always applies linear soft-NMS, of which the paper says nothing; `--arguments.soft_nms null` gives the plain ones.
"""

from __future__ import annotations

from typing import Any

from singleshot.recipes.coco import DATA as COCO
from singleshot.recipes.paper import REFINEDET_PAPER, caffe_recipe, steps
from singleshot.recipes.voc import DATA_07_12, DATA_07_PLUS_12
from singleshot.training.recipe import Data, Published, Recipe, Schedule

_VOC07, _VOC12 = "VOC2007 test, mAP of 11 points", "VOC2012 test (server), mAP"
_COCO = "COCO test-dev (server), AP"
_BEST = {_VOC07: "voc07.mAP", _VOC12: "voc10.mAP", _COCO: "coco.AP"}  # VOC2010 and later measure the area
# COCO's threshold and candidates are those of the released ResNet-101 model of 512 pixels, the only one whose test file
# is still to be had; the authors' training scripts of the 320 models name 0.01 and 1000 for the tests between.
# Where a recipe goes on from COCO's detector (--from), what it says of the test counts, not what that file says.
_VOC_TEST = {"threshold": 0.01, "candidates": 1000, "soft_nms": None}
_COCO_TEST = {"threshold": 0.016, "candidates": None, "soft_nms": 0.3}

# Fine-tuning from COCO: 5e-5, a fifth of it after so many thousand steps (authors' finetune_VGG16_VOC*.py).
_FINE = {"voc": (120, 80), "voc12": (160, 120)}
_FROM_COCO = {
    name: Schedule(steps=1000 * end, kind="step", milestones=(1000 * drop,), gamma=0.2)
    for name, (end, drop) in _FINE.items()
}

# Name: data, schedule, arguments, what was measured, figures at 320 and 512, their source.
_SETTINGS: dict[str, tuple[Data, Schedule, dict[str, Any], str, tuple[float, float], str]] = {
    "voc": (DATA_07_12, steps(80, 20, 20), {}, _VOC07, (80.0, 81.8), "Table 1"),
    "voc12": (DATA_07_PLUS_12, steps(160, 40, 40), {}, _VOC12, (78.1, 80.1), "Table 1"),
    "coco": (COCO, steps(280, 80, 40), _COCO_TEST, _COCO, (29.4, 33.0), "Table 3"),
    "r101_coco": (COCO, steps(280, 80, 40), _COCO_TEST, _COCO, (32.0, 36.4), "Table 3"),
    "voc_from_coco": (DATA_07_12, _FROM_COCO["voc"], _VOC_TEST, _VOC07, (84.0, 85.2), "Table 4"),
    "voc12_from_coco": (DATA_07_PLUS_12, _FROM_COCO["voc12"], _VOC_TEST, _VOC12, (82.7, 85.0), "Table 4"),
}


def _recipes() -> list[Recipe]:
    made = []
    for name, (data, schedule, test, metric, figures, table) in _SETTINGS.items():
        for size, figure in zip((320, 512), figures, strict=True):
            large = name == "r101_coco" and size == 512  # 4 GPUs with 5 images each (footnote 7, authors' solver)
            made.append(
                caffe_recipe(
                    f"refinedet{size}_{name}",
                    builder="refinedet",
                    arguments={"backbone": "resnet101" if "r101" in name else "vgg16", "image_size": size, **test},
                    data=data,
                    schedule=steps(400, 80, 60) if large else schedule,
                    expected=(Published(metric, figure, f"{REFINEDET_PAPER}, {table}"),),
                    metric=_BEST[metric],
                    batch_size=20 if large else 32,
                    lr=5e-5 if name.endswith("from_coco") else 1e-3,
                )
            )
    return made


RECIPES: tuple[Recipe, ...] = tuple(_recipes())
