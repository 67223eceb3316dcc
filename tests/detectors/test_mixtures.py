"""Ideas of one paper in the detector of another: what the contract (test_contract.py) does not say of them."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from singleshot.cli import main
from singleshot.cli.train import choose_recipe, parse
from singleshot.detectors import Detector, find_builder, refinedet
from singleshot.detectors.detector import Raw
from singleshot.detectors.models import count_parameters
from singleshot.detectors.parts import restore_argument
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.focal import FocalLoss
from singleshot.losses.regression import L1, GIoULoss, SmoothL1
from singleshot.necks import FPN, TransferConnection
from singleshot.outputs.iou import IoUHead
from singleshot.postprocess import ClassScores
from singleshot.refiner import DELTAS, LOGITS, AnchorRefiner
from singleshot.weights.checkpoint import load

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "new_detector.py"
PAGE = ROOT / "docs" / "new_detector.md"
refined_retinanet: Any = runpy.run_path(str(EXAMPLE))["refined_retinanet"]

REFINED = {"anchor_classification", "anchor_box"}
OWN = "new_detector:refined_retinanet"
SMALL = {"ssd": "--arguments.backbone_options '{width: 0.25}'"}
SMALL["refinedet"] = SMALL["ssd"] + " --arguments.channels 32"
SMALL[OWN] = "--arguments.channels 64"

# Name: the builder, what the command line says beside it, and the names of the losses.
MIXTURES: dict[str, tuple[str, str, set[str]]] = {
    "ssd_focal": ("ssd", "--arguments.classification '{type: FocalLoss, gamma: 1.0}'", set()),
    "ssd_iou": ("ssd", "--arguments.iou_head true", {"iou"}),
    "refinedet_focal_iou": (
        "refinedet",
        "--arguments.classification '{type: FocalLoss}' --arguments.iou_head '{alpha: 0.4}'",
        {"iou", *REFINED},
    ),
    "refinedet_fpn": ("refinedet", "--arguments.neck fpn", REFINED),
    "refinedet_attention": ("refinedet", "--arguments.attention se", REFINED),
    "refined_retinanet": (OWN, "--arguments.theta 0.95", REFINED),
}


def check_parts(name: str, detector: Detector) -> None:
    """The detector is the mixture that its name says."""
    loss = detector.criterion.terms["classification"]
    expected = {"ssd_focal": FocalLoss(gamma=1.0), "refinedet_focal_iou": FocalLoss(), "refined_retinanet": FocalLoss()}
    assert loss == expected.get(name, SoftmaxLoss())
    scores = detector.postprocess.scores
    if name.endswith("_iou"):
        head = IoUHead(0.4 if name == "refinedet_focal_iou" else 0.5)
        assert scores == ClassScores(loss, (head.output(),))
    necks = {"refinedet_fpn": FPN, "refined_retinanet": FPN}
    if not name.startswith("ssd"):
        assert isinstance(detector.neck, necks.get(name, TransferConnection))
        assert isinstance(detector.refiner, AnchorRefiner)
        assert detector.refiner.theta == (0.95 if name == "refined_retinanet" else 0.99)
    assert any("attention" in key for key in detector.state_dict()) == (name == "refinedet_attention")


@pytest.mark.parametrize("builder", ["ssd", "refinedet"])
@pytest.mark.parametrize(("box_loss", "kind"), [("smooth_l1", SmoothL1), ("l1", L1), ("giou", GIoULoss)])
def test_box_losses(builder: str, box_loss: str, kind: type) -> None:
    """RetinaNet's are in test_retinanet.py; RefineDet's first module keeps its own."""
    with torch.device("meta"):
        given = {"num_classes": 2, "backbone": "mobilenetv2", "image_size": 64}
        detector = find_builder(builder)(**given, box_loss=box_loss, beta=0.5)
        assert find_builder(builder)(**given).criterion.terms["box"].beta == 1
    term = detector.criterion.terms["box"]
    assert isinstance(term, kind)
    assert getattr(term, "beta", 0.5) == 0.5
    if detector.refiner is not None:
        assert detector.refiner.criterion.terms["anchor_box"] == SmoothL1(key=DELTAS)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("ssd_iou", "refined_retinanet") else pytest.mark.slow) for n in MIXTURES]
)
def test_trains_from_the_command_line_and_travels_in_a_file(
    name: str, tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    builder, arguments, extra = MIXTURES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command line adds this folder
    monkeypatch.delitem(sys.modules, "new_detector", raising=False)
    own = ()
    if builder == OWN:
        shutil.copy(EXAMPLE, tmp_path)
        own = ("--builder", builder)
    words = f"--builder {builder} {SMALL[builder]} {arguments} --arguments.image_size 64 --out run --device cpu"
    words += " --schedule.epochs null --schedule.steps 3 --batch-size 2 --data.workers 0 --seed 0"
    assert main(["train", str(tiny_voc), *shlex.split(words), "--json"]) == 0, capsys.readouterr().err
    document = json.loads(capsys.readouterr().out)
    logged = [line for line in map(json.loads, Path("run/log.jsonl").read_text().splitlines()) if "losses" in line]
    assert logged
    for line in logged:
        assert line["losses"].keys() >= {"classification", "box", *extra}

    build = find_builder(builder) if own else None
    detector, again = (load(document["last"], builder=build) for _ in range(2))
    assert detector.class_names == ("cell", "other")
    check_parts(name, detector)
    (found,), (same,) = (one([torch.rand(3, 72, 96, generator=seeded())]) for one in (detector, again))
    assert all(torch.equal(found[key], same[key]) for key in found)
    if own:  # a file names no code to run
        assert main(["evaluate", document["last"], str(tiny_voc)]) == 2
        assert "--builder" in capsys.readouterr().err


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_refinedet(**arguments: Any) -> Detector:
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone_options": {"width": 0.25}, "channels": 32, "image_size": 64, **arguments}
    return refinedet(num_classes=3, backbone="mobilenetv2", **options).eval()


# ------------------------------------------------------------------ attention
def test_attention_weighs_the_transferred_channels() -> None:
    plain, weighed = small_refinedet(), small_refinedet(attention="se")
    kept = weighed.load_state_dict(plain.state_dict(), strict=False)
    assert not kept.unexpected_keys
    assert all(key.startswith("neck.attention.") for key in kept.missing_keys)

    neck: Any = weighed.neck
    seen: list[tuple[Tensor, Tensor]] = []
    for block in neck.attention:
        block.register_forward_hook(lambda _, given, result: seen.append((given[0], result)))
    pixels = torch.rand(2, 3, 64, 64, generator=seeded())
    with torch.no_grad():
        before, after = plain.network(pixels), weighed.network(pixels)
    assert len(seen) == 4
    for given, result in seen:
        factor = result / given  # 0 / 0 where a feature is 0
        low, high = factor.nan_to_num(torch.inf).amin((2, 3)), factor.nan_to_num(-torch.inf).amax((2, 3))
        torch.testing.assert_close(low, high)  # one weight for a channel of an image
        assert ((low > 0) & (high < 1)).all()
        assert len(low.unique()) > low.shape[1]  # which depends on the image
    for name in after:
        same = name in (LOGITS, DELTAS)  # the refiner reads the maps before the neck
        assert torch.equal(before[name], after[name]) == same

    with torch.no_grad():  # every weight 1: as without
        for block in neck.attention:
            block.excite.weight.zero_()
            block.excite.bias.fill_(100.0)
        open_ = weighed.network(pixels)
    assert all(torch.equal(before[name], open_[name]) for name in before)


@pytest.mark.parametrize(("channels", "hidden"), [(256, 16), (32, 8)])
def test_parameters_of_the_attention(channels: int, hidden: int) -> None:
    with torch.device("meta"):
        counts = [
            count_parameters(refinedet(num_classes=20, channels=channels, attention=attention))
            for attention in ("se", None)
        ]
    assert counts[0] - counts[1] == 4 * (channels * hidden + hidden + hidden * channels + channels)


# ------------------------------------------------------------------ RetinaNet with a refiner
PICTURES = [torch.rand(3, 64, 64, generator=seeded(seed)) for seed in range(2)]
BOX = torch.tensor([[11.0, 13.0, 30.0, 27.0]])
TARGETS = [{"boxes": BOX, "labels": torch.tensor([1])}, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}]


@pytest.fixture(scope="module")
def trained() -> Detector:
    """Untrained, but without the prior, so that every anchor finds something."""
    torch.manual_seed(0)
    detector: Detector = refined_retinanet(num_classes=3, image_size=64).eval()
    for key, parameter in detector.named_parameters():
        if key.endswith("class_logits.bias"):
            torch.nn.init.zeros_(parameter)
    return detector


@pytest.fixture
def raw(trained: Detector) -> Raw:
    with torch.no_grad():
        return trained.raw(PICTURES)


def saying(detector: Detector, raw: Raw, **predictions: Tensor) -> Raw:
    """The same batch, as if the network had said something else."""
    changed = {**raw.predictions, **predictions}
    anchors, keep = detector.refined(changed, raw.base)
    return replace(raw, predictions=changed, anchors=anchors, keep=keep)


def objectness(raw: Raw, rejected: Tensor) -> Tensor:
    """Logits of (object, background) [B, A, 2]: sure of background where `rejected` [A], undecided elsewhere."""
    sure, undecided = torch.tensor([-10.0, 10.0]), torch.zeros(2)
    return torch.where(rejected[:, None], sure, undecided).expand(len(PICTURES), -1, -1)


def losses_of(detector: Detector, raw: Raw) -> dict[str, Tensor]:
    return detector._losses(raw, detector._truth(PICTURES, TARGETS))


def test_losses_of_both_modules(trained: Detector, raw: Raw) -> None:
    losses = losses_of(trained, raw)
    assert set(losses) == {"anchor_classification", "anchor_box", "classification", "box"}
    assert all(loss > 0 for loss in losses.values())


def test_rejected_anchors_find_nothing(trained: Detector, raw: Raw) -> None:
    rejected = torch.arange(len(raw.base.boxes)) % 2 == 0
    filtered = saying(trained, raw, **{LOGITS: objectness(raw, rejected)})
    assert filtered.keep is not None
    assert torch.equal(filtered.keep, ~rejected.expand(2, -1))
    # As if those that are rejected had said that there is nothing.
    silent = torch.where(rejected[:, None], -100.0, raw.predictions["class_logits"])
    everything = saying(trained, raw, **{LOGITS: objectness(raw, torch.zeros_like(rejected))})
    assert everything.keep is not None
    assert everything.keep.all()
    expected = trained.detections(saying(trained, everything, class_logits=silent))
    found, all_found = trained.detections(filtered), trained.detections(everything)
    for one, other, unfiltered in zip(found, expected, all_found, strict=True):
        assert len(one["scores"])
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert not torch.equal(one["boxes"], unfiltered["boxes"])
    nothing = saying(trained, raw, **{LOGITS: objectness(raw, torch.ones_like(rejected))})
    assert [len(one["boxes"]) for one in trained.detections(nothing)] == [0, 0]


def test_rejected_negatives_teach_nothing_and_rejected_positives_do(trained: Detector, raw: Raw) -> None:
    positive = trained.matched(raw, PICTURES, TARGETS).positive
    rejected = torch.ones(len(raw.base.boxes), dtype=torch.bool)
    rejected[::2] = False
    filtered = saying(trained, raw, **{LOGITS: objectness(raw, rejected)})

    def loss(where: Tensor) -> Tensor:
        """Of the classes, when the anchors at `where` [B, A] are quite wrong."""
        wrong = torch.where(where[..., None], 9.0, raw.predictions["class_logits"])
        return losses_of(trained, saying(trained, filtered, class_logits=wrong))["classification"]

    usual = loss(torch.zeros_like(positive))
    assert torch.equal(loss(rejected & ~positive), usual)
    assert loss(~rejected & ~positive) > usual
    assert (rejected & positive).any()
    assert not torch.equal(loss(rejected & positive), usual)


def test_boxes_are_decoded_from_the_refined_anchors(trained: Detector, raw: Raw) -> None:
    still = saying(trained, raw, box_deltas=torch.zeros_like(raw.predictions["box_deltas"]))
    assert trained.refiner is not None
    moved = trained.refiner.coder.decode(raw.predictions[DELTAS], raw.base.boxes)
    assert torch.equal(still.anchors.boxes, moved)
    for own, refined in zip(trained.detections(still), moved.clamp(0, 64), strict=True):
        assert len(own["boxes"])
        distance = (own["boxes"][:, None] - refined).abs().amax(-1)
        assert distance.amin(1).max() < 1e-3
        regular = (own["boxes"][:, None] - raw.base.boxes.clamp(0, 64)).abs().amax(-1)
        assert regular.amin(1).max() > 0.5


def test_objects_are_matched_with_the_refined_anchors(trained: Detector, raw: Raw) -> None:
    """An anchor far from the object is its own, and has nothing more to learn of its box, once moved onto it."""
    place = int((raw.base.boxes - torch.tensor([48.0, 48, 63, 63])).abs().sum(1).argmin())
    target = trained.preprocess.targets(trained._truth(PICTURES, TARGETS), raw.batch)
    assert trained.refiner is not None
    # All others become points beyond the image, that overlap nothing.
    away = trained.refiner.coder.encode(torch.tensor([200.0, 200, 200, 200]), raw.base.boxes).expand(2, -1, -1).clone()
    at_rest = saying(trained, raw, **{DELTAS: torch.zeros_like(away)})
    assert not trained.matched(at_rest, PICTURES, TARGETS).positive[0, place]
    away[:, place] = trained.refiner.coder.encode(BOX[0], raw.base.boxes[place])
    still = torch.zeros_like(away)
    moved = saying(trained, raw, **{DELTAS: away}, box_deltas=still)
    matched = trained.matched(moved, PICTURES, TARGETS)
    assert matched.positive.nonzero().tolist() == [[0, place]]
    torch.testing.assert_close(matched.anchors[0, place], target.boxes[0, 0], atol=1e-3, rtol=0)
    assert losses_of(trained, moved)["box"] < 1e-6
    nudged = still.clone()
    nudged[0, place, 0] = 1.0
    loss = losses_of(trained, saying(trained, moved, box_deltas=nudged))["box"]
    assert loss == pytest.approx(0.5 / 2, abs=1e-3)  # smooth L1 of 1; the image without objects counts as a positive


def test_the_second_module_leaves_the_first_alone() -> None:
    torch.manual_seed(0)
    detector: Detector = refined_retinanet(num_classes=3, image_size=64).train()
    losses = detector(PICTURES, TARGETS)
    (losses["classification"] + losses["box"]).backward()
    assert detector.refiner is not None
    assert not any(p.grad is not None and p.grad.any() for p in detector.refiner.parameters())


# ------------------------------------------------------------------ the page and the example
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(runpy.run_path(str(EXAMPLE))["main"](steps=1)) == 1
    assert "saved, loaded and equal" in capsys.readouterr().out


def test_the_builder_has_at_most_25_lines() -> None:
    """Between its docstring and its end, by `ruff format` and 120 characters a line."""
    (builder,) = (
        node
        for node in ast.parse(EXAMPLE.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "refined_retinanet"
    )
    assert ast.get_docstring(builder)
    assert builder.end_lineno is not None
    assert builder.body[0].end_lineno is not None
    assert builder.end_lineno - builder.body[0].end_lineno <= 25


LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("singleshot train") and "--arguments." in line and OWN not in line
]


@pytest.mark.parametrize("line", LINES)
def test_mixtures_of_the_page_can_be_built(line: str) -> None:
    recipe = choose_recipe(parse(shlex.split(line)[2:]))
    with torch.device("meta"):
        detector = find_builder(recipe.builder)(num_classes=3, **restore_argument(recipe.arguments))
    written = [word for word in shlex.split(line) if word.startswith("--arguments.")]
    assert {word.split(".")[1] for word in written} <= detector.arguments.keys()


def test_the_page_has_mixtures() -> None:
    assert len(LINES) >= 8
