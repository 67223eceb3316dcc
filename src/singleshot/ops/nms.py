"""Non-maximum suppression, greedy and soft: exact, batched, with fixed shapes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from singleshot.ops.boxes import pairwise_iou
from singleshot.ops.greedy import greedy, takes

_BLOCK = 1 << 24  # elements of the [rows, N, N] overlap matrix that are in memory at once
_CHUNK = 1024  # boxes of each row that `nms_sorted` takes at a time on a device, where each call has a cost
_CLASS_CHUNK = 256  # the same for `class_nms_sorted`, whose rows hold all classes
_TRACED_CHUNK = 1024  # the same in a traced graph, where each chunk is a separate loop operator
_STEPS = 8  # boxes of each row that soft-NMS takes before it checks which are left
_TRACED_STEPS = 4  # the same in a traced graph, which contains the operations of each of them


def nms_sorted(boxes: Tensor, valid: Tensor, iou_threshold: float, *, enough: int | None = None) -> Tensor:
    """Survivors of greedy NMS among boxes that are sorted by score, best first.

    `boxes` [R, N, 4], `valid` [R, N] bool -> [R, N] bool. Each row R (an image, or one class of one image) is
    independent. A box is suppressed by a better survivor if their IoU is greater than the threshold (a box with an IoU
    equal to it survives), as in the authors' code (reference: Caffe's ApplyNMSFast).
    `enough`: only this many survivors of each row are needed, the best ones. Later ones may be missing.

    The greedy result is the fixed point of `alive = valid and not any(rival and alive)`. After n rounds at least the
    first n boxes are final. The rounds stop when nothing changes, so the result is exact. Typically 3-6 rounds are
    enough.

    On the CPU only boxes that are near each other are compared (`singleshot.ops.greedy`). On other devices boxes are
    taken in chunks, if waiting for the device is allowed (not while a graph is traced).
    """
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return _survivors_traced(_rivals(boxes, iou_threshold), valid)
    if takes(boxes, iou_threshold):
        groups = torch.arange(len(boxes))[:, None].expand_as(valid)
        if enough is None:
            return _near(boxes, groups, valid, iou_threshold)
        return _by_image(boxes, groups, valid, iou_threshold, enough)
    return _in_chunks(boxes, valid, iou_threshold, enough)


def _in_chunks(boxes: Tensor, valid: Tensor, iou_threshold: float, enough: int | None = None) -> Tensor:
    """`nms_sorted` on any device, with a few large operations.

    First the survivors so far suppress boxes of the chunk, then the chunk suppresses within itself. This is the greedy
    order too. Rows without a box in a chunk, such as most classes of an image, cost nothing there.
    """
    alive, count = torch.zeros_like(valid), valid.shape[1]
    chunk = max(1, min(count, _CHUNK))
    for start in range(0, count, chunk):
        here = slice(start, start + chunk)
        wanted = valid[:, here].any(1)
        if enough is not None:
            wanted &= alive.sum(1) < enough
        places = wanted.nonzero()[:, 0]
        step = max(1, _BLOCK // (chunk * max(chunk, start)))
        for first in range(0, len(places), step):
            rows = places[first : first + step]
            own, left = boxes[rows, here], valid[rows, here]
            if start:
                before = alive[rows, :start]
                index, living = first_marked(before, int(before.sum(1).max()))
                over = pairwise_iou(boxes[rows[:, None], index], own) > iou_threshold
                left = left & ~(over & living[..., None]).any(1)
            alive[rows, here] = survivors(_rivals(own, iou_threshold), left)
    return alive


def class_nms_sorted(
    boxes: Tensor, labels: Tensor, valid: Tensor, iou_threshold: float, *, enough: int | None = None
) -> Tensor:
    """Survivors of greedy NMS in which boxes suppress only boxes of their class; sorted by score, best first.

    `boxes` [R, N, 4], `labels` [R, N], `valid` [R, N] bool -> [R, N] bool. Rows are independent, as in `nms_sorted`.
    `enough`: only this many survivors of each row are needed, the best ones. Later ones may be missing.

    Labels are compared pair by pair. The usual trick is to move the classes apart by an offset and run one NMS, but it
    rounds coordinates: with 80 classes of 1,333 pixels float32 has steps of 1/128 pixel, and an IoU near the threshold
    may end up on the other side of it. One class at a time would cost K times the fullest class.

    On the CPU only boxes that are near each other are compared (`singleshot.ops.greedy`). Otherwise boxes are taken in
    chunks: first the survivors so far suppress boxes of the chunk, then the chunk suppresses within itself. This is the
    greedy order, so the result is exact, and the overlaps [N, N] are never all in memory. If waiting for the device is
    allowed, only survivors are compared, and the work ends once there are `enough` of them.
    """
    if takes(boxes, iou_threshold):
        return _by_image(boxes, labels, valid, iou_threshold, enough)
    return _class_in_chunks(boxes, labels, valid, iou_threshold, enough)


def _class_in_chunks(
    boxes: Tensor, labels: Tensor, valid: Tensor, iou_threshold: float, enough: int | None = None
) -> Tensor:
    traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    count, chunk = valid.shape[1], _TRACED_CHUNK if traced else _CLASS_CHUNK
    alive = valid[:, :0]
    for start in range(0, count, chunk):
        here = slice(start, min(start + chunk, count))
        own_boxes, own_labels, left = boxes[:, here], labels[:, here], valid[:, here].contiguous()
        if start:
            before_boxes, before_labels, living = boxes[:, :start], labels[:, :start], alive
            if not traced:
                index, living = first_marked(alive, int(alive.sum(1).max()))
                before_boxes = before_boxes.gather(1, index[..., None].expand(-1, -1, 4))
                before_labels = before_labels.gather(1, index)
            over = pairwise_iou(before_boxes, own_boxes) > iou_threshold
            over &= (before_labels[:, :, None] == own_labels[:, None, :]) & living[..., None]
            left = left & ~over.any(1)
        over = (pairwise_iou(own_boxes, own_boxes) > iou_threshold).triu(1)
        rivals = (over & (own_labels[:, :, None] == own_labels[:, None, :])).float()
        alive = torch.cat([alive, _survivors_traced(rivals, left) if traced else survivors(rivals, left)], 1)
        if not traced and enough is not None and bool((alive.sum(1) >= enough).all()):
            break
    return torch.nn.functional.pad(alive, (0, count - alive.shape[1]))


def _by_image(boxes: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, enough: int | None) -> Tensor:
    rows = [
        _near(boxes[row : row + 1], groups[row : row + 1], valid[row : row + 1], iou_threshold, enough)
        for row in range(len(valid))
    ]
    return torch.cat(rows) if rows else torch.zeros_like(valid)


def _near(boxes: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, enough: int | None = None) -> Tensor:
    """`greedy` of all rows at once: `groups` [R, N] says which boxes suppress each other. `enough`: of all rows."""
    alive = torch.zeros_like(valid)
    chosen = boxes.detach()[valid].numpy(), groups[valid].long().numpy()
    alive[valid] = torch.from_numpy(greedy(*chosen, iou_threshold, enough))
    return alive


def soft_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """Linear soft-NMS (Bodla et al., 2017, arXiv 1704.04503, equation 2): scores are lowered instead of boxes removed.

    `boxes` [R, N, 4] in any order, `scores` [R, N], 0 where there is no box -> the new scores [R, N]. Each row is
    independent. In each round the best remaining box is taken. Every other remaining box that overlaps it with an IoU
    greater than `iou_threshold` has its score multiplied by (1 - IoU). A score below `score_threshold` becomes 0. If
    scores are equal, the first box is taken first.

    Each round takes one box of every row, as in the definition, so the result is exact. The rounds stop when all boxes
    are taken. If waiting for the device is allowed (not while a graph is traced), finished rows and removed boxes are
    left out of the next rounds. Memory is a few times [R, N].
    """
    scores = torch.where(scores >= score_threshold, scores, 0.0)
    left = scores > 0
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return _soften_traced(boxes, scores, left, iou_threshold, score_threshold)
    while True:
        counts = left.sum(1)
        rows = counts.nonzero()
        if not len(rows):
            return scores
        # The order is kept, so that the first of equal scores is still the first. A row with fewer boxes is filled up
        # with boxes that are already taken; their scores do not change.
        place, own_left = first_marked(left[rows[:, 0]], int(counts.max()))
        sides, own_scores = boxes[rows, place].movedim(2, 0).contiguous(), scores[rows, place]
        for _ in range(_STEPS):
            own_scores, own_left = _soften(sides, own_scores, own_left, iou_threshold, score_threshold)
        scores[rows, place], left[rows, place] = own_scores, own_left


def first_marked(marked: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Indices of the first `number` marked entries of each row, in order.

    `marked` [R, N] bool -> index [R, number] int64, and [R, number] bool, which is False where a row has fewer marked
    entries (the index there is that of some unmarked entry).
    """
    count = marked.shape[1]
    order = torch.arange(count, 0, -1, device=marked.device)
    found, index = torch.where(marked, order, 0).topk(number)
    return index, found > 0


