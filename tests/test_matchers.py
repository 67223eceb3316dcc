"""Which anchor finds which object: the authors' greedy matching, against a slow one."""

from __future__ import annotations

import resource
import time

import hypothesis
import hypothesis.strategies as st
import pytest
import reference
import torch

from singleshot import matchers
from singleshot.anchors import AnchorGenerator, DefaultBoxes, octave_sizes
from singleshot.detectors import ssd_boxes
from singleshot.matchers import IoUMatcher
from singleshot.ops.boxes import pairwise_iou
from singleshot.structures import Anchors, Matched, Targets

Boxes = list[list[float]]


def grid_boxes(count: int, generator: torch.Generator, *, extent: int = 10, largest: int = 7) -> Boxes:
    """Boxes at whole pixels: many equal overlaps, many equal boxes."""
    low = torch.randint(0, extent, (count, 2), generator=generator)
    size = torch.randint(1, largest + 1, (count, 2), generator=generator)
    return torch.cat([low, low + size], 1).tolist()


def anchors_of(boxes: Boxes, usable: list[bool] | None = None) -> Anchors:
    return Anchors(torch.tensor(boxes).float(), (len(boxes),), None if usable is None else torch.tensor(usable))


def targets_of(*images: Boxes, labels: list[list[int]] | None = None, crowd: list[list[bool]] | None = None) -> Targets:
    targets = []
    for i, boxes in enumerate(images):
        given = labels[i] if labels else list(range(len(boxes)))
        target = {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": torch.tensor(given, dtype=torch.int64)}
        if crowd:
            target["iscrowd"] = torch.tensor(crowd[i], dtype=torch.bool)
        targets.append(target)
    return Targets.from_list(targets)


def found(matched: Matched, image: int = 0) -> list[int]:
    """The label that each anchor must find, -1 for none; with labels 0, 1, 2, ... that is the object."""
    return torch.where(matched.positive[image], matched.labels[image], -1).tolist()


def negatives(matched: Matched, image: int = 0) -> list[bool]:
    return (matched.counted[image] & ~matched.positive[image]).tolist()


def default_boxes() -> Anchors:
    groups = ssd_boxes.level_groups(ssd_boxes.box_sizes("voc", (300, 300), 6))
    shapes = [(side, side) for side in (38, 19, 10, 5, 3, 1)]
    return DefaultBoxes(groups, steps=ssd_boxes.PUBLISHED_STEPS[300])(shapes, (300, 300))


def crowded_image(count: int, largest: float) -> Targets:
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(count, 2, generator=generator) * 300
    half = (torch.rand(count, 2, generator=generator) * largest + 2) / 2
    labels = torch.arange(count)
    return Targets.from_list([{"boxes": torch.cat([centre - half, centre + half], 1), "labels": labels}])


class AllPairs(IoUMatcher):
    """Matching from the comparison of all pairs: what a GPU computes."""

    _near = IoUMatcher._dense


def same(first: Matched, second: Matched) -> bool:
    return all(
        torch.equal(getattr(first, part), getattr(second, part)) for part in ("boxes", "labels", "positive", "counted")
    )


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_slow_greedy_with_many_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(6):
        anchors = grid_boxes(int(torch.randint(1, 40, (1,), generator=generator)), generator)
        images = [grid_boxes(n, generator) for n in torch.randint(0, 12, (3,), generator=generator).tolist()]
        usable = (torch.rand(len(anchors), generator=generator) > 0.2).tolist() if seed % 2 else None
        matched = IoUMatcher()(anchors_of(anchors, usable), targets_of(*images))
        for i, boxes in enumerate(images):
            expected, eligible = reference.ssd_match(boxes, anchors, usable=usable)
            assert found(matched, i) == expected
            assert negatives(matched, i) == eligible


def test_more_objects_than_anchors() -> None:
    generator = torch.Generator().manual_seed(5)
    for count in (2, 7, 30):
        anchors, boxes = grid_boxes(5, generator, extent=4), grid_boxes(count, generator, extent=4)
        matched = IoUMatcher()(anchors_of(anchors), targets_of(boxes))
        assert found(matched) == reference.ssd_match(boxes, anchors)[0]


def test_conflict_by_hand_the_lower_overlap_takes_its_next_best() -> None:
    anchors = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 4.0, 10.0], [50.0, 50.0, 60.0, 60.0]]
    better, worse = [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 8.0, 10.0]  # both overlap anchor 0 most: 0.9 and 0.8
    # The later object has the greater overlap: it keeps anchor 0, the earlier one moves to anchor 1 (4 / 8 = 0.5).
    assert found(IoUMatcher()(anchors_of(anchors), targets_of([worse, better]))) == [1, 0, -1]
    assert found(IoUMatcher()(anchors_of(anchors), targets_of([better, worse]))) == [0, 1, -1]


