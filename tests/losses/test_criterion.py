"""One matching, one normaliser."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
import torch
import torch.distributed as dist
from torch import Tensor

from singleshot import structures
from singleshot.coders import DeltaCoder
from singleshot.losses import criterion as module
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.criterion import Criterion, sum_over_ranks
from singleshot.losses.quality import IoUQuality
from singleshot.losses.quality_focal import QualityFocalLoss
from singleshot.losses.regression import SmoothL1
from singleshot.losses.varifocal import VarifocalLoss
from singleshot.matchers import IoUMatcher
from singleshot.ops.boxes import aligned_iou
from singleshot.structures import Anchors, Targets

CRITERION = Criterion(IoUMatcher(), {"classification": SoftmaxLoss(), "box": SmoothL1()}, DeltaCoder())


def grid_boxes(count: int, generator: torch.Generator) -> Tensor:
    low = torch.randint(0, 10, (count, 2), generator=generator)
    return torch.cat([low, low + torch.randint(1, 8, (count, 2), generator=generator)], 1).float()


def case(seed: int, counts: tuple[int, ...] = (3, 0, 5)) -> tuple[dict[str, Tensor], Anchors, list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(seed)
    predictions = {
        "class_logits": torch.randn(len(counts), 50, 4, generator=generator, requires_grad=True),
        "box_deltas": torch.randn(len(counts), 50, 4, generator=generator, requires_grad=True),
    }
    targets = [
        {"boxes": grid_boxes(n, generator), "labels": torch.randint(0, 3, (n,), generator=generator)} for n in counts
    ]
    return predictions, Anchors(grid_boxes(50, generator), (50,)), targets


@pytest.mark.parametrize("seed", range(4))
def test_equals_equation_1(seed: int) -> None:
    predictions, anchors, targets = case(seed)
    losses = CRITERION(predictions, anchors, Targets.from_list(targets))
    expected = reference.multibox_loss(
        predictions["class_logits"].tolist(),
        predictions["box_deltas"].tolist(),
        anchors.boxes.tolist(),
        [target["boxes"].tolist() for target in targets],
        [target["labels"].tolist() for target in targets],
    )
    assert (losses["classification"].item(), losses["box"].item()) == pytest.approx(expected, rel=1e-4)


def test_worked_by_hand() -> None:
    """Two positives and their six hardest negatives, divided by two."""
    box = [0.0, 0.0, 10.0, 10.0]
    boxes = torch.tensor([box, box, *([[50.0, 50.0, 60.0, 60.0]] * 8)])
    predictions = {"class_logits": torch.zeros(1, 10, 2), "box_deltas": torch.zeros(1, 10, 4)}
    targets = Targets.from_list([{"boxes": torch.tensor([[1.0, 0.0, 11.0, 10.0]]), "labels": torch.tensor([0])}])
    losses = CRITERION(predictions, Anchors(boxes, (10,)), targets)
    torch.testing.assert_close(losses["classification"], torch.tensor(2.0).log() * 8 / 2)
    torch.testing.assert_close(losses["box"], torch.tensor(0.5))  # dx is off by 1 / 10 / 0.1 = 1 twice, over two


def test_no_object_in_the_batch_gives_exactly_0_with_finite_gradients() -> None:
    predictions, anchors, targets = case(0, counts=(0, 0))
    losses = CRITERION(predictions, anchors, Targets.from_list(targets))
    assert losses["classification"] == 0
    assert losses["box"] == 0
    gradients = torch.autograd.grad(sum(losses.values()), list(predictions.values()))  # type: ignore[arg-type]
    assert all((gradient == 0).all() for gradient in gradients)


def test_crowd_only_is_no_object() -> None:
    predictions, anchors, _ = case(0, counts=(1,))
    crowd = {"boxes": anchors.boxes[:1], "labels": torch.tensor([0]), "iscrowd": torch.tensor([True])}
    assert CRITERION(predictions, anchors, Targets.from_list([crowd]))["classification"] == 0


def test_the_normaliser_counts_the_whole_batch() -> None:
    """Losses of a batch are the mean of its images' losses weighted by their positives, not the plain mean."""
    predictions, anchors, targets = case(1)
    together = CRITERION(predictions, anchors, Targets.from_list(targets))
    total, positives = 0.0, 0
    for i, target in enumerate(targets):
        one = Targets.from_list([target])
        number = int(IoUMatcher()(anchors, one).positive.sum())
        loss = CRITERION({name: value[i : i + 1] for name, value in predictions.items()}, anchors, one)
        total, positives = total + loss["classification"].item() * number, positives + number
    assert together["classification"].item() == pytest.approx(total / positives, rel=1e-5)


