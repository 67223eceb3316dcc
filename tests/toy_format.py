"""A dataset format as one file: `SPLIT.toy` beside the images, a line `image.png class x1 y1 x2 y2` for each object."""

from __future__ import annotations

from pathlib import Path

from singleshot.data.folders import files
from singleshot.data.formats.format import Format, Split
from singleshot.data.gather import Gather


def find(path: Path) -> list[Split]:
    """One split for each list in the folder."""
    return [Split(name[:-4], path / name) for name in files(path) if name.endswith(".toy")]


def read(split: Split, gather: Gather) -> None:
    """Read one list."""
    images: dict[str, int | None] = {}
    for number, line in enumerate(split.place.read_text().splitlines(), 1):
        where = f"{split.place}:{number}"
        name, *rest = line.split()
        if name not in images:
            images[name] = gather.add_image(split.place.parent / name, name, annotation=split.place, where=where)
        image = images[name]
        try:
            class_name, x1, y1, x2, y2 = rest
            box = float(x1), float(y1), float(x2), float(y2)
        except ValueError:
            gather.problem("broken annotation", where, f"expected `image class x1 y1 x2 y2`, got {line!r}")
            continue
        if image is not None:
            gather.add_object(image, class_name, box)


FORMAT = Format(title="Toy", looks_like="a folder with SPLIT.toy files", holds=("boxes",), find=find, read=read)