def test_an_object_that_lost_its_anchor_may_push_out_a_third() -> None:
    # Overlaps with anchors 0, 1, 2: A 0.9 with 0; B 0.8 with 0, then 0.7 with 1; C 0.6 with 1, then 0.1 with 2.
    anchors = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]]
    overlaps = [[0.9, 0.0, 0.0], [0.8, 0.7, 0.0], [0.0, 0.6, 0.1]]
    assert reference.greedy_pairs(overlaps) == {0: 0, 1: 1, 2: 2}
    boxes = [[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 28.0, 10.0], [26.0, 0.0, 42.0, 10.0]]
    matched = IoUMatcher()(anchors_of(anchors), targets_of(boxes))
    assert found(matched) == reference.ssd_match(boxes, anchors)[0] == [0, 1, 2]


def test_every_object_with_any_overlap_gets_an_anchor_however_small() -> None:
    anchors = [[0.0, 0.0, 100.0, 100.0], [100.0, 100.0, 200.0, 200.0]]
    matched = IoUMatcher()(anchors_of(anchors), targets_of([[10.0, 10.0, 11.0, 11.0]]))
    assert found(matched) == [0, -1]
    assert negatives(matched) == [False, True]


def test_no_overlap_is_no_match() -> None:
    matched = IoUMatcher()(anchors_of([[0.0, 0.0, 10.0, 10.0]]), targets_of([[10.0, 0.0, 20.0, 10.0]]))
    assert found(matched) == [-1]
    assert negatives(matched) == [True]


def test_an_overlap_of_exactly_half_is_a_match() -> None:
    box, half, below = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 4.9]
    matched = IoUMatcher()(anchors_of([box, half, below]), targets_of([box]))
    assert found(matched) == [0, 0, -1]
    assert negatives(matched) == [False, False, True]


def test_ties_go_to_the_lower_anchor_then_the_lower_object() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    assert found(IoUMatcher()(anchors_of([box, box, box]), targets_of([box, box]))) == [0, 1, 0]
    left, right = [0.0, 0.0, 10.0, 30.0], [0.0, 20.0, 10.0, 50.0]
    between = [0.0, 20.0, 10.0, 30.0]  # overlaps both by a third
    assert found(IoUMatcher()(anchors_of([right, left]), targets_of([between]))) == [0, -1]
    assert found(IoUMatcher()(anchors_of([between]), targets_of([right, left]))) == [0]


def test_the_forced_match_wins_over_a_better_object_of_the_anchor() -> None:
    # Anchor 0 overlaps object 0 more, but object 0 has anchor 1 to itself, and object 1 has only anchor 0.
    anchors = [[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 10.0]]
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 3.0, 3.0]]
    assert found(IoUMatcher()(anchors_of(anchors), targets_of(boxes))) == [1, 0]


def test_without_the_bipartite_step_only_the_threshold_counts() -> None:
    anchors = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 4.0]]
    matched = IoUMatcher(low_quality="none")(
        anchors_of(anchors), targets_of([[0.0, 0.0, 10.0, 9.0], [50.0, 0.0, 55.0, 5.0]])
    )
    assert found(matched) == [0, -1]


def test_between_negative_and_positive_an_anchor_is_not_counted() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    anchors = [box, [0.0, 0.0, 10.0, 4.5], [0.0, 0.0, 10.0, 3.9]]
    matched = IoUMatcher(positive=0.5, negative=0.4)(anchors_of(anchors), targets_of([box]))
    assert found(matched) == [0, -1, -1]
    assert matched.counted[0].tolist() == [True, False, True]


def test_what_an_anchor_gets() -> None:
    anchors = [[0.0, 0.0, 10.0, 10.0], [40.0, 40.0, 50.0, 50.0]]
    matched = IoUMatcher()(anchors_of(anchors), targets_of([[0.0, 0.0, 9.0, 9.0]], labels=[[3]]))
    assert matched.boxes[0].tolist() == [[0, 0, 9, 9], [40, 40, 50, 50]]  # an unmatched anchor targets itself
    assert matched.labels[0].tolist() == [3, 0]
    assert matched.positive.dtype == matched.counted.dtype == torch.bool


