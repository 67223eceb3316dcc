"""Box arithmetic. Boxes are [..., 4] xyxy; coordinates are continuous, so a side is x2 - x1, without "+1"."""

from __future__ import annotations

import torch
from torch import Tensor

_NO_AREA = 1e-12  # square pixels: below this a ratio of areas and its gradient are meaningless, but must stay finite


def box_area(boxes: Tensor) -> Tensor:
    """Area of boxes [..., 4] -> [...]; 0 for an inverted box."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def intersection(first: Tensor, second: Tensor) -> Tensor:
    """Common area of boxes aligned by broadcasting: [..., 4] x [..., 4] -> [...]."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def aligned_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes aligned by broadcasting: [..., 4] x [..., 4] -> [...] in [0, 1].

    Two boxes without area have IoU 0.
    """
    common = intersection(first, second)
    union = box_area(first) + box_area(second) - common
    return common / union.clamp(min=_NO_AREA)


def aligned_giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of boxes aligned by broadcasting: [..., 4] x [..., 4] -> [...] in [-1, 1].

    It is the IoU minus the share of the smallest enclosing box that neither box covers (Rezatofighi et al., 2019, arXiv
    1902.09630). So it also measures the distance of boxes that do not overlap. Two boxes without area have IoU 0. If
    the enclosing box has no area either, their generalised IoU is 0.
    """
    common = intersection(first, second)
    union = box_area(first) + box_area(second) - common
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).clamp(min=0).prod(-1)
    return common / union.clamp(min=_NO_AREA) - (hull - union) / hull.clamp(min=_NO_AREA)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every pair: [..., N, 4] x [..., M, 4] -> [..., N, M].

    The four coordinates are first copied into separate rows: see `rows_iou`.
    """
    return rows_iou(coordinate_rows(first)[..., :, None], coordinate_rows(second)[..., None, :])


def coordinate_rows(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] as rows of single coordinates [4, ...], each contiguous."""
    return boxes.movedim(-1, 0).contiguous()


def rows_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes given as `coordinate_rows`, aligned by broadcasting: [4, ...] x [4, ...] -> [...] in [0, 1].

    The arithmetic is done in place. For a large result this is several times faster than the arithmetic on pairs of
    coordinates in `aligned_iou`. There is no gradient. Two boxes without area have IoU 0.
    """
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = first.unbind(0), second.unbind(0)
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)
    height = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0)
    common = width.mul_(height)
    union = (_rows_area(first) + _rows_area(second)).sub_(common)
    return common.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def _rows_area(rows: Tensor) -> Tensor:
    return (rows[2] - rows[0]).clamp_(min=0) * (rows[3] - rows[1]).clamp_(min=0)


def coverage(boxes: Tensor, regions: Tensor) -> Tensor:
    """Share of each box's own area that lies inside each region: [..., N, 4] x [..., M, 4] -> [..., N, M]."""
    common = intersection(boxes[..., :, None, :], regions[..., None, :, :])
    area = box_area(boxes)[..., :, None]
    return common / area.clamp(min=torch.finfo(area.dtype).tiny)


def clip_boxes(boxes: Tensor, height: Tensor | float, width: Tensor | float) -> Tensor:
    """Move the corners of boxes [..., 4] that are outside an image to its border."""
    zero = boxes.new_zeros(())
    x = torch.minimum(
        torch.maximum(boxes[..., 0::2], zero), torch.as_tensor(width, dtype=boxes.dtype, device=boxes.device)
    )
    y = torch.minimum(
        torch.maximum(boxes[..., 1::2], zero), torch.as_tensor(height, dtype=boxes.dtype, device=boxes.device)
    )
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def box_convert(boxes: Tensor, source: str, target: str) -> Tensor:
    """Convert boxes [..., 4] between `xyxy`, `xywh` (corner and size) and `cxcywh` (centre and size)."""
    first, last = boxes[..., :2], boxes[..., 2:]
    match source:
        case "xyxy":
            low, size = first, last - first
        case "xywh":
            low, size = first, last
        case "cxcywh":
            low, size = first - last / 2, last
        case _:
            raise ValueError(f"box format must be xyxy, xywh or cxcywh, got {source!r}")
    match target:
        case "xyxy":
            # An xyxy box is returned unchanged: low + (high - low) may differ from high in the last bit.
            return boxes.clone() if source == "xyxy" else torch.cat([low, low + size], -1)
        case "xywh":
            return torch.cat([low, size], -1)
        case "cxcywh":
            return torch.cat([low + size / 2, size], -1)
        case _:
            raise ValueError(f"box format must be xyxy, xywh or cxcywh, got {target!r}")
