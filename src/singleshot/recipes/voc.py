"""SSD on Pascal VOC (paper sections 3.1, 3.3, 3.6). DATA is the VOCdevkit folder with VOC2007 and VOC2012.

Each recipe exists with expansion (SSD*, Table 6) and, as `_noexpand`, in the paper's first form, which has a shorter
schedule.
"""

from __future__ import annotations

from singleshot.recipes.benchmarks import VOC07_TEST, VOC12_TEST, VOC_07, VOC_07_12, VOC_07_PLUS_12
from singleshot.recipes.paper import SSD_PAPER, ssd_recipe, steps
from singleshot.training.recipe import Published, Recipe

# Training images; schedule with expansion, without; boxes; what was measured; figures at 300 and 512 with expansion,
# without; their source.
# The schedule for fine-tuning from COCO is not published. The one for the same images from ImageNet is used.
_SETTINGS = {
    "voc07": (VOC_07, (80, 20, 20), (40, 10, 10), "voc", VOC07_TEST, None, (68.0, 71.6), "Table 1"),
    "voc": (VOC_07_12, (80, 20, 20), (40, 10, 10), "voc", VOC07_TEST, (77.2, 79.8), (74.3, 76.8), "Tables 1 and 6"),
    "voc12": (VOC_07_PLUS_12, (120, 40), (60, 20), "voc", VOC12_TEST, (75.8, 78.5), (72.4, 74.9), "Tables 4 and 6"),
    # COCO's box sizes, since training starts from COCO's weights (--from).
    "voc_from_coco": (
        VOC_07_12,
        (80, 20, 20),
        (40, 10, 10),
        "coco",
        VOC07_TEST,
        (81.2, 83.2),
        (79.6, 81.6),
        "Tables 1 and 6",
    ),
    "voc12_from_coco": (
        VOC_07_PLUS_12,
        (120, 40),
        (60, 20),
        "coco",
        VOC12_TEST,
        (79.3, 82.2),
        (77.5, 80.0),
        "Tables 4 and 6",
    ),
}


def _recipes() -> list[Recipe]:
    made = []
    for name, (data, long, short, boxes, measure, with_expand, without, table) in _SETTINGS.items():
        for i, size in enumerate((300, 512)):
            for expand in (True, False):
                figures, note = (with_expand, "") if expand else (without, "")
                if figures is None:  # published in the first form only
                    figures, note = without, " (without expansion; no figure with expansion is published)"
                made.append(
                    ssd_recipe(
                        f"ssd{size}_{name}{'' if expand else '_noexpand'}",
                        size=size,
                        boxes=boxes,
                        data=data,
                        schedule=steps(*(long if expand else short)),
                        expand=expand,
                        expected=Published(measure.name + note, figures[i], f"{SSD_PAPER}, {table}"),
                        metric=measure.best,
                    )
                )
    return made


RECIPES: tuple[Recipe, ...] = tuple(_recipes())
