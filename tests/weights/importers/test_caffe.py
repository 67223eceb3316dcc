"""Caffe weights of SSD's and RefineDet's authors, against a plain execution of the published nets.

The original program cannot be run here. `caffe_nets` writes files of the published layout, with all layers, names and
shapes, and does what Caffe's layers do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import caffe_nets
import numpy as np
import pytest
import torch
from caffe_nets import Layer

from singleshot import backbones
from singleshot.backbones import vgg
from singleshot.detectors import BUILDERS
from singleshot.detectors.ssd_boxes import PUBLISHED_SIZES
from singleshot.errors import UserError
from singleshot.ops.shapes import without_values
from singleshot.source import Source
from singleshot.weights.importers import find_importer, import_weights, recognised
from singleshot.weights.readers import read

NETS: dict[str, tuple[str, Any]] = {
    "ssd300 voc": ("caffe_ssd", lambda: caffe_nets.ssd(300, 21)),
    "ssd512 coco": ("caffe_ssd", lambda: caffe_nets.ssd(512, 81)),
    "refinedet320 voc": ("caffe_refinedet", lambda: caffe_nets.refinedet(320, 21)),
    "refinedet512 resnet101 coco": ("caffe_refinedet", lambda: caffe_nets.refinedet(512, 81, "resnet101")),
}
CENTER_SIZE = 2
VOC_300 = PUBLISHED_SIZES["voc", 300]


def a_source(layers: Sequence[Layer]) -> Source:
    """What the reader gives for a net, with tensors that take no memory, and the settings as it reads them."""
    tensors = {}
    for layer in layers:
        names = ("running_mean", "running_var") if layer.type == "BatchNorm" else ("weight", "bias")
        for name, shape in zip(names, layer.shapes, strict=False):
            tensors[f"{layer.name}.{name}"] = torch.zeros(()).expand(shape)
    return Source(tensors, {"net": {"name": "net"}, "layers": {layer.name: _notes(layer) for layer in layers}}, "x: ")


def _notes(layer: Layer) -> dict[str, Any]:
    said = dict(layer.settings)
    notes: dict[str, Any] = {"type": layer.type}
    if layer.type == "AnnotatedData":
        resize = {"height": said["side"], "width": said["side"]}
        notes["transform_param"] = {"mean_value": list(said["mean_value"]), "resize_param": resize}
    elif layer.type in ("Convolution", "Deconvolution"):
        notes["convolution_param"] = {key: [said[key]] for key in ("pad", "stride", "dilation") if key in said}
    elif layer.type == "PriorBox":
        notes["prior_box_param"] = {
            key: list(value) if isinstance(value, tuple) else value for key, value in said.items()
        }
    elif layer.type == "DetectionOutput":
        nms = {key: said.pop(key) for key in ("nms_threshold", "top_k") if key in said}
        notes["detection_output_param"] = {**said, "nms_param": nms}
    return notes


@cache
def net(name: str) -> tuple[Layer, ...]:
    return tuple(NETS[name][1]())


def changed(layers: Sequence[Layer], name: str, **settings: Any) -> list[Layer]:
    """A net with other settings of one layer; None takes a setting away."""
    found = []
    for layer in layers:
        if layer.name == name:
            said = {key: value for key, value in {**layer.settings, **settings}.items() if value is not None}
            layer = dataclasses.replace(layer, settings=said)
        found.append(layer)
    return found


@pytest.mark.parametrize("name", NETS)
def test_every_blob_of_the_published_nets_has_its_place(name: str) -> None:
    source = a_source(net(name))
    assert recognised(source) == NETS[name][0]
    importer = find_importer(NETS[name][0])
    builder, arguments = importer.builder(source)
    with without_values():
        own = BUILDERS[builder](**arguments).state_dict()
    wanted = {
        importer.rename(key, source)[0]: tuple(value.shape) for key, value in own.items() if "num_batches" not in key
    }
    assert wanted == source.shapes


def test_arguments_of_ssd() -> None:
    builder, arguments = find_importer("caffe_ssd").builder(a_source(net("ssd300 voc")))
    names = arguments.pop("class_names")
    assert (builder, len(names), names[0], names[-1]) == ("ssd", 20, "aeroplane", "tvmonitor")
    assert arguments == {
        "num_classes": 20, "backbone": "vgg16", "image_size": 300, "pixels": "caffe_bgr",
        "box_sizes": [30, 60, 111, 162, 213, 264, 315], "box_centres": "authors", "clip": False,
    }  # fmt: skip
    _, coco = find_importer("caffe_ssd").builder(a_source(net("ssd512 coco")))
    assert (coco["num_classes"], coco["class_names"][79], coco["category_ids"][79]) == (80, "toothbrush", 90)
    assert (coco["image_size"], coco["box_sizes"]) == (512, [20, 51, 133, 215, 296, 378, 460, 542])
    output = Layer("detection_out", "DetectionOutput", (), {
        "num_classes": 21, "background_label_id": 0, "code_type": CENTER_SIZE, "keep_top_k": 100,
        "confidence_threshold": 0.3, "nms_threshold": 0.5, "top_k": 50,
    })  # fmt: skip
    _, deployed = find_importer("caffe_ssd").builder(a_source([*net("ssd300 voc"), output]))
    assert {key: deployed[key] for key in ("threshold", "nms", "candidates", "detections")} == {
        "threshold": 0.3, "nms": 0.5, "candidates": 50, "detections": 100,
    }  # fmt: skip


@pytest.mark.parametrize(("side", "classes", "data"), [(300, 21, "voc"), (300, 81, "coco"), (512, 201, "voc")])
def test_without_settings_they_are_those_of_the_scripts(side: int, classes: int, data: str) -> None:
    source = a_source(caffe_nets.ssd(side, classes, PUBLISHED_SIZES[data, side]))
    _, arguments = find_importer("caffe_ssd").builder(dataclasses.replace(source, notes={}))
    assert arguments["box_sizes"] == [int(size) for size in PUBLISHED_SIZES[data, side]]
    assert "threshold" not in arguments
    assert ("class_names" in arguments) == (classes != 201)


def test_arguments_of_refinedet() -> None:
    importer = find_importer("caffe_refinedet")
    _, arguments = importer.builder(a_source(net("refinedet320 voc")))
    assert arguments.pop("class_names")[0] == "aeroplane"
    assert arguments == {
        "num_classes": 20, "backbone": "vgg16", "image_size": [320, 320], "pixels": "caffe_bgr",
        "anchor_sizes": [32, 64, 128, 256],
    }  # fmt: skip
    _, large = importer.builder(a_source(net("refinedet512 resnet101 coco")))
    assert (large["image_size"], large["backbone"]) == ([512, 512], "resnet101")
    assert large["backbone_options"] == {"stride_first": True, "pool": "ceil"}
    assert (large["threshold"], large["candidates"], large["soft_nms"]) == (0.016, None, 0.3)
    said = {
        "num_classes": 81, "background_label_id": 0, "code_type": CENTER_SIZE, "confidence_threshold": 0.016,
        "objectness_score": 0.02, "nms_threshold": 1.45,
    }  # fmt: skip
    output = Layer("detection_out", "DetectionOutput", (), said)  # the authors' file for single-scale tests on COCO
    _, tested = importer.builder(a_source([*net("refinedet512 resnet101 coco"), output]))
    assert (tested["threshold"], tested["candidates"], tested["soft_nms"], tested["theta"]) == (0.016, None, 0.3, 0.98)
    bare = dataclasses.replace(
        a_source(net("refinedet320 voc")), notes={"net": {"name": "VOC_refinedet_vgg16_512x512"}}
    )
    assert importer.builder(bare)[1]["image_size"] == [512, 512]
    assert importer.builder(dataclasses.replace(bare, notes={}))[1]["image_size"] == [320, 320]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"mean_value": (104.0, 117.0, 123.0)}, "caffe_bgr"),
        ({"mean_value": (127.5,)}, [[0.5] * 3, [1 / 255] * 3, "bgr"]),
        ({"mean_value": (51.0, 102.0, 153.0)}, [[0.6, 0.4, 0.2], [1 / 255] * 3, "bgr"]),
    ],
)
def test_pixels_of_the_data_layer(said: dict[str, Any], expected: Any) -> None:
    source = a_source(changed(net("ssd300 voc"), "data", **said))
    assert find_importer("caffe_ssd").builder(source)[1]["pixels"] == expected


REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "other dilation": ("ssd300 voc", "fc6", {"dilation": 3}, r"fc6 has the dilation \[3\], expected \[6\]"),
    "other stride": ("ssd300 voc", "conv8_2", {"stride": 2}, "conv8_2 has the stride"),
    "other size": ("ssd300 voc", "data", {"side": 400}, r"images of \(400, 400\).*expected 300x300"),
    "other offset": ("ssd300 voc", "fc7_mbox_priorbox", {"offset": 0.0}, "fc7_mbox_priorbox: offset 0.0"),
    "other variance": ("ssd300 voc", "fc7_mbox_priorbox", {"variance": (0.1,)}, "fc7_mbox_priorbox: variance"),
    "two sizes": ("ssd300 voc", "fc7_mbox_priorbox", {"min_size": (3.0, 4.0)}, "fc7_mbox_priorbox: min_size"),
    "other sizes": ("ssd300 voc", "fc7_mbox_priorbox", {"max_size": (99.0,)}, "fc7_mbox_priorbox: expected a max_size"),
    "other ratios": ("ssd300 voc", "fc7_mbox_priorbox", {"aspect_ratio": (2.0, 5.0)}, "fc7_mbox_priorbox: expected"),
    "other steps": ("ssd300 voc", "fc7_mbox_priorbox", {"step": 20.0}, r"steps of the default boxes are"),
    "two clips": ("ssd300 voc", "fc7_mbox_priorbox", {"clip": 1}, "different values of clip"),
    "an SSD's fc6": ("refinedet320 voc", "fc6", {"dilation": 6}, "fc6 has the dilation"),
    "an anchor's ratio": ("refinedet320 voc", "fc7_mbox_priorbox", {"aspect_ratio": (3.0,)}, "other anchors are not"),
    "a stride": ("refinedet512 resnet101 coco", "res3a_branch2a", {"stride": 1}, "res3a_branch2a has the stride"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_another_network_is_refused(name: str) -> None:
    which, layer, settings, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        find_importer(NETS[which][0]).builder(a_source(changed(net(which), layer, **settings)))


@pytest.mark.parametrize("key", ["background_label_id", "code_type"])
def test_another_output_is_refused(key: str) -> None:
    said = {"num_classes": 21, "background_label_id": 0, "code_type": CENTER_SIZE, "nms_threshold": 0.5, key: 1}
    with pytest.raises(UserError, match=rf"detection_out: this {key} is not possible"):
        find_importer("caffe_ssd").builder(
            a_source([*net("ssd300 voc"), Layer("detection_out", "DetectionOutput", (), said)])
        )


def test_other_shapes_are_refused() -> None:
    source = a_source(net("ssd300 voc"))

    def builder(name: str, shape: tuple[int, ...] | None) -> None:
        tensors = {key: value for key, value in source.tensors.items() if key != name}
        if shape is not None:
            tensors[name] = torch.zeros(()).expand(shape)
        find_importer("caffe_ssd").builder(dataclasses.replace(source, tensors=tensors))

    with pytest.raises(UserError, match=r"\[4, 4\.5, 6, 6, 4, 4\] boxes in a cell, expected \[4, 6, 6, 6, 4, 4\]"):
        builder("fc7_mbox_loc.weight", (18, 1024, 3, 3))
    with pytest.raises(UserError, match="different numbers of classes"):
        builder("fc7_mbox_conf.weight", (6 * 22, 1024, 3, 3))
    with pytest.raises(UserError, match="no weights for the layer conv9_2_mbox_loc"):
        builder("conv9_2_mbox_loc.weight", None)
    with pytest.raises(UserError, match="early 2016"):
        builder("pool6_mbox_loc.weight", (24, 256, 3, 3))


def test_damaged_settings_are_refused() -> None:
    """Notes may come from any file, also from the metadata of a safetensors file."""
    source = a_source(net("ssd300 voc"))
    source.notes["layers"]["fc7_mbox_priorbox"]["prior_box_param"]["min_size"] = [float("inf")]
    with pytest.raises(UserError, match="min_size"):
        import_weights(source)
    for notes in ({"layers": "text"}, {"net": "text"}):
        assert find_importer("caffe_ssd").builder(dataclasses.replace(source, notes=notes))[1]["image_size"] == 300


def test_the_background_moves_to_the_end() -> None:
    importer = find_importer("caffe_refinedet")
    source = a_source(net("refinedet320 voc"))
    state = {
        "refiner.head.levels.0.0.predict.anchor_logits.bias": torch.arange(6.0),
        "head.levels.0.0.predict.class_logits.weight": torch.arange(63.0)[:, None, None, None],
        "head.levels.0.1.predict.box_deltas.bias": torch.arange(12.0),
    }
    importer.finish(state, source)
    arm, odm, deltas = state.values()
    assert arm.tolist() == [1, 0, 3, 2, 5, 4]
    assert odm[:, 0, 0, 0].tolist() == [k + c for k in (0, 21, 42) for c in (*range(1, 21), 0)]
    assert deltas.tolist() == list(range(12))


@pytest.mark.parametrize("name", ["ssd300 voc", "ssd512 coco", "refinedet320 voc"])
def test_default_boxes_equal_the_loop_of_the_layer(name: str) -> None:
    """Caffe's PriorBox, a loop over cells, with its whole numbers."""
    layers = net(name)
    builder, arguments = find_importer(NETS[name][0]).builder(a_source(layers))
    with without_values():
        detector = BUILDERS[builder](**arguments)
    side = detector.preprocess.size[0]
    shapes = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1), 320: (40, 20, 10, 5)}[side]
    found = [
        caffe_nets._prior_box(layer.settings, None, [torch.zeros(1, 1, cells, cells)], None, (side, side))
        for layer, cells in zip((one for one in layers if one.type == "PriorBox"), shapes, strict=True)
    ]
    boxes = detector.anchors_for((side, side)).boxes
    torch.testing.assert_close(boxes, torch.cat(found) * side, rtol=0, atol=1e-3)


