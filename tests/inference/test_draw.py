from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from singleshot.errors import UserError
from singleshot.inference.draw import contact_sheet, draw
from singleshot.inference.labels import fit, measure, place
from singleshot.inference.palette import class_colour, contrast, opposite
from singleshot.prediction import Prediction

NAMES = ("person", "Straßenkehrer", "rolled-in_scale", "собака", "σκύλος", "猫")


def made(boxes, scores=None, labels=None, size=(100, 200)) -> Prediction:
    count = len(boxes)
    return Prediction(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores if scores is not None else [0.9] * count, dtype=torch.float32),
        torch.tensor(labels if labels is not None else [0] * count, dtype=torch.int64),
        NAMES,
        tuple(range(len(NAMES))),
        size,
    )


def blank(height: int = 100, width: int = 200, value: int = 255) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(-1)


def test_the_line_is_where_the_box_is() -> None:
    picture = draw(blank(value=77), made([[20, 30, 61, 81]]), labels=False)
    line = has(picture, class_colour(0))
    rows, columns = np.nonzero(line)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (20, 30, 60, 80)  # the last pixels are inside
    assert not line[32:79, 22:59].any()
    around = has(picture, opposite(class_colour(0)))
    assert around[29, 19:62].all()
    assert (picture[:28] == 77).all()


def test_the_image_stays_as_it_was() -> None:
    image = blank()
    image.flags.writeable = False
    picture = draw(image, made([[10, 10, 90, 90]]))
    assert (image == 255).all()
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert (picture != image).any()


def test_without_detections_the_picture_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert (draw(image, made([])) == image).all()
    assert (draw(image, made([[1, 1, 20, 20]], [0.4]), threshold=0.5) == image).all()


def test_the_threshold_is_inclusive() -> None:
    for threshold in (0.3, 0.7, 0.9):  # as float32 some are below, some above
        assert (draw(blank(), made([[9, 9, 90, 90]], [threshold]), threshold=threshold) != 255).any()


def test_the_better_score_lies_on_top_in_any_order() -> None:
    boxes = [[20, 30, 61, 81], [20, 40, 61, 91]]
    first = draw(blank(), made(boxes, [0.9, 0.5], [0, 1]), labels=False)
    second = draw(blank(), made(boxes[::-1], [0.5, 0.9], [1, 0]), labels=False)
    assert (first == second).all()
    assert has(first, class_colour(0))[30:81, 20].all()


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 250, 150],
        [-30, 40, 10, 60],
        [190, 90, 260, 130],
        [5, 5, 5, 5],
        [0, 0, 0.4, 0.4],
        [199.9, 99.9, 200, 100],
        [200, 100, 200, 100],
        [50.2, 50.2, 50.6, 50.6],
    ],
)
def test_boxes_at_and_over_the_border_are_cut_and_stay_visible(box: list[float]) -> None:
    picture = draw(blank(), made([box]))
    assert has(picture, class_colour(0)).any()
    assert has(draw(blank(), made([box]), labels=False), class_colour(0)).any()


@pytest.mark.parametrize(
    "box", [[300, 10, 400, 50], [50, 50, 20, 20], [float("nan"), 0, 10, 10], [0, 0, 1e30, float("inf")]]
)
def test_boxes_outside_inverted_or_broken_are_left_out(box: list[float]) -> None:
    assert (draw(blank(), made([box])) == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (32, 32), (16, 500), (500, 16), (120, 160)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    height, width = size
    many = made([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]] * 10, labels=list(range(5)) * 4)
    assert draw(blank(height, width), many).shape == (height, width, 3)


