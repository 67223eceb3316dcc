"""SSD on ILSVRC DET (paper section 3.5): COCO's network with 200 classes, without expansion."""

from __future__ import annotations

from singleshot.recipes.paper import SSD_PAPER, ssd_recipe, steps
from singleshot.training.recipe import Data, Published, Recipe

RECIPES: tuple[Recipe, ...] = (
    ssd_recipe(
        "ssd300_ilsvrc",
        size=300,
        boxes="coco",
        data=Data(),
        schedule=steps(320, 80, 40),
        expand=False,
        expected=Published("ILSVRC2014 DET val2, mAP", 43.4, f"{SSD_PAPER}, section 3.5"),
        metric="voc10.mAP",
    ),
)
