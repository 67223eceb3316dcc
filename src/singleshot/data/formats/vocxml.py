"""Reads one XML file in Pascal VOC's format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from singleshot.data.dataset import Problem

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotation:
    """The content of one file, one entry per object."""

    path: str
    filename: str  # of the image, without folders; "" when it is missing
    size: tuple[int, int]  # (height, width); (0, 0) when it is missing
    names: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    difficult: tuple[bool, ...]
    truncated: tuple[bool, ...]


class _NotVOC(ValueError):
    pass


@lru_cache(maxsize=1 << 16)
def parse(path: str, mtime_ns: int, size: int) -> Annotation | Problem:
    """Read one file, or return a Problem that says what is wrong. A file with the same time and size is read only once.

    Missing fields get defaults: `difficult` and `truncated` are False if they are missing or not yes, and a missing
    size is (0, 0). The box of an object is its own, not that of its parts.
    """
    del mtime_ns, size  # part of the cache's key: they distinguish versions of a file
    try:
        with open(path, "rb") as file:
            return _annotation(path, _root(file.read()))
    except ElementTree.ParseError as error:
        line, column = error.position
        message = f"broken XML at line {line}, column {column + 1}: {str(error).partition(':')[0]}"
        return Problem("broken annotation", f"{path}:{line}", message)
    except DefusedXmlException as error:
        message = f"refused: the XML declares entities or refers to other files ({type(error).__name__})"
        return Problem("broken annotation", path, message)
    except OSError as error:
        return Problem("broken annotation", path, f"cannot be read ({error.strerror or error})")
    except (ValueError, LookupError) as error:  # LookupError: an unknown encoding
        return Problem("broken annotation", path, str(error))


def _root(content: bytes) -> ElementTree.Element:
    # Entities need a DOCTYPE, and it cannot be hidden: expat takes only encodings that agree with ASCII, and UTF-16,
    # which has zero bytes here. Without a DOCTYPE the standard parser is as safe as defusedxml and four times as fast.
    if b"<!DOCTYPE" in content or b"\0" in content:
        root: ElementTree.Element = defusedxml.ElementTree.fromstring(content)
        return root
    return ElementTree.fromstring(content)


def _annotation(path: str, root: ElementTree.Element) -> Annotation:
    if root.tag != "annotation":
        raise _NotVOC(f"not a Pascal VOC annotation: its root is <{root.tag}>, expected <annotation>")
    names, boxes, difficult, truncated = [], [], [], []
    for number, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise _NotVOC(f"object {number} has no name")
        names.append(name)
        boxes.append(_box(element, f"object {number} ({name})"))
        difficult.append(_flag(element, "difficult"))
        truncated.append(_flag(element, "truncated"))
    filename = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    size = (_length(root, "size/height"), _length(root, "size/width"))
    return Annotation(path, filename, size, tuple(names), tuple(boxes), tuple(difficult), tuple(truncated))


def _box(element: ElementTree.Element, what: str) -> tuple[float, float, float, float]:
    found = element.find("bndbox")
    if found is None:
        raise _NotVOC(f"{what} has no bndbox")
    sides = []
    for side in _SIDES:
        text = found.findtext(side)
        try:
            sides.append(float(text or ""))
        except ValueError:
            raise _NotVOC(f"{what}: {side} is {text!r}, expected a number") from None
    return sides[0], sides[1], sides[2], sides[3]


def _flag(element: ElementTree.Element, name: str) -> bool:
    text = (element.findtext(name) or "").strip().lower()
    return text in ("1", "1.0", "true", "yes")


def _length(root: ElementTree.Element, name: str) -> int:
    try:
        value = float(root.findtext(name) or 0)
    except ValueError:
        return 0
    return round(value) if math.isfinite(value) else 0