def test_two_ranks_average_to_one_rank_with_both_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, anchors, targets = case(2, counts=(4, 0))
    together = CRITERION(predictions, anchors, Targets.from_list(targets))
    positives = sum(int(IoUMatcher()(anchors, Targets.from_list([target])).positive.sum()) for target in targets)
    monkeypatch.setattr(module, "sum_over_ranks", lambda count: (torch.tensor(positives), 2))
    ranks = [
        CRITERION({name: value[i : i + 1] for name, value in predictions.items()}, anchors, Targets.from_list([target]))
        for i, target in enumerate(targets)
    ]
    for name, loss in together.items():
        torch.testing.assert_close(sum(rank[name] for rank in ranks) / 2, loss)
    assert ranks[1]["box"] == 0  # the rank without objects


def test_negatives_outside_of_keep_do_not_count_but_positives_do() -> None:
    predictions, anchors, targets = case(3)
    truth = Targets.from_list(targets)
    nothing_kept = torch.zeros(3, 50, dtype=torch.bool)
    matched = IoUMatcher()(anchors, truth)
    losses = CRITERION(predictions, anchors, truth, nothing_kept)
    logits = predictions["class_logits"]
    expected = torch.nn.functional.cross_entropy(logits[matched.positive], matched.labels[matched.positive])
    torch.testing.assert_close(losses["classification"], expected)
    torch.testing.assert_close(losses["box"], CRITERION(predictions, anchors, truth)["box"])


def test_half_precision_predictions_are_not_needed_losses_are_float32() -> None:
    predictions, anchors, targets = case(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = CRITERION(predictions, anchors, Targets.from_list(targets))
    outside = CRITERION(predictions, anchors, Targets.from_list(targets))
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, outside[name])


class TestSumOverRanks:
    def test_one_process_without_a_group(self) -> None:
        count = torch.tensor(7)
        total, ranks = sum_over_ranks(count)
        assert total is count
        assert ranks == 1

    def test_a_group_of_one(self, tmp_path: Path) -> None:
        if not dist.is_available() or dist.is_initialized():
            pytest.skip("needs a process group of its own")
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
        try:
            assert sum_over_ranks(torch.tensor(7)) == (torch.tensor(7), 1)
        finally:
            dist.destroy_process_group()

    def test_several_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module.dist, "is_initialized", lambda: True)
        monkeypatch.setattr(module.dist, "get_world_size", lambda: 4)
        monkeypatch.setattr(module.dist, "all_reduce", lambda count: count.mul_(4))
        count = torch.tensor(7)
        assert sum_over_ranks(count) == (torch.tensor(28), 4)
        assert count == 7  # what was given stays as it is


def test_retinanets_normaliser_counts_each_image_at_least_once() -> None:
    predictions, anchors, targets = case(1)
    few = Criterion(CRITERION.matcher, CRITERION.terms, CRITERION.coder)
    each = Criterion(CRITERION.matcher, CRITERION.terms, CRITERION.coder, at_least_one=True)
    truth = Targets.from_list(targets)
    positives = CRITERION.matcher(anchors, truth).positive.sum(1)
    assert positives.tolist()[1] == 0
    ratio = float(positives.sum() / positives.clamp(min=1).sum())
    assert ratio < 1
    plain, counted = few(predictions, anchors, truth), each(predictions, anchors, truth)
    for name in plain:
        torch.testing.assert_close(counted[name], plain[name] * ratio)