def test_no_objects_at_all() -> None:
    anchors = anchors_of([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 9.0, 9.0]])
    for targets in (targets_of([], []), targets_of([], [[0.0, 0.0, 1.0, 1.0]])):
        matched = IoUMatcher()(anchors, targets)
        assert not matched.positive[0].any()
        assert matched.counted[0].all()
        assert torch.equal(matched.boxes[0], anchors.boxes)


def test_images_of_a_batch_stand_alone() -> None:
    generator = torch.Generator().manual_seed(9)
    anchors = anchors_of(grid_boxes(30, generator))
    images = [grid_boxes(n, generator) for n in (0, 1, 9, 4)]
    together = IoUMatcher()(anchors, targets_of(*images))
    for i, boxes in enumerate(images):
        alone = IoUMatcher()(anchors, targets_of(boxes))
        for part in ("boxes", "labels", "positive", "counted"):
            assert torch.equal(getattr(together, part)[i], getattr(alone, part)[0])


def test_anchors_of_each_image_its_own() -> None:
    generator = torch.Generator().manual_seed(4)
    sets = [grid_boxes(20, generator), grid_boxes(20, generator)]
    images = [grid_boxes(5, generator), grid_boxes(3, generator)]
    matched = IoUMatcher()(Anchors(torch.tensor(sets).float(), (20,)), targets_of(*images))
    for i in range(2):
        assert found(matched, i) == reference.ssd_match(images[i], sets[i])[0]


def test_boundary_anchors_are_neither_positive_nor_negative() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    matched = IoUMatcher()(anchors_of([box, [0.0, 0.0, 9.0, 10.0]], usable=[False, True]), targets_of([box]))
    assert found(matched) == [-1, 0]  # the object takes the best anchor that may be used
    assert matched.counted[0].tolist() == [False, True]
    assert not IoUMatcher()(anchors_of([box], usable=[False]), targets_of([box])).positive.any()


class TestCrowd:
    ANCHORS = ((0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 20.0, 10.0), (0.0, 0.0, 21.0, 10.0), (50.0, 50.0, 60.0, 60.0))
    REGION = (0.0, 0.0, 10.0, 10.0)

    def match(self, *, ignore: bool, boxes: Boxes, crowd: list[bool]) -> Matched:
        anchors = anchors_of([list(anchor) for anchor in self.ANCHORS])
        return IoUMatcher(ignore_crowd=ignore)(anchors, targets_of(boxes, crowd=[crowd]))

    def test_by_default_a_region_is_nothing_at_all(self) -> None:
        matched = self.match(ignore=False, boxes=[list(self.REGION)], crowd=[True])
        assert not matched.positive.any()
        assert matched.counted.all()

    def test_switched_on_anchors_at_least_half_inside_do_not_count(self) -> None:
        matched = self.match(ignore=True, boxes=[list(self.REGION)], crowd=[True])
        assert not matched.positive.any()
        assert matched.counted[0].tolist() == [False, False, True, True]  # shares 1, 0.5, 0.476, 0

    def test_objects_beside_a_region_are_found(self) -> None:
        matched = self.match(ignore=True, boxes=[list(self.REGION), [0.0, 0.0, 19.0, 10.0]], crowd=[True, False])
        assert found(matched) == [-1, -1, 1, -1]  # the best anchor, number 1, lies half inside the region
        assert matched.counted[0].tolist() == [False, False, True, True]

    def test_two_halves_are_not_a_whole(self) -> None:
        parts = [[0.0, 0.0, 8.0, 10.0], [12.0, 0.0, 20.0, 10.0]]  # 40% of anchor 1 each
        matched = self.match(ignore=True, boxes=parts, crowd=[True, True])
        assert matched.counted[0].tolist() == [False, True, True, True]


@pytest.mark.parametrize("largest", [12.0, 250.0])
def test_real_default_boxes_against_the_slow_greedy(largest: float) -> None:
    anchors, targets = default_boxes(), crowded_image(40, largest)
    overlaps = pairwise_iou(targets.boxes[0, :40], anchors.boxes)
    expected, eligible = reference.match_overlaps(overlaps.tolist(), 8732)
    matched = IoUMatcher()(anchors, targets)
    assert found(matched) == expected
    assert negatives(matched) == eligible


