"""What the papers train on and measure: their splits of Pascal VOC and COCO, and the names of the figures.

For Pascal VOC give the VOCdevkit folder with VOC2007 and VOC2012. For COCO give the folder with `annotations` and
images.
"""

from __future__ import annotations

from typing import NamedTuple

from singleshot.training.recipe import Data

# Objects marked difficult are trained on, as the authors of SSD and RefineDet did.
VOC_07 = Data(split="VOC2007:trainval", val_split="VOC2007:test")  # 5,011 images
VOC_07_12 = Data(split="VOC2007:trainval+VOC2012:trainval", val_split="VOC2007:test")  # 16,551 images
VOC_07_PLUS_12 = Data(split="VOC2007:trainval+VOC2007:test+VOC2012:trainval", val_split="none")  # 21,503 images

# The papers' trainval35k is train2017, their minival is val2017.
COCO = Data(split="train", val_split="val", crowd="drop")
# Every implementation of RetinaNet leaves out crowd regions and images without an object: it trains on 117,266 of
# 118,287 images.
COCO_WITH_OBJECTS = Data(split="train", val_split="val", crowd="drop", skip_empty=True)


class Measure(NamedTuple):
    """What a paper measures."""

    name: str  # the `metric` of `Published`: on which images, and what
    best: str  # the nearest metric that a validation has


VOC07_TEST = Measure("VOC2007 test, mAP of 11 points", "voc07.mAP")
VOC12_TEST = Measure("VOC2012 test (server), mAP", "voc10.mAP")  # VOC2010 and later use the area under the curve
COCO_TEST_DEV_2015 = Measure("COCO test-dev2015 (server), AP", "coco.AP")
COCO_TEST_DEV = Measure("COCO test-dev (server), AP", "coco.AP")