def test_lines_and_letters_grow_with_the_picture() -> None:
    def share(side: int) -> tuple[int, int]:
        box = made([[side * 0.25, side * 0.5, side * 0.9, side * 0.9]])
        picture = draw(blank(side, side), box, labels=False)
        line = int(has(picture, class_colour(0))[side * 7 // 10, : side // 2].sum())
        with_label = draw(blank(side, side), box) != picture
        return line, int(with_label.any(-1).any(1).sum())

    small, large = share(400), share(4000)
    assert 8 <= large[0] / small[0] <= 13
    assert 6 <= large[1] / small[1] <= 13


def test_labels_lie_inside_the_picture_and_not_on_each_other() -> None:
    rng = np.random.default_rng(3)
    room = (640, 480)
    for count in (2, 8, 20):
        corners = rng.uniform(0, 1, (count, 2)) * (560, 420)
        boxes = [(int(x), int(y), int(x) + 70, int(y) + 50) for x, y in corners]
        labels = [fit("person", "0.87", 0, size=13, room=room) for _ in boxes]
        placed = place(boxes, labels, room=room)
        areas = [(x, y, x + label.width, y + label.height) for (x, y), label in zip(placed, labels, strict=True)]
        assert all(x1 >= 0 and y1 >= 0 and x2 <= room[0] and y2 <= room[1] for x1, y1, x2, y2 in areas)
        for i, a in enumerate(areas):
            for b in areas[:i]:
                assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1]), (a, b)


def test_a_label_stands_on_its_box_where_there_is_room() -> None:
    label = fit("person", "0.87", 0, size=13, room=(640, 480))
    assert label is not None
    assert place([(100, 200, 300, 400)], [label], room=(640, 480)) == [(100, 200 - label.height)]
    assert place([(100, 2, 300, 400)], [label], room=(640, 480)) == [(100, 401)]  # below, as above there is none
    assert place([(0, 0, 639, 479)], [label], room=(640, 480)) == [(0, 0)]  # inside, as there is no room outside
    assert place([(620, 200, 639, 400)], [label], room=(640, 480)) == [(640 - label.width, 200 - label.height)]


def test_labels_shrink_then_lose_the_score_then_the_end_of_the_name() -> None:
    def text(width: int) -> str | None:
        label = fit("Straßenkehrer", "0.87", 0, size=20, room=(width, 40))
        assert label is None or label.width <= width
        return label.text if label else None

    texts = [text(width) for width in range(400, 0, -1)]
    kinds = list(dict.fromkeys(texts))
    assert kinds[:2] == ["Straßenkehrer 0.87", "Straßenkehrer"]
    assert kinds[2] == "Straßenkehr…"  # the dots are as wide as two letters
    assert kinds[-2] == "S…"
    assert kinds[-1] is None
    assert fit("person", "0.87", 0, size=20, room=(400, 5)) is None


@pytest.mark.parametrize("name", NAMES[:5])
def test_names_in_latin_greek_and_cyrillic_are_written(name: str) -> None:
    label = fit(name, "0.50", 3, size=14, room=(400, 40))
    assert label is not None
    assert label.text == f"{name} 0.50"
    # Every letter has a shape of its own, which the box for unknown letters has not.
    shapes = {bytes(label.font.getmask(letter)) for letter in set(name)}
    assert len(shapes) == len(set(name))


def test_names_that_cannot_be_written_become_numbers() -> None:
    unwritable = "\U0010fffd"  # private use: no font has it
    label = fit(unwritable, "0.50", 3, size=14, room=(400, 40))
    assert label is not None
    assert label.text == "#3 0.50"
    for empty in ("", " \n "):
        label = fit(empty, "0.50", 4, size=14, room=(400, 40))
        assert label is not None
        assert label.text == "#4 0.50"
    label = fit("two\nlines\x07", "0.50", 4, size=14, room=(400, 40))
    assert label is not None
    assert label.text == "two\\nlines\\x07 0.50"


def test_labels_of_one_size_have_one_height() -> None:
    heights = {measure(text, size=14).height for text in ("aeo", "Ägypj", "собака")}
    assert len(heights) == 1


# ---- colours