@pytest.mark.parametrize("ignore_crowd", [False, True])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, ignore_crowd: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    anchors = anchors_of(grid_boxes(40, generator))
    images = [grid_boxes(n, generator) for n in (23, 0, 11)]
    crowd = [(torch.rand(len(boxes), generator=generator) > 0.8).tolist() for boxes in images]
    whole = AllPairs(ignore_crowd=ignore_crowd)(anchors, targets_of(*images, crowd=crowd))
    for objects_at_once in (1, 3, 16):
        monkeypatch.setitem(matchers._CHUNK, "cpu", objects_at_once * 3 * 40)
        chunked = AllPairs(ignore_crowd=ignore_crowd)(anchors, targets_of(*images, crowd=crowd))
        assert same(chunked, whole)


def test_5000_objects_in_one_image_in_bounded_memory_and_time() -> None:
    anchors, targets = default_boxes(), crowded_image(5000, largest=60)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    matched = IoUMatcher()(anchors, targets)
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # MiB on Linux
    assert matched.labels[matched.positive].unique().numel() == 5000  # each has an anchor of its own
    assert grown < 100  # one overlap matrix [8192, 8732] alone would be 273 MiB
    assert seconds < 1.5


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    seed=st.integers(0, 2**31),
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    thresholds=st.sampled_from([(0.5, 0.5), (0.5, 0.4), (0.7, 0.3), (0.4, 0.5), (1.0, 1.0), (0.0, 0.0), (0.3, 0.0)]),
    low_quality=st.sampled_from(["bipartite", "all", "band", "none"]),
    crowd=st.booleans(),
    whole=st.booleans(),
    moved=st.booleans(),
    left_out=st.booleans(),
)
def test_near_pairs_give_what_all_pairs_give(
    seed: int,
    counts: list[int],
    thresholds: tuple[float, float],
    low_quality: matchers.LowQuality,
    crowd: bool,
    whole: bool,
    moved: bool,
    left_out: bool,
) -> None:
    """With ties (whole pixels), crowd regions, padding, anchors of each image, anchors that may not be used."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> torch.Tensor:
        low = torch.rand(*shape, 2, generator=generator) * 12
        size = torch.exp(torch.rand(*shape, 2, generator=generator) * 4 - 1)
        made = torch.cat([low, low + size], -1)
        return made.round() if whole else made

    anchors = Anchors(
        boxes(*([len(counts)] if moved else []), 40),
        (40,),
        torch.rand(40, generator=generator) > 0.3 if left_out else None,
    )
    targets = Targets.from_list(
        [
            {
                "boxes": boxes(count),
                "labels": torch.arange(count),
                "iscrowd": torch.rand(count, generator=generator) > (0.7 if crowd else 1),
            }
            for count in counts
        ]
    )
    for ignore_crowd in {False, crowd}:
        settings = (*thresholds, low_quality, ignore_crowd)
        assert same(IoUMatcher(*settings)(anchors, targets), AllPairs(*settings)(anchors, targets))


def test_anchors_that_change_in_place_are_sorted_again() -> None:
    anchors, targets = anchors_of([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]), targets_of([[0, 0, 9, 9]])
    assert found(IoUMatcher()(anchors, targets)) == [0, -1]
    anchors.boxes.add_(100)
    assert found(IoUMatcher()(anchors, targets)) == [-1, -1]


def test_a_crowded_image_of_a_large_retinanet_takes_no_long_time() -> None:
    make = AnchorGenerator((8, 16, 32, 64, 128), octave_sizes((32, 64, 128, 256, 512), 3))
    anchors = make([(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)], (800, 1344))
    targets = crowded_image(1000, largest=90)
    matcher = IoUMatcher(positive=0.5, negative=0.4, low_quality="all")
    matcher(anchors, targets)
    start = time.process_time()
    matched = matcher(anchors, targets)
    assert time.process_time() - start < 0.5  # from all pairs: 4.6
    assert matched.positive.any()


def test_gives_no_gradient() -> None:
    anchors = Anchors(torch.tensor([[0.0, 0.0, 10.0, 10.0]], requires_grad=True), (1,))
    matched = IoUMatcher()(anchors, targets_of([[0.0, 0.0, 9.0, 9.0]]))
    assert not matched.boxes.requires_grad
    assert not matched.anchors.requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("largest", [12.0, 100.0])
def test_on_the_gpu_the_same_is_matched(largest: float) -> None:
    anchors, targets = default_boxes(), crowded_image(700, largest)
    expected = IoUMatcher()(anchors, targets)
    moved = Targets(targets.boxes.cuda(), targets.labels.cuda(), targets.crowd.cuda())
    matched = IoUMatcher()(Anchors(anchors.boxes.cuda(), anchors.counts), moved)
    for part in ("boxes", "labels", "positive", "counted"):
        assert torch.equal(getattr(matched, part).cpu(), getattr(expected, part))


# ------------------------------------------------------------------ objects that no anchor overlaps enough (RetinaNet)
def low_quality_match(
    anchors: Boxes, boxes: Boxes, mode: str, positive: float = 0.5, negative: float = 0.4
) -> tuple[list[int], list[bool]]:
    """One image with plain loops: the object of each anchor (-1 none), and whether the anchor counts."""
    table = [[reference.iou32(tuple(box), tuple(anchor)) for anchor in anchors] for box in boxes]  # type: ignore[arg-type]
    found, counted = [-1] * len(anchors), [True] * len(anchors)
    for j in range(len(anchors)):
        column = [row[j] for row in table]
        best = max(column, default=0.0)
        if best >= positive:
            found[j] = column.index(best)
        counted[j] = best >= positive or best < negative
    for i, row in enumerate(table):
        most = max(row)
        for j, value in enumerate(row):
            if value != most or most <= 1e-6:
                continue
            column = [other[j] for other in table]
            if mode == "all":
                found[j], counted[j] = i, True
            elif mode == "band" and max(column) >= negative and found[j] < 0:
                found[j], counted[j] = column.index(max(column)), True
    return found, counted


@pytest.mark.parametrize("mode", ["all", "band", "none"])
@pytest.mark.parametrize("seed", range(12))
def test_low_quality_equals_plain_loops(mode: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = grid_boxes(40, generator)
    images = [grid_boxes(count, generator) for count in (4, 0, 9)]
    matcher = IoUMatcher(positive=0.5, negative=0.4, low_quality=mode)  # type: ignore[arg-type]
    matched = matcher(anchors_of(anchors), targets_of(*images))
    for i, boxes in enumerate(images):
        expected, counted = low_quality_match(anchors, boxes, mode)
        assert found(matched, i) == expected
        assert matched.counted[i].tolist() == counted


def test_low_quality_by_hand() -> None:
    # IoU of the object with the anchors: 0.45, 0.3; of the far object with the last: 0.2; the third has nothing.
    anchors = [[0.0, 0.0, 10.0, 4.5], [0.0, 0.0, 10.0, 3.0], [90.0, 0.0, 95.0, 5.0], [40.0, 0.0, 50.0, 2.0]]
    boxes = [[0.0, 0.0, 10.0, 10.0], [40.0, 0.0, 50.0, 10.0]]
    expected = {
        "all": ([0, -1, -1, 1], [True, True, True, True]),
        "band": ([0, -1, -1, -1], [True, True, True, True]),
        "none": ([-1, -1, -1, -1], [False, True, True, True]),
    }
    for mode, (objects, counted) in expected.items():
        matched = IoUMatcher(positive=0.5, negative=0.4, low_quality=mode)(anchors_of(anchors), targets_of(boxes))  # type: ignore[arg-type]
        assert found(matched) == objects, mode
        assert matched.counted[0].tolist() == counted, mode


def test_all_the_equally_best_anchors_are_forced_and_the_later_object_wins() -> None:
    anchors = [[0.0, 0.0, 10.0, 2.0], [0.0, 8.0, 10.0, 10.0]]
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 30.0, 2.0]]
    matched = IoUMatcher(positive=0.5, negative=0.4, low_quality="all")(anchors_of(anchors), targets_of(boxes))
    assert found(matched) == [2, 1]


def test_an_object_that_touches_no_anchor_forces_nothing() -> None:
    matched = IoUMatcher(low_quality="all")(anchors_of([[0.0, 0.0, 4.0, 4.0]]), targets_of([[50.0, 50.0, 60.0, 60.0]]))
    assert found(matched) == [-1]
    assert negatives(matched) == [True]


def test_low_quality_does_not_depend_on_the_size_of_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    anchors, targets = anchors_of(grid_boxes(50, generator)), targets_of(grid_boxes(13, generator))
    matcher = AllPairs(positive=0.5, negative=0.4, low_quality="all")
    at_once = matcher(anchors, targets)
    monkeypatch.setitem(matchers._CHUNK, "cpu", 1)
    one_by_one = matcher(anchors, targets)
    assert found(at_once) == found(one_by_one)
    assert torch.equal(at_once.counted, one_by_one.counted)
