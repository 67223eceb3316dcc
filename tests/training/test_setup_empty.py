"""What `data.skip_empty` leaves out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from singleshot.training.recipe import Recipe, override
from singleshot.training.setup import open_data


@pytest.mark.parametrize(
    ("skip_empty", "drop_difficult", "expected"),
    [(False, True, "abcd"), (True, False, "acd"), (True, True, "cd")],
)
def test_images_without_objects(
    tiny_voc: Path, tmp_path: Path, skip_empty: bool, drop_difficult: bool, expected: str
) -> None:
    """b is given no object, and a only difficult ones; the images to measure on all stay."""
    root = shutil.copytree(tiny_voc, tmp_path / "voc")
    for name in "bf":
        path = root / "Annotations" / f"{name}.xml"
        path.write_text(re.sub("<object>.*</object>", "", path.read_text()))
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    changes = {"data.path": str(root), "data.skip_empty": skip_empty, "data.drop_difficult": drop_difficult}
    data = open_data(override(Recipe(), changes))
    assert "".join(record.name[0] for record in data.train.records) == expected
    assert data.val is not None
    assert len(data.val) == 2