def test_colours_differ_and_do_not_depend_on_the_number_of_classes() -> None:
    colours = [class_colour(label) for label in range(240)]
    assert len(set(colours)) == 240
    assert class_colour(240) == colours[0]
    assert all(isinstance(value, int) and 0 <= value <= 255 for colour in colours for value in colour)
    # Distances in CIELAB, by another library: 2.3 is what people can just see side by side.
    lab = cv2.cvtColor(np.array(colours, np.float32)[None] / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(240)
    assert apart[:8, :8].min() > 25
    assert apart[:80, :80].min() > 7
    assert apart.min() > 3


def test_contrast_by_hand() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((10, 200, 30), (10, 200, 30)) == 1
    assert contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.01)  # WCAG's well-known grey


def test_text_stands_out_from_every_label_and_lines_from_every_ground() -> None:
    rng = np.random.default_rng(0)
    grounds = [tuple(int(value) for value in ground) for ground in rng.integers(0, 256, (200, 3))]
    for label in range(240):
        colour = class_colour(label)
        other = opposite(colour)
        assert contrast(colour, other) >= 4.58
        for ground in grounds[label % 4 :: 4]:
            assert max(contrast(ground, colour), contrast(ground, other)) >= 2.1


# ---- contact sheets


def test_contact_sheet_by_hand() -> None:
    reds = [np.full((10, 20, 3), (200 + i, 0, 0), np.uint8) for i in range(5)]
    sheet = contact_sheet(reds, columns=2, cell=64)
    gap = 2
    assert sheet.shape == (3 * (64 + gap) + gap, 2 * (64 + gap) + gap, 3)
    for i in range(5):
        y, x = gap + i // 2 * (64 + gap) + 32, gap + i % 2 * (64 + gap) + 32
        assert sheet[y, x].tolist() == [200 + i, 0, 0]
        assert has(sheet, (200 + i, 0, 0)).sum() == 64 * 32  # the shape is kept, the width filled
    assert (sheet[-30:, 80:] == sheet[0, 0]).all()  # the sixth cell is empty


def test_contact_sheet_of_one_with_a_caption() -> None:
    image = blank(300, 100, 90)
    without = contact_sheet([image], cell=128)
    assert without.shape[1] == 128 + 2 * 4  # no wider than its images
    with_caption = contact_sheet([image], cell=128, captions=["Straße " * 20])
    assert with_caption.shape[0] > without.shape[0]
    assert (with_caption[: 4 + 128] == without[: 4 + 128]).all()
    assert (with_caption[4 + 128 :].max() > 150).all()


@pytest.mark.parametrize(
    ("images", "options"),
    [
        ([], {}),
        ([blank()], {"columns": 0}),
        ([blank()], {"cell": 3}),
        ([blank()], {"captions": []}),
        ([np.zeros((4, 4), np.uint8)], {}),
        ([np.zeros((4, 4, 3), np.float32)], {}),
    ],
)
def test_contact_sheet_refuses(images, options) -> None:
    with pytest.raises(UserError):
        contact_sheet(images, **options)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_draw_refuses(image: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"\[H, W, 3\] of uint8"):
        draw(image, made([]))


def test_real_photographs(shared: Path) -> None:
    from singleshot.data.images import read_image

    image = read_image(shared / "images" / "coral" / "cat_720p.jpg")
    height, width = image.shape[:2]
    found = made([[width * 0.1, height * 0.1, width * 0.9, height * 0.9]], [0.83], [1], (height, width))
    changed = (draw(image, found) != image).any(-1)
    assert 0.001 < changed.mean() < 0.1


def test_a_class_name_without_end_is_drawn_at_once() -> None:
    from time import perf_counter

    picture = np.zeros((64, 64, 3), np.uint8)
    boxes, names = np.tile([4.0, 20.0, 60.0, 60.0], (20, 1)), ("a" * 10_000, "b\x00\ud800 " * 3000)
    found = Prediction(boxes, np.full(20, 0.5), np.arange(20) % 2, names, (1, 2), (64, 64))
    start = perf_counter()
    assert draw(picture, found).any()
    assert perf_counter() - start < 5  # a fifth of a second where nothing else runs; it took minutes