def _rivals(boxes: Tensor, iou_threshold: float) -> Tensor:
    """[R, N, N] float: 1 where the better box (row) suppresses the worse one (column) while it is alive."""
    return (pairwise_iou(boxes, boxes) > iou_threshold).triu(1).float()


def _round(rivals: Tensor, valid: Tensor, alive: Tensor) -> Tensor:
    # A matrix product counts the rivals of each box that are alive. It is the fastest batched "any" on every device.
    return valid & (torch.bmm(alive.float()[:, None], rivals)[:, 0] == 0)


def survivors(rivals: Tensor, valid: Tensor) -> Tensor:
    """Greedy survivors among `valid` [R, N]. It waits for the device.

    `rivals` [R, N, N] float is 1 at (better, worse) pairs in which the better one suppresses the worse.
    """
    alive = valid
    while True:
        after = _round(rivals, valid, alive)
        if torch.equal(after, alive):
            return after
        alive = after


def _survivors_traced(rivals: Tensor, valid: Tensor) -> Tensor:
    """The same loop as a graph operator, so that `torch.export` and `torch.compile` keep it without a break."""

    def changed(alive: Tensor, before: Tensor, rivals: Tensor, valid: Tensor) -> Tensor:
        return (alive != before).any()

    def step(alive: Tensor, before: Tensor, rivals: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _round(rivals, valid, alive), alive.clone(), rivals.clone(), valid.clone()

    first = _round(rivals, valid, valid)
    result: tuple[Tensor, ...] = while_loop(changed, step, (first, valid.clone(), rivals, valid))  # type: ignore[no-untyped-call]
    return result[0]


def _soften(
    sides: Tensor, scores: Tensor, left: Tensor, iou_threshold: float, score_threshold: float
) -> tuple[Tensor, Tensor]:
    """Take one box of every row: `sides` [4, R, N], `scores`, `left` [R, N] -> scores, and which boxes are left."""
    best = torch.where(left, scores, 0.0).argmax(1, keepdim=True)  # [R, 1]; the first if several are equal
    x1, y1, x2, y2 = sides.unbind(0)
    areas = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    best_x1, best_y1, best_x2, best_y2 = sides.gather(2, best.expand(4, -1, -1)).unbind(0)  # [R, 1] each
    width = (torch.minimum(x2, best_x2) - torch.maximum(x1, best_x1)).clamp(min=0)
    common = width * (torch.minimum(y2, best_y2) - torch.maximum(y1, best_y1)).clamp(min=0)
    union = areas + areas.gather(1, best) - common
    overlap = common / union.clamp(min=torch.finfo(union.dtype).tiny)
    left = left.scatter(1, best, False)
    softer = torch.where(left & (overlap > iou_threshold), scores * (1 - overlap), scores)
    softer = torch.where(left & (softer < score_threshold), 0.0, softer)
    return softer, left & (softer > 0)


def _soften_traced(boxes: Tensor, scores: Tensor, left: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """The rounds as a graph operator, like `_survivors_traced`."""

    def unfinished(scores: Tensor, left: Tensor, sides: Tensor) -> Tensor:
        return left.any()

    def rounds(scores: Tensor, left: Tensor, sides: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for _ in range(_TRACED_STEPS):
            scores, left = _soften(sides, scores, left, iou_threshold, score_threshold)
        return scores, left, sides.clone()

    sides = boxes.movedim(2, 0).contiguous()
    result: tuple[Tensor, ...] = while_loop(unfinished, rounds, (scores, left, sides))  # type: ignore[no-untyped-call]
    return result[0]


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Per-class greedy NMS of one image: boxes [N, 4], scores [N], labels [N] -> indices kept, best first.

    Boxes with equal scores keep their order. This form has no padding and is for use outside a network; inside one,
    use `nms_sorted`.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    order = scores.argsort(descending=True, stable=True)
    valid = torch.ones(1, len(boxes), dtype=torch.bool, device=boxes.device)
    return order[class_nms_sorted(boxes[order][None], labels[order][None], valid, iou_threshold)[0]]
