"""Weights of mmdetection: files of its published layouts, compared with a slow, plain form of its conventions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mmdetection_reference as reference
import pytest
import torch
from mmdetection_reference import Weights
from torch import Tensor

from singleshot.detectors import Detector
from singleshot.errors import UserError
from singleshot.source import CLASS_NAMES, Source
from singleshot.weights.importers import import_weights, recognised
from singleshot.weights.importers.class_names import COCO, VOC
from singleshot.weights.importers.mmdetection import Told, classes, read_config, told

CAFFE = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
model = dict(type='RetinaNet', backbone=dict(type='ResNet', depth=50, style='caffe'),
    bbox_head=dict(type='RetinaHead', anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4,
        scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]),
        loss_bbox=dict(type='SmoothL1Loss', beta=0.5)),
    test_cfg=dict(nms_pre=1000, score_thr=0.1, nms=dict(type='nms', iou_threshold=0.4), max_per_img=50))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=(160, 96), flip=False,
    transforms=[dict(type='Resize', keep_ratio=True), dict(type='Normalize', **img_norm_cfg)])]
"""


def noted(weights: Weights, config: str = "model = dict()", **meta: Any) -> Source:
    """A file with a configuration."""
    return Source(weights, {"meta": {"config": config, "mmdet_version": "2.25.0", **meta}}, "old.pth: ")


def picture(height: int, width: int) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(5))