def test_a_batch_without_objects_still_teaches_background() -> None:
    predictions, anchors, _ = case(2)
    empty = Targets.from_list([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 3)
    everything = lambda found, matched: found["class_logits"].square().sum()  # noqa: E731
    losses = Criterion(IoUMatcher(), {"all": everything}, CRITERION.coder, at_least_one=True)(
        predictions, anchors, empty
    )
    torch.testing.assert_close(losses["all"], predictions["class_logits"].square().sum() / 3)
    assert Criterion(IoUMatcher(), {"all": everything}, CRITERION.coder)(predictions, anchors, empty)["all"] == 0


def test_a_term_may_bring_its_own_number() -> None:
    predictions, anchors, targets = case(0)
    total = predictions["class_logits"].sum()
    terms = {
        "own": lambda found, matched: (found["class_logits"].sum(), torch.tensor(7.0)),
        "none": lambda found, matched: (found["class_logits"].sum(), torch.tensor(0.0)),
    }
    losses = Criterion(IoUMatcher(), terms, CRITERION.coder)(predictions, anchors, Targets.from_list(targets))
    torch.testing.assert_close(losses["own"], total / 7)
    assert losses["none"] == 0


def test_an_own_number_is_summed_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sum_over_ranks", lambda count: (count + 5, 2))
    predictions, anchors, targets = case(0)
    terms = {"own": lambda found, matched: (torch.tensor(30.0), torch.tensor(7.0))}
    losses = Criterion(IoUMatcher(), terms, CRITERION.coder)(predictions, anchors, Targets.from_list(targets))
    assert losses["own"] == pytest.approx(30 * 2 / 12)


def test_what_a_match_says_of_boxes() -> None:
    predictions, anchors, targets = case(0)
    matched = CRITERION.match(anchors, Targets.from_list(targets))
    assert matched.coder is CRITERION.coder
    torch.testing.assert_close(matched.decoded(matched.encoded())[matched.positive], matched.boxes[matched.positive])
    wild = torch.where(matched.positive[..., None], predictions["box_deltas"], torch.nan)
    assert torch.equal(matched.decoded(wild)[~matched.positive], anchors.boxes.expand(3, -1, -1)[~matched.positive])
    iou = matched.iou(predictions["box_deltas"])
    boxes = CRITERION.coder.decode(predictions["box_deltas"], anchors.boxes).tolist()
    assert matched.positive.any()
    for i, a in matched.positive.nonzero().tolist():
        assert iou[i, a].item() == pytest.approx(reference.iou(boxes[i][a], matched.boxes[i, a].tolist()), abs=1e-5)
    assert (iou[~matched.positive] == 0).all()
    assert not iou.requires_grad


def test_the_iou_is_computed_once_and_only_when_a_term_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(structures, "aligned_iou", lambda *boxes: calls.append(1) or aligned_iou(*boxes))
    predictions, anchors, targets = case(0)
    truth = Targets.from_list(targets)
    CRITERION(predictions, anchors, truth)
    assert not calls
    terms = {"quality": QualityFocalLoss(), "vari": VarifocalLoss(), "iou": IoUQuality(key="iou_logits")}
    criterion = Criterion(IoUMatcher(), terms, CRITERION.coder)
    predictions["iou_logits"] = torch.zeros(3, 50, 1)
    predictions["class_logits"] = predictions["class_logits"][..., :3]
    criterion(predictions, anchors, truth)
    assert len(calls) == 1
    predictions["box_deltas"] = predictions["box_deltas"] + 0.1
    criterion(predictions, anchors, truth)  # another step
    assert len(calls) == 2


def test_other_boxes_have_another_iou() -> None:
    predictions, anchors, targets = case(0)
    matched = CRITERION.match(anchors, Targets.from_list(targets))
    first, second = (matched.iou(deltas) for deltas in (predictions["box_deltas"], matched.encoded()))
    assert (second[matched.positive] > 0.999).all()
    assert (first[matched.positive] < 0.999).any()


def test_matches_without_a_coder_say_where_it_comes_from() -> None:
    _, anchors, targets = case(0)
    with pytest.raises(ValueError, match="no coder: get it from Criterion.match"):
        IoUMatcher()(anchors, Targets.from_list(targets)).encoded()
