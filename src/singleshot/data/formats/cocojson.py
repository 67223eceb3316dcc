"""COCO's JSON files: finds them, loads them, and checks their outer structure."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from singleshot.data.folders import files, folders, why_no_file
from singleshot.errors import UserError, short

_KEYS = ("info", "licenses", "license", "images", "annotations", "categories", "type")
_INSTANCES = "instances_"
_PREFIX = re.compile(r"^(instances|image_info|person_keypoints)_(?=.)")
_OTHER_TASKS = ("captions_", "stuff_", "panoptic_")
_ROBOFLOW = "_annotations.coco.json"


def find_files(root: Path) -> dict[str, Path]:
    """The COCO files of a folder, by the name of their split.

    They lie in the folder or one level below it. `instances_train2017.json` is the split train2017. If several files
    give the same name, the `instances_` file is taken. `train/_annotations.coco.json` is the split train.
    """
    places = (root, *folders(root).values())
    candidates = [place / name for place in places for name in (*files(place), *folders(place))]
    grouped: dict[str, list[Path]] = {}
    for path in candidates:
        if path.suffix.lower() == ".json" and not path.name.startswith(_OTHER_TASKS) and _is_coco(path):
            grouped.setdefault(split_name(path), []).append(path)
    found: dict[str, Path] = {}
    for split, paths in grouped.items():
        instances = [path for path in paths if path.name.startswith(_INSTANCES)]
        if len(paths) == 1 or len(instances) == 1:
            found[split] = (instances or paths)[0]
        else:  # one name in several folders: the whole path distinguishes them
            found |= {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}
    return found


def split_name(path: Path) -> str:
    """The name of the split that a file holds."""
    if path.name == _ROBOFLOW:
        return path.absolute().parent.name
    return _PREFIX.sub("", path.stem)


def load(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read a file and check its structure: an object with lists of images and, if present, annotations and categories.

    Returns the object, and a message for each key that an object in it has twice: only the last value is read then.

    Raises UserError: the file cannot be read, the JSON is broken (with line and column), or it is not a COCO dataset.
    """
    twice: dict[str, tuple[int, str]] = {}  # key -> in how many objects, and the first of them

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # costs 1 % of the time of reading
        found = dict(pairs)
        if len(found) < len(pairs):
            for key in {key for key, number in Counter(key for key, _ in pairs).items() if number > 1}:
                number, first = twice.get(key, (0, short(found)))
                twice[key] = (number + 1, first)
        return found

    text = ""
    if (why := why_no_file(path)) is not None:
        raise UserError(f"{path}: this is {why}, expected a COCO file; mend it, or remove it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=unique)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: broken JSON: byte {error.start} is not UTF-8 text") from error
    except RecursionError as error:
        raise UserError(f"{path}: broken JSON: lists or objects are nested too deeply") from error
    except ValueError as error:  # Python refuses whole numbers of very many digits
        found = re.search(r"\d{4000,}", text)
        line = f":{text.count(chr(10), 0, found.start()) + 1}" if found else ""
        raise UserError(f"{path}{line}: broken JSON: {error}") from error
    expected = 'expected a COCO dataset, an object with the lists "images", "annotations" and "categories"'
    if isinstance(content, list):
        results = bool(content) and isinstance(content[0], dict) and "score" in content[0]
        what = "this is a results file (a list of detections), give it as --detections" if results else "this is a list"
        raise UserError(f"{path}: {what}; {expected}.")
    if not isinstance(content, dict):
        raise UserError(f"{path}: this is {type(content).__name__} {str(content)[:20]!r}; {expected}.")
    if "images" not in content:
        raise UserError(f'{path}: "images" is missing (keys: {", ".join(map(str, content)) or "none"}); {expected}.')
    for key in ("images", "annotations", "categories"):
        if key in content and not isinstance(content[key], list):
            raise UserError(f'{path}: "{key}" is {type(content[key]).__name__}, not a list; {expected}.')
    return content, [
        f"the key {short(key)} occurs more than once in {number} objects, the first of which then is {first}"
        for key, (number, first) in twice.items()
    ]


def _is_coco(path: Path) -> bool:
    """Whether a file looks like a COCO dataset, judged by its start, since some files are very large."""
    start = ""
    try:
        if why_no_file(path) is None:  # else it counts as a broken one
            with open(path, "rb") as file:
                start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").lstrip()
    except OSError:
        pass
    if path.name == _ROBOFLOW or path.name.startswith(_INSTANCES):
        return not start.startswith("[")  # a broken file counts, so that it is reported; a results list does not
    first = re.match(r'\{\s*"([^"]*)"', start)
    if first is None:  # empty, broken or a list: in a folder `annotations` all but a list were meant as COCO
        return path.parent.name.lower() == "annotations" and not start.startswith("[")
    images = re.search(r'"images"\s*:\s*\[', start) is not None  # "images" with a number is some other report
    if first[1] == "images":
        return images
    video = '"videos"' in start and '"images"' not in start
    return (first[1] in _KEYS or images) and not video
