"""SSD on COCO (paper sections 3.4 and 3.6): smaller default boxes."""

from __future__ import annotations

from singleshot.recipes.benchmarks import COCO, COCO_TEST_DEV_2015
from singleshot.recipes.paper import SSD_PAPER, ssd_recipe, steps
from singleshot.training.recipe import Published, Recipe

# With expansion: 280k, 80k, 40k steps (authors' examples/ssd/ssd_coco.py); without: section 3.4.
_FIGURES = {(300, True): 25.1, (512, True): 28.8, (300, False): 23.2, (512, False): 26.8}

RECIPES: tuple[Recipe, ...] = tuple(
    ssd_recipe(
        f"ssd{size}_coco{'' if expand else '_noexpand'}",
        size=size,
        boxes="coco",
        data=COCO,
        schedule=steps(280, 80, 40) if expand else steps(160, 40, 40),
        expand=expand,
        expected=Published(COCO_TEST_DEV_2015.name, figure, f"{SSD_PAPER}, {'Table 6' if expand else 'Table 5'}"),
        metric=COCO_TEST_DEV_2015.best,
    )
    for (size, expand), figure in _FIGURES.items()
)