def found(detector: Detector, image: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        (result,) = detector([image])
    return result  # type: ignore[return-value]


@pytest.fixture(scope="module")
def small() -> Weights:
    """RetinaNet-R18 with a narrow pyramid."""
    return reference.retinanet_file(18, 3, channels=16)


# ---------------------------------------------------------------------------------------------------------- RetinaNet
@pytest.mark.parametrize("p6", ["p5", pytest.param("c5", marks=pytest.mark.slow)])
def test_retinanet(p6: str, tmp_path: Path) -> None:
    weights = reference.retinanet_file(18, 3, channels=16, p6=p6)
    torch.save({"state_dict": weights}, tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match=r"weights\.pth: the file holds no configuration: .*pytorch"):
        detector = import_weights(tmp_path / "weights.pth", image_size=60, max_size=150)
    assert detector.class_names == ("class 1", "class 2", "class 3")
    image = picture(60, 90)
    with torch.no_grad():
        maps = reference.retinanet_maps(weights, reference.padded(reference.normalised(image)))
    expected = reference.detections(
        maps, reference.retinanet_boxes(), (8, 16, 32, 64, 128), (60, 90), lambda logits: logits.sigmoid(),
        threshold=0.05, iou=0.5, most=100,
    )  # fmt: skip
    assert len(expected) > 20
    reference.check(found(detector, image), expected)


def test_retinanet_with_the_stride_and_the_pixels_of_caffe(tmp_path: Path) -> None:
    """Both, the size, the numbers and the names come from the configuration in the file."""
    weights = reference.retinanet_file(50, 3, channels=16)
    weights["backbone.conv1.weight"] /= 100  # its pixels are not divided
    meta = {"mmdet_version": "2.25.0+abc", "config": CAFFE, "CLASSES": ("cat", "dog", "cow"), "iter": 7}
    torch.save({"meta": meta, "state_dict": weights, "optimizer": {"state": {}}}, tmp_path / "epoch_12.pth")
    detector = import_weights(tmp_path / "epoch_12.pth")
    assert detector.class_names == ("cat", "dog", "cow")
    assert detector.arguments["box_loss"] == "smooth_l1"
    assert detector.arguments["beta"] == 0.5
    image = picture(96, 128)
    pixels = reference.normalised(image, std=(1.0, 1.0, 1.0), bgr=True)
    with torch.no_grad():
        maps = reference.retinanet_maps(weights, pixels, caffe=True)
    expected = reference.detections(
        maps, reference.retinanet_boxes(), (8, 16, 32, 64, 128), (96, 128), lambda logits: logits.sigmoid(),
        threshold=0.1, iou=0.4, most=50,
    )  # fmt: skip
    assert len(expected) > 20
    reference.check(found(detector, image), expected)


@pytest.mark.parametrize("iou", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_whole_pixels_of_the_versions_before_2(iou: bool) -> None:
    """The IoU-aware fork is one of them. Boxes go from the first to the last pixel there, to its end here."""
    weights = reference.retinanet_file(18, 3, channels=16, iou=iou)
    notes = {} if iou else {"meta": {"mmdet_version": "1.0rc1+621ecd2", "config": "model = dict()"}}
    source = Source(weights, notes)
    assert recognised(source) == ("iou_aware_retinanet" if iou else "mmdetection_retinanet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = import_weights(source, image_size=64, max_size=96)
    assert detector.builder == ("iou_retinanet" if iou else "retinanet")
    image = picture(64, 96)
    with torch.no_grad():
        maps = reference.retinanet_maps(weights, reference.padded(reference.normalised(image)))

    def score(classes: Tensor, quality: Tensor | None = None) -> Tensor:
        return classes.sigmoid() if quality is None else classes.sigmoid().sqrt() * quality.sigmoid().sqrt()

    expected = reference.detections(
        maps, reference.retinanet_boxes(old=True), (8, 16, 32, 64, 128), (64, 96), score,
        threshold=0.05, iou=0.5, most=100, old=True,
    )  # fmt: skip
    # A box that lies outside of the image has a pixel left there, and is no detection here.
    inside = [one for one in expected if one[2][2] > 0 and one[2][3] > 0 and one[2][0] < 95 and one[2][1] < 63]
    assert len(inside) > 20
    result = found(detector, image)
    count = min(len(inside), len(expected), len(result["scores"]))
    reference.check({name: value[:count] for name, value in result.items()}, inside[:count], shift=1.0)


@pytest.mark.slow
def test_networks_are_told_by_their_shapes() -> None:
    """The depth, and the groups of a ResNeXt; names before version 0.6; averages beside the weights."""
    weights = reference.retinanet_file(50, 2, channels=16, groups=(32, 4))
    with pytest.warns(UserWarning, match="no configuration"):
        assert import_weights(weights).arguments["backbone"] == "resnext50_32x4d"
    older = {
        name.replace("0.conv.", "0.") if name.startswith("bbox_head") else name: value
        for name, value in weights.items()
    }
    with pytest.warns(UserWarning, match="no configuration"):
        import_weights({**older, "ema_backbone_conv1_weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"3-4-6-3 blocks, the first with a convolution of \(64, 2\) channels"):
        import_weights({**weights, "backbone.layer1.0.conv2.weight": torch.zeros(64, 2, 3, 3)})


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
def test_a_trunk_without_statistics_is_a_caffe_one(small: Weights, depth: int) -> None:
    """The stride is elsewhere only in blocks with a 1x1 convolution."""
    weights = small if depth == 18 else reference.retinanet_file(depth, 3, channels=16)
    with pytest.warns(UserWarning, match='"caffe" configurations'):
        detector = import_weights({**weights, "backbone.bn1.running_mean": torch.zeros(64)})
    assert detector.arguments.get("backbone_options") == (None if depth == 18 else {"stride_first": True})
    assert detector.spec.preprocess.pixels.order == "bgr"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model = dict(neck=dict(add_extra_convs='on_lateral'))", "lateral map"),
        ("model = dict(bbox_head=dict(loss_cls=dict(use_sigmoid=False)))", "softmax"),
        ("model = dict(bbox_head=dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2])))", "target_stds"),
        ("model = dict(bbox_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32, 64])))", "strides"),
        ("model = dict(bbox_head=dict(anchor_generator=dict(scales=[8, 16])))", "scales"),
        ("model = dict(bbox_head=dict(anchor_generator=dict(ratios=[1.0])))", "expected 12 and a multiple of 3"),
        ("model = dict(bbox_head=dict(anchor_generator=dict(ratios='x')))", "ratio"),
        ("model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale='x')))", "octave_base_scale"),
        ("model = dict(bbox_head=dict(bbox_coder=dict(target_stds=1)))", "old.pth: "),
        ("model = dict(test_cfg=dict(score_thr=7))", "threshold"),
    ],
)
def test_what_no_shape_shows_is_refused(small: Weights, config: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_weights(noted(small, config))


def test_another_layer_is_named(small: Weights) -> None:
    with pytest.raises(
        UserError, match=r"old\.pth: .*mmdetection's RetinaNet on resnet18: 1 unexpected: backbone\.dcn"
    ):
        import_weights(noted({**small, "backbone.dcn.weight": torch.zeros(1)}))
    with pytest.raises(UserError, match=r"old\.pth: "):
        import_weights(noted({**small, "bbox_head.retina_cls.weight": torch.zeros(())}))


# ---------------------------------------------------------------------------------------------------------------- SSD
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "classes", "kind", "new"),
    [(300, 80, "coco", True), (300, 20, "voc", False), (512, 80, "coco", True), (512, 20, "voc", False)],
)
def test_ssd(size: int, classes: int, kind: str, new: bool) -> None:
    weights = reference.ssd_file(size, classes, new=new)
    image = picture(size, size)
    with torch.no_grad():
        maps = reference.ssd_maps(weights, reference.normalised(image, std=(1.0, 1.0, 1.0)), size)
    expected = reference.detections(
        maps, reference.ssd_boxes(kind, size), reference.STEPS[size], (size, size),
        lambda logits: logits.softmax(-1)[..., :-1], deviations=(0.1, 0.2), threshold=0.02, iou=0.45, most=200,
    )  # fmt: skip
    assert len(expected) == 200
    detector = import_weights(noted(weights))
    assert detector.class_names == (COCO if kind == "coco" else VOC)
    reference.check(found(detector, image), expected)


@pytest.fixture(scope="module")
def empty() -> dict[bool, Weights]:
    """SSD300's names and shapes, old and new, without values."""
    return {new: reference.ssd_file(300, 4, new=new, empty=True) for new in (False, True)}


@pytest.mark.parametrize("new", [False, True])
def test_ssd_of_both_layouts(empty: dict[bool, Weights], new: bool) -> None:
    with pytest.warns(UserWarning, match="no configuration: it is taken for an SSD300"):
        detector = import_weights({**empty[new], "ema_backbone_features_0_weight": torch.zeros(1)})
    assert detector.image_size == (300, 300)
    assert detector.num_classes == 4
    expected = torch.tensor(reference.ssd_boxes("coco", 300)[0])
    torch.testing.assert_close(detector.anchors_for((300, 300)).boxes[:4], expected)
    scale = detector.state_dict()["backbone.backbone.scales.conv4_3.weight"]
    torch.testing.assert_close(scale, torch.linspace(15, 25, 512))


def test_ssds_sizes_of_boxes_come_from_the_configuration(empty: dict[bool, Weights]) -> None:
    head = "bbox_head=dict(anchor_generator=dict(type='SSDAnchorGenerator', {}))"
    share = import_weights(noted(empty[True], f"model = dict({head.format('basesize_ratio_range=(0.2, 0.9)')})"))
    expected = torch.tensor(reference.ssd_boxes("voc", 300)[0])
    torch.testing.assert_close(share.anchors_for((300, 300)).boxes[:4], expected)
    sizes = "min_sizes=[30, 60, 111, 162, 213, 264], max_sizes=[60, 111, 162, 213, 264, 315]"
    given = import_weights(noted(empty[True], f"model = dict({head.format(sizes)})"))
    assert torch.equal(given.anchors_for((300, 300)).boxes, share.anchors_for((300, 300)).boxes)
    for wrong in ("basesize_ratio_range=(0.3, 0.9)", "strides=[1, 2]", "min_sizes=[0], max_sizes=[1]"):
        with pytest.raises(UserError, match=r"old\.pth: its configuration has"):
            import_weights(noted(empty[True], f"model = dict({head.format(wrong)})"))
    with pytest.raises(UserError, match="takes 300 x 300"):
        import_weights(noted(empty[True], "test_pipeline = [dict(type='Resize', scale=(320, 320), keep_ratio=False)]"))
    with pytest.raises(UserError, match="boxes in a cell"):
        import_weights(noted({**empty[True], "bbox_head.reg_convs.0.0.weight": torch.zeros(1)}))


def test_the_background_of_versions_before_2_was_first(empty: dict[bool, Weights]) -> None:
    biases = {name: torch.arange(len(value) * 1.0) for name, value in empty[False].items() if name.endswith("bias")}
    weights = {**empty[False], **biases}
    with pytest.warns(UserWarning, match="the boxes of mmdetection before 2.0"):
        detector = import_weights(noted(weights, mmdet_version="1.2.0+0f33c08"))
    bias = detector.state_dict()["head.levels.0.0.predict.class_logits.bias"]
    assert bias.reshape(4, 5)[:2].tolist() == [[1, 2, 3, 4, 0], [6, 7, 8, 9, 5]]
    with pytest.warns(UserWarning, match="no configuration"):  # the larger bias is the background's: here the last
        newer = import_weights(weights)
    assert newer.state_dict()["head.levels.0.0.predict.class_logits.bias"].tolist() == list(range(20))


# -------------------------------------------------------------------------------------------------------------- notes
def test_names_of_the_classes(small: Weights) -> None:
    """The file's or the user's; without any, those of the data set with so many classes."""

    def names(**notes: Any) -> Any:
        source = Source({}, notes)
        return classes(20, source, told(source)).get("class_names")

    with pytest.warns(UserWarning, match="does not name its 20 classes: they get VOC's names"):
        assert names() == list(VOC)
    kinds = [f"kind {k}" for k in range(20)]
    assert names(meta={"dataset_meta": {"classes": kinds}}) == kinds
    assert names(meta={"CLASSES": tuple(kinds)}) == kinds
    assert names(**{CLASS_NAMES: kinds}) is None  # they are used as they are
    with pytest.warns(UserWarning, match="no configuration"):
        assert import_weights(small, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")


def test_a_configuration_is_read_as_data() -> None:
    text = """/home/someone/configs/x.py
size = 300
norm = dict(mean=[1, 2.5, -3])
a = dict(type='X', size=(size, size), **norm, path=root + 'y', call=open('z'), more={'k': None, 3: 1})
"""
    assert read_config(text)["a"] == {"type": "X", "size": [300, 300], "mean": [1, 2.5, -3], "more": {"k": None}}
    many = ", ".join(f"k{k}=0" for k in range(300))
    for hostile in ("(" * 10_000, "-" * 10_000 + "1", "a = " + "[" * 5_000, "x" * 300_000, "a = dict(\0)",
                    f"a = dict({many})", "a = " + "x." * 20_000 + "y"):  # fmt: skip
        assert read_config(hostile) == {}
    aliases = "a = [1]\n" + "".join(f"{chr(98 + k)} = [{chr(97 + k)}, {chr(97 + k)}]\n" for k in range(24))
    looped = told(Source({}, {"meta": {"cfg": aliases + "test_pipeline = y", "mmengine_version": "0.10"}}))
    assert looped.size is None
    assert looped.pixels is None
    assert looped.version == (3,)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ("data = dict(test=dict(img_scale=(1000, 600), img_norm_cfg=norm))", ([1000, 600], True)),  # 0.6
        (
            "data = dict(test=dict(pipeline=[dict(type='MultiScaleFlipAug', img_scale=(1333, 800), transforms=["
            "dict(type='Resize', keep_ratio=True), dict(type='Normalize', **norm)])]))",
            ([1333, 800], True),
        ),  # 2
        (
            "steps = [dict(type='mmdet.Resize', scale=(512, 512), keep_ratio=False)]\ntest_pipeline = []\n"
            "test_dataloader = dict(dataset=dict(pipeline=steps))\n"
            "model = dict(data_preprocessor=dict(bgr_to_rgb=True, mean=[10, 20, 30], std=[1, 2, 3]))",
            ([512, 512], False),
        ),  # 3
    ],
)
def test_size_and_pixels_of_each_version(config: str, size: tuple[list[int], bool]) -> None:
    text = f"norm = dict(mean=[10, 20, 30], std=[1, 2, 3], to_rgb=True)\nimg_norm_cfg = norm\n{config}\n"
    found = told(Source({}, {"meta": {"config": text}}))
    assert found.size == size
    assert found.pixels == [[10 / 255, 20 / 255, 30 / 255], [1 / 255, 2 / 255, 3 / 255], "rgb"]


@pytest.mark.parametrize(
    "notes", [{"meta": 3}, {"meta": {"config": 3, "CLASSES": 5, "mmdet_version": "x"}}, {"meta": {"CLASSES": [1]}}]
)
def test_notes_may_be_anything(notes: dict[str, Any]) -> None:
    assert told(Source({}, notes)) == Told()
