"""The published views, and free ones from YAML files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from singleshot.errors import UserError
from singleshot.multiscale import published as tta
from singleshot.multiscale.views import MultiScale, View
from singleshot.plain_data import to_plain
from singleshot.yaml_text import to_yaml_text


def as_table(recipe: MultiScale) -> dict[object, str]:
    """Input -> which boxes are kept, in the words of the reference."""
    table: dict[object, str] = {}
    for view in recipe.views:
        assert view.scale is None
        kept = "all"
        if view.long_side_above is not None:
            kept = f"max > {view.long_side_above}"
        if view.short_side_below is not None:
            kept = f"min < {view.short_side_below}"
        table[view.side if view.size is None else (*view.size, view.turn)] = kept
    assert len(table) == len(recipe.views)
    return table


def test_the_published_views() -> None:
    voc320: dict[object, str] = {320: "all", (320, 192, True): "all", 192: "max > 32", 384: "min < 160"}
    voc320 |= {448: "min < 128", 512: "min < 96", 576: "min < 64", 704: "min < 32"}
    assert as_table(tta.get("refinedet320_voc")) == voc320
    assert as_table(tta.get("refinedet320_coco")) == {**voc320, 640: "min < 48"}
    voc512: dict[object, str] = {512: "all", (512, 384, True): "all", 256: "all", 384: "all", 768: "min < 192"}
    voc512 |= {896: "min < 128"}
    assert as_table(tta.get("refinedet512_voc")) == voc512
    coco512: dict[object, str] = {640: "min < 224", 1024: "min < 96", 1152: "min < 64"}
    assert as_table(tta.get("refinedet512_coco")) == {**voc512, **coco512}


def test_the_published_merging() -> None:
    assert [tta.get(name).passes for name in tta.names()] == [16, 12, 18, 18]
    for name in tta.names():
        recipe = tta.get(name)
        assert (recipe.name, recipe.mirror, recipe.iou) == (name, True, 0.45)
        numbers = (recipe.merge, recipe.threshold, recipe.candidates, recipe.detections, recipe.nms)
        voc = name.endswith("voc")  # there the views are those of a single scale
        assert numbers == (("vote", None, None, None, None) if voc else ("soft_vote", 0.05, 400, 200, 0.45))
        # Multiples of 64, so that RefineDet's maps fit together.
        for view in recipe.views:
            assert all(side % 64 == 0 for side in (view.size or (view.side or 1,)))


@pytest.mark.parametrize("name", tta.names())
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    recipe = tta.get(name)
    path = tmp_path / "views.yaml"
    path.write_text(to_yaml_text(to_plain(recipe)))
    assert tta.load(path) == recipe
    assert tta.load(name) is recipe


def test_a_free_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(
        "views:\n  - {scale: 1}\n  - {side: 384, short_side_below: 60}\n  - {size: [320, 192], turn: true}\n"
        "mirror: false\nmerge: nms\niou: 0.5\nthreshold: 1e-3\n"
    )
    views = (View(scale=1.0), View(side=384, short_side_below=60.0), View(size=(320, 192), turn=True))
    assert tta.load(str(path)) == MultiScale(views, "mine", mirror=False, merge="nms", iou=0.5, threshold=0.001)


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "multi_scale.md"
    (tmp_path / "mine.yaml").write_text(page.read_text().partition("```yaml\n")[2].partition("```")[0])
    recipe = tta.load(tmp_path / "mine.yaml")
    assert [str(view) for view in recipe.views][1:3] == ["scale 0.75", "side 512"]
    assert (recipe.passes, recipe.threshold) == (8, 0.01)
    # What it says of the cost.
    for name, times in (("320_voc", 32), ("512_voc", 15.75), ("320_coco", 40), ("512_coco", 37)):
        sizes = [view.size or (view.side or 0,) * 2 for view in tta.get(f"refinedet{name}").views]
        assert 2 * sum(size[0] * size[1] for size in sizes) == times * int(name[:3]) ** 2


def test_a_file_builds_on_a_published_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: refinedet512_coco\nmirror: false\n")
    assert tta.load(path) == replace(tta.get("refinedet512_coco"), name="mine", mirror=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("views: [{scale: 1}, {site: 3}]", "unknown key 'views[1].site'; did you mean size or side"),
        ("views: [{scale: 1}, {side: x}]", "views[1].side: expected a whole number, got 'x'"),
        ("views: [{scale: 1}, {side: 3, scale: 2}]", "views[1]: a view needs exactly one of side, size and scale"),
        ("views: [{scale: -1}]", "views[0]: scale: expected a number above 0, got -1.0"),
        ("views: [{size: [3]}]", "views[0]: size: expected height and width"),
        ("views: [{side: 3, turn: true}]", "views[0]: turn needs size: "),
        ("views: [384]", "views[0]: expected a mapping such as {side: 384}, got 384"),
        ("views: 384", "views: expected a list of views, got 384"),
        ("views: []", "views: expected at least one view"),
        ("mirror: true", "views: expected a list of views"),
        ("views: [{scale: 1}]\nmerg: nms", "unknown key 'merg'; did you mean merge"),
        ("views: [{scale: 1}]\nmerge: mean", "merge: expected one of vote, soft_vote, nms, got 'mean'"),
        ("views: [{scale: 1}]\niou: 2", "iou: expected a number above 0 and at most 1, got 2"),
        ("views: [{scale: 1}]\nthreshold: 2", "threshold: expected a number from 0 to 1"),
        ("views: [{scale: 1}]\ncandidates: 0", "candidates: expected a whole number, 1 or more"),
        (
            "recipe: refinedet320_vok",
            "recipe: unknown multi-scale testing 'refinedet320_vok'; did you mean refinedet320_voc",
        ),
        ("views: [", "line 1: this is not valid YAML"),
    ],
)
def test_mistakes_in_a_file_name_file_and_key(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        tta.load(path)
    told = str(caught.value)
    assert told.startswith(str(path))
    assert said in told
    assert told.count(str(path)) == 1


def test_names_are_looked_up() -> None:
    with pytest.raises(UserError, match="did you mean refinedet320_voc or"):
        tta.get("refinedet320voc")
    with pytest.raises(UserError, match="published ones are: refinedet320_voc, .*. The name of a file ends in .yaml"):
        tta.load("x")
    with pytest.raises(UserError, match="nowhere.yaml: cannot be read"):
        tta.load("nowhere.yaml")


def test_the_tables_need_no_torch() -> None:
    program = (
        "import sys, singleshot.multiscale.published as r; r.names(); "
        "print([m for m in ('torch', 'cv2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["", "- {scale: 1}\n", "views\n"])
def test_a_file_without_a_mapping_is_told_what_views_are(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine.yaml: expected the views of multi-scale testing, such as `views: \["):
        tta.load(tmp_path / "mine.yaml")