def assert_finds_what_the_net_finds(
    layers: Sequence[Layer], path: Path, test: dict[str, Any], **arguments: Any
) -> None:
    """`test`: the numbers of DetectionOutput."""
    blobs = caffe_nets.random_blobs(layers)
    path.write_bytes(caffe_nets.caffemodel("released", layers, blobs))
    detector = import_weights(path, **arguments)
    assert detector.arguments["pixels"] == "caffe_bgr"
    side = detector.preprocess.size[0]
    image = torch.from_numpy(np.random.default_rng(1).random((3, side, side), np.float32))
    with torch.no_grad():
        found = caffe_nets.run(layers, blobs, 255 * image.flip(0))
        prediction = detector.predict(image)
    expected = caffe_nets.detections(found, **test)
    assert len(prediction.scores) == len(expected) > 50
    assert len({label for label, _, _ in expected}) > 3
    # Each has one of the same class, score and box. Scores that are equal but for rounding may be in another order, and
    # of those at the limit of `keep_top_k` others may be kept.
    ours = torch.cat([prediction.labels[:, None] + 1, prediction.scores[:, None], prediction.boxes / side], 1)
    theirs = torch.tensor([[label, score, *box] for label, score, box in expected])
    theirs[:, 2:] = theirs[:, 2:].clamp(0, 1)
    least = theirs[-1, 1] + 1e-4
    same = (theirs[:, None] - ours).abs().amax(-1) < 1e-4
    assert bool(same[theirs[:, 1] > least].any(1).all())
    assert bool(same.any(0)[ours[:, 1] > least].all())


