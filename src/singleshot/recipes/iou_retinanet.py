"""IoU-aware RetinaNet (paper section 4), as in its authors' configurations for mmdetection 0.6.

DATA is COCO's folder, or the VOCdevkit folder with VOC2007 and VOC2012. The paper's baselines are the same settings
with `--builder retinanet`. For that reason the arguments do not mention the IoU. The builder's defaults count: alpha
0.5, binary cross-entropy and a detached target, as in the paper's tables. The code that was released later has larger
gains and does not detach: `--arguments.iou_detach false`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from singleshot.recipes.benchmarks import COCO_TEST_DEV, COCO_WITH_OBJECTS, VOC_07_12
from singleshot.recipes.retinanet import BACKBONES, pyramid_recipe, step_schedule
from singleshot.training.recipe import Published, Recipe, Schedule

PAPER = "IoU-aware RetinaNet, arXiv 1912.05992 v1"

# mmdetection's VOC reader leaves out difficult objects.
_VOC = replace(VOC_07_12, drop_difficult=True, skip_empty=True)
_IMAGES = {"coco": 117_266, "voc": 16_551}  # with at least one object

# Images in a step: GPUs x images per GPU in the authors' configurations. The rate is 0.01 for 16 images, else in
# proportion.
# Name: backbone, data, short and longest side, images in a step, figure, baseline, what was measured, source.
# The paper says X101-32x8d; the configuration and the baseline are 32x4d.
_VAL = "COCO val2017, AP"
_VOC07 = "VOC2007 test, COCO-style AP"
_SETTINGS = {
    "r50_coco": ("r50", "coco", (800, 1333), 4 * 4, 36.9, 35.9, COCO_TEST_DEV.name, "Table 1"),
    "r101_coco": ("r101", "coco", (800, 1333), 4 * 2, 39.2, 38.1, COCO_TEST_DEV.name, "Table 1"),
    "x101_coco": ("x101", "coco", (800, 1333), 4 * 2, 40.6, 39.0, COCO_TEST_DEV.name, "Table 1"),
    "r50_600_coco": ("r50", "coco", (600, 1000), 2 * 6, 35.5, 34.3, _VAL, "Tables 3 and 4, alpha 0.5"),
    # For VOC only the baselines' configurations are published. The paper uses the same for both.
    "r50_voc": ("r50", "voc", (600, 1000), 2 * 6, 53.6, 51.4, _VOC07, "Table 5"),
    "r101_voc": ("r101", "voc", (600, 1000), 2 * 6, 56.2, 55.1, _VOC07, "Table 5"),
}


def _twelve_epochs(images: int, batch_size: int) -> Schedule:
    """12 epochs, a tenth of the rate after 8 and 11. An epoch has ceil(images / batch size) steps (mmdetection)."""
    epoch = math.ceil(images / batch_size)
    return step_schedule(12 * epoch, 8 * epoch, 11 * epoch)


def _recipes() -> list[Recipe]:
    made = []
    for name, (depth, kind, (short, longest), batch, figure, baseline, metric, table) in _SETTINGS.items():
        source = f"{PAPER}, {table}"
        made.append(
            pyramid_recipe(
                f"iou_retinanet_{name}",
                builder="iou_retinanet",
                arguments={
                    "backbone": BACKBONES[depth],
                    "image_size": short,
                    "max_size": longest,
                    "norm": "eval",  # mmdetection: batch norm keeps its statistics, scale and shift train
                    "relu_before_p7": False,  # mmdetection
                },
                batch_size=batch,
                data=COCO_WITH_OBJECTS if kind == "coco" else _VOC,
                schedule=_twelve_epochs(_IMAGES[kind], batch),
                expected=(
                    Published(metric, figure, source),
                    Published(f"{metric}, the baseline RetinaNet", baseline, source),
                ),
            )
        )
    return made


RECIPES: tuple[Recipe, ...] = tuple(_recipes())
