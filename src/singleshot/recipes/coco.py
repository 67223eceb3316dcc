"""SSD on COCO (paper sections 3.4 and 3.6): smaller default boxes. DATA is the folder with `annotations` and images.

The paper's trainval35k is train2017, its minival is val2017.
"""

from __future__ import annotations

from singleshot.recipes.paper import SSD_PAPER, ssd_recipe, steps
from singleshot.training.recipe import Data, Published, Recipe

_METRIC = "COCO test-dev2015 (server), AP"
DATA = Data(split="train", val_split="val", crowd="drop")

# With expansion: 280k, 80k, 40k steps (authors' examples/ssd/ssd_coco.py); without: section 3.4.
_FIGURES = {(300, True): 25.1, (512, True): 28.8, (300, False): 23.2, (512, False): 26.8}

RECIPES: tuple[Recipe, ...] = tuple(
    ssd_recipe(
        f"ssd{size}_coco{'' if expand else '_noexpand'}",
        size=size,
        boxes="coco",
        data=DATA,
        schedule=steps(280, 80, 40) if expand else steps(160, 40, 40),
        expand=expand,
        expected=Published(_METRIC, figure, f"{SSD_PAPER}, {'Table 6' if expand else 'Table 5'}"),
        metric="coco.AP",
    )
    for (size, expand), figure in _FIGURES.items()
)