TEST = {"threshold": 0.01, "nms": 0.45, "top_k": 400, "keep_top_k": 200}  # of SSD
MORE = {"top_k": 1000, "keep_top_k": 500}  # of RefineDet


@pytest.mark.parametrize("name", ["ssd", "refinedet"])
def test_detections_equal_those_of_a_narrow_net(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published layout, but for the widths of conv1_1 to conv5_3."""
    monkeypatch.setattr(vgg, "BLOCKS", tuple(tuple(width // 16 for width in block) for block in vgg.BLOCKS))
    layers = caffe_nets.ssd(300, 6, VOC_300, narrow=16) if name == "ssd" else caffe_nets.refinedet(128, 6, narrow=16)
    test = {**TEST, "keep_top_k": 100, "top_k": 100, "num_classes": 6}
    said = {"background_label_id": 0, "code_type": CENTER_SIZE, "confidence_threshold": 0.01}
    layers.append(Layer("detection_out", "DetectionOutput", (), {**said, **test, "nms_threshold": 0.45}))
    numbers = {key: test[key] for key in TEST}
    assert_finds_what_the_net_finds(layers, tmp_path / "narrow.caffemodel", numbers)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_detections_equal_those_of_the_published_net(name: str, tmp_path: Path) -> None:
    layers = net(name)
    test: dict[str, Any] = {**TEST, **(MORE if "refinedet" in name else {})}
    arguments: dict[str, Any] = {}
    if "resnet101" in name:  # the same tensors at 320 pixels, and without the soft-NMS of the tests on COCO
        layers = tuple(caffe_nets.refinedet(320, 81, "resnet101"))
        arguments = {"soft_nms": None, "threshold": 0.01, "candidates": 1000}
    assert_finds_what_the_net_finds(layers, tmp_path / "released.caffemodel", test, **arguments)


@pytest.mark.slow
def test_a_large_file_takes_about_its_size_in_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    values = {"fc": [np.ones((6000, 10_000), np.float32)]}  # 240 MB
    path = tmp_path / "large.caffemodel"
    path.write_bytes(caffe_nets.caffemodel("large", [Layer("fc", "InnerProduct")], values))
    del values
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(path).shapes == {"fc.weight": (6000, 10_000)}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss <= before + 300_000


def a_trunk(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A backbone without memory, and Caffe's layers for it, each filled with a number of its own."""
    reduced = name.startswith("vgg")
    trunk = caffe_nets.Net(224)
    if reduced:
        trunk.vgg(dilated=True)
    else:
        trunk.resnet((3, 4, 6 if name == "resnet50" else 23, 3), numbered=name != "resnet50")
    shapes = a_source(trunk.layers).shapes
    options = {} if reduced else {"stride_first": True, "pool": "ceil"}
    with without_values():
        backbone = backbones.build(name, options=options)
    values = enumerate(shapes.items())
    return backbone, {key: torch.full((), float(number)).expand(shape) for number, (key, shape) in values}


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "resnet101"])
def test_a_trunk_takes_caffes_layers(name: str) -> None:
    backbone, weights = a_trunk(name)
    adapted = backbone.adapt_weights({**weights, "fc1000.weight": torch.zeros(1), "conv9_2.weight": torch.zeros(1)})
    own = {key: tuple(value.shape) for key, value in backbone.state_dict().items() if "num_batches" not in key}
    own.pop("scales.conv4_3.weight", None)
    assert {key: tuple(value.shape) for key, value in adapted.items()} == own
    assert len({float(value.flatten()[0]) for value in adapted.values()}) == len(own)
    if name == "resnet50":
        assert adapted["layer3.5.conv2.weight"].max() == weights["res4f_branch2b.weight"].max()
        moved = backbone.adapt_weights({**weights, "conv1.bias": torch.full((64,), 2.0)})["bn1.running_mean"]
        assert float(moved[0]) == float(weights["bn_conv1.running_mean"][0]) - 2
        with without_values():
            other = backbones.build("resnet50")
        with pytest.warns(UserWarning, match="stride_first: true, pool: ceil"):
            other.adapt_weights(weights)


def test_a_classifiers_layers_are_subsampled() -> None:
    backbone, weights = a_trunk("vgg16")
    whole = {"fc6.weight": torch.arange(25088.0).expand(4096, 25088), "fc6.bias": torch.arange(4096.0)}
    whole |= {"fc7.weight": torch.arange(4096.0).expand(4096, 4096), "fc7.bias": torch.arange(4096.0)}
    adapted = backbone.adapt_weights({**weights, **whole})
    assert adapted["fc6.0.weight"].shape == (1024, 512, 3, 3)
    assert adapted["fc6.0.weight"][5, 2, 0].tolist() == [98, 101, 104]
    assert adapted["fc7.0.bias"][:3].tolist() == [0, 4, 8]
