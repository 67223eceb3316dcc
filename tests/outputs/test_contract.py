"""What holds for every extra output of the table, whatever it predicts, in every detector."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from singleshot.detectors import BUILDERS, Detector
from singleshot.detectors.parts import restore_argument, store_argument
from singleshot.errors import UserError
from singleshot.outputs import OUTPUTS, factors, find_output
from singleshot.outputs.output import ExtraOutput, Factor
from singleshot.postprocess import ClassScores, vary
from singleshot.weights.checkpoint import load, save

every_output = pytest.mark.parametrize("name", list(OUTPUTS))
every_builder = pytest.mark.parametrize("builder", list(BUILDERS))
PICTURES = [torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def target(*boxes: list[float]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": torch.arange(len(boxes)) % 3}


TARGETS = [target([9, 9, 40, 50], [30, 8, 70, 30]), target()]


def built(builder: str, **arguments: Any) -> Detector:
    torch.manual_seed(0)
    sizes = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "image_size": (64, 128)}
    if builder != "ssd":
        sizes["channels"] = 32
    return BUILDERS[builder](num_classes=3, **sizes, **arguments).train()


def with_output(builder: str, name: str) -> tuple[Detector, ExtraOutput]:
    """A detector that has the output, and the output; one that has it anyway need not be told."""
    output: ExtraOutput = find_output(name)().output()
    anyway = builder == "iou_retinanet" and name == "IoUHead"
    return built(builder, **({} if anyway else {"outputs": [name]})), output


@every_output
def test_names(name: str) -> None:
    kind = find_output(name)
    assert kind.__name__ == name
    assert dataclasses.is_dataclass(kind)
    output = kind().output()
    assert output == kind().output()
    assert output.key not in ("class_logits", "box_deltas")
    assert output.name not in ("classification", "box")
    if output.factor is not None:
        assert output.factor.name.endswith("_alpha")
        assert factors()[output.factor.name] == (name, output.factor)


def test_no_two_have_one_name() -> None:
    made = [find_output(name)().output() for name in OUTPUTS]
    assert len({output.key for output in made}) == len({output.name for output in made}) == len(made)
    assert len(factors()) == sum(output.factor is not None for output in made)


@every_output
def test_there_and_back_through_json(name: str) -> None:
    plain = store_argument(find_output(name)())
    assert plain["type"] == name
    assert restore_argument(json.loads(json.dumps(plain))) == find_output(name)()


@every_builder
@every_output
def test_trains_in_every_detector_and_travels_in_a_file(builder: str, name: str, tmp_path: Path) -> None:
    detector, output = with_output(builder, name)
    for truth in (TARGETS, [target(), target()]):
        detector.zero_grad()
        losses = detector(PICTURES, truth)
        assert (losses[output.name] > 0) == (truth is TARGETS)
        assert losses[output.name].isfinite()
        sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        own = [p for key, p in detector.named_parameters() if output.key in key]
        assert own
        assert any(p.grad is not None and p.grad.any() for p in own) == (truth is TARGETS)
        assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)
    save(detector, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.postprocess == detector.postprocess
    with torch.no_grad():
        for found, expected in zip(loaded(PICTURES), detector.eval()(PICTURES), strict=True):
            assert all(torch.equal(found[key], expected[key]) for key in found)


@every_builder
@every_output
def test_counts_in_the_score_by_its_number(builder: str, name: str) -> None:
    detector, output = with_output(builder, name)
    raw = detector.eval().raw(PICTURES)
    if output.factor is None:
        return
    own = detector.postprocess.scores(raw.predictions)
    step = {alpha: vary(detector.postprocess, output.factor.name, alpha) for alpha in (1.0, 0.0, 0.4, None)}
    scores = {alpha: one.scores(raw.predictions) for alpha, one in step.items()}
    rest = tuple(one for one in detector.postprocess.scores.outputs if one.name != output.name)  # type: ignore[attr-defined]
    without = ClassScores(detector.criterion.terms["classification"], rest)  # type: ignore[arg-type]
    assert torch.equal(scores[1.0], without(raw.predictions))
    assert not torch.equal(scores[None], scores[1.0])
    for one in (own, *scores.values()):
        assert one.shape == scores[1.0].shape
        assert ((one >= 0) & (one <= 1)).all()
    assert vary(step[0.4], output.factor.name, output.factor.alpha) == detector.postprocess


@every_output
def test_other_anchors_may_say_anything(name: str) -> None:
    detector, output = with_output("ssd", name)
    raw = detector.raw(PICTURES)
    matched = detector.matched(raw, PICTURES, TARGETS)
    assert matched.positive.any()
    expected = output.loss(raw.predictions, matched)
    for wild in (torch.inf, -torch.inf, torch.nan, 1e30):
        changed = {
            key: torch.where(matched.positive[..., None], value.detach(), wild).requires_grad_()
            for key, value in raw.predictions.items()
        }
        loss: Any = output.loss(changed, matched)
        assert loss == expected
        loss.backward()
        assert all(value.grad is None or value.grad.isfinite().all() for value in changed.values())


@every_builder
def test_all_outputs_together_and_each_by_its_number(builder: str) -> None:
    names = [name for name in OUTPUTS if not (builder == "iou_retinanet" and name == "IoUHead")]
    detector = built(builder, outputs=names)
    assert set(detector.postprocess.scores.alphas) == set(factors())  # type: ignore[attr-defined]
    step = detector.postprocess
    for number in factors():
        step = vary(step, number, 1.0)
    raw = detector.eval().raw(PICTURES)
    plain = ClassScores(detector.criterion.terms["classification"])  # type: ignore[arg-type]
    assert torch.equal(step.scores(raw.predictions), plain(raw.predictions))


class TestArguments:
    def test_a_name_plain_data_or_the_choices(self) -> None:
        kind = find_output("Centreness")
        forms: list[Any] = ["Centreness", {"type": "Centreness"}, kind()]
        assert len({built("ssd", outputs=[one]).postprocess.scores for one in forms}) == 1
        chosen = [{"type": "Centreness", "alpha": 0.3}, kind(alpha=0.3)]
        for one in chosen:
            scores: Any = built("ssd", outputs=[one]).postprocess.scores
            assert scores.alphas == {"centreness_alpha": 0.3}

    def test_iou_head_is_one_of_them(self) -> None:
        by_head, by_list = (
            built("ssd", iou_head={"alpha": 0.4}),
            built("ssd", outputs=[{"type": "IoUHead", "alpha": 0.4}]),
        )
        assert by_head.postprocess == by_list.postprocess
        assert by_head.criterion.terms == by_list.criterion.terms
        one, other = by_head.state_dict(), by_list.state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"outputs": ["centreness"]}, "outputs: unknown output 'centreness'; did you mean Centreness?"),
            ({"outputs": ["Depth"]}, "outputs: unknown output 'Depth'; expected one of IoUHead, Centreness"),
            ({"outputs": [{"type": "FocalLoss"}]}, "outputs: unknown output 'FocalLoss'"),
            ({"outputs": [{"alpha": 0.4}]}, "outputs: unknown output None"),
            (
                {"outputs": [3]},
                "outputs: expected names such as Centreness, or {'type': 'IoUHead', 'alpha': 0.4}, got 3",
            ),
            ({"outputs": "Centreness"}, "outputs must be a list"),
            (
                {"outputs": ["Centreness", "Centreness"]},
                "outputs: expected each output once, got centreness, centreness",
            ),
            ({"outputs": ["IoUHead"], "iou_head": True}, "expected each output once, got iou, iou"),
            ({"outputs": [{"type": "Centreness", "alpha": 2}]}, "centreness_alpha must be a number from 0"),
            ({"outputs": [{"type": "Centreness", "alpha": "0.5"}]}, "centreness_alpha must be a number from 0"),
            ({"outputs": [{"type": "Centreness", "colour": 1}]}, "part Centreness: .*colour"),
        ],
    )
    def test_what_is_refused(self, given: dict[str, Any], said: str) -> None:
        with pytest.raises(UserError, match=said):
            built("ssd", **given)

    def test_a_number_of_an_output_that_is_not_there(self) -> None:
        with pytest.raises(
            UserError, match=r"centreness_alpha needs a predicted centreness, .*outputs '\[Centreness\]'"
        ):
            vary(built("ssd").postprocess, "centreness_alpha", 0.5)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "0.5", True])
def test_alphas_that_are_none(alpha: Any) -> None:
    with pytest.raises(UserError, match="depth_alpha must be a number from 0 .the predicted depth alone. to 1"):
        Factor("depth_alpha", alpha)
