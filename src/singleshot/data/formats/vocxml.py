"""Reads one XML file in Pascal VOC's format."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from singleshot import conversions
from singleshot.conversions import Unclear, number
from singleshot.data.dataset import Problem

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_DECLARATION = re.compile(rb"""\s*<\?xml[^<>]*?encoding\s*=\s*["']([\w.-]{1,40})["'][^<>]*\?>""", re.ASCII)
# Encodings of text that expat does not know, though tools declare them. Others of Python's are no text, or slow.
_DECODED = {"utf-8", "gbk", "gb2312", "gb18030", "big5", "big5hkscs", "cp950", "shift_jis", "cp932", "euc_jp", "euc_kr"}
_DECODED |= {"cp949", "johab"}


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


class _NotText(ValueError):
    """The bytes of a file are not of the encoding that it has."""

    def __init__(self, content: bytes, error: UnicodeDecodeError, why: str) -> None:
        byte = content[error.start]
        super().__init__(
            f"the byte 0x{byte:02X} is no {error.encoding} text, and {why}; save the file as UTF-8, or declare its "
            "encoding in the first line"
        )
        self.line = content.count(b"\n", 0, error.start) + 1


@lru_cache(maxsize=1 << 16)
def parse(path: str, mtime_ns: int, size: int) -> Annotation | Problem:
    """Read one file, or return a Problem that says what is wrong. A file with the same time and size is read only once.

    Missing fields get defaults: `difficult` and `truncated` are False if they are missing, empty or `Unspecified`, and
    a size that is missing or unclear is (0, 0). The box of an object is its own, not that of its parts.
    """
    del mtime_ns, size  # part of the cache's key: they distinguish versions of a file
    try:
        with open(path, "rb") as file:
            return _annotation(path, _root(file.read()))
    except _NotText as error:
        return Problem("broken annotation", f"{path}:{error.line}", str(error))
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
    """The root element. The encoding is the declared one, as XML has it, or UTF-8."""
    declared = _DECLARATION.match(content)
    name = "utf-8" if declared is None else declared[1].decode()
    try:
        if declared is not None and name.lower() != "utf-8" and codecs.lookup(name).name in _DECODED:
            return _parsed(_decode(content, name, "the file declares this encoding")[declared.end() :].encode())
        return _parsed(content)
    except ElementTree.ParseError:
        if declared is None and b"\0" not in content:
            _decode(content, name, "the file declares no other encoding")
        raise
    except LookupError as error:
        raise _NotVOC(f"its encoding {name!r} is unknown; save the file as UTF-8") from error
    except UnicodeDecodeError as error:
        raise _NotVOC(f"its encoding {name!r} cannot be read; save the file as UTF-8") from error


def _decode(content: bytes, encoding: str, why: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _NotText(content, error, why) from error


def _parsed(content: bytes) -> ElementTree.Element:
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
    for place, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise _NotVOC(f"object {place} has no name")
        try:
            names.append(conversions.name(name))
        except Unclear as error:
            raise _NotVOC(f"object {place}: its name {error}") from error
        what = f"object {place} ({name})"
        boxes.append(_box(element, what))
        difficult.append(_flag(element, "difficult", what))
        truncated.append(_flag(element, "truncated", what))
    filename = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    size = (_length(root, "size/height"), _length(root, "size/width"))
    return Annotation(path, filename, size, tuple(names), tuple(boxes), tuple(difficult), tuple(truncated))


def _box(element: ElementTree.Element, what: str) -> tuple[float, float, float, float]:
    found = element.find("bndbox")
    if found is None:
        rotated = element.find("robndbox") is not None
        more = ", only a rotated box (robndbox): rotated boxes are not read, give upright ones" if rotated else ""
        raise _NotVOC(f"{what} has no bndbox{more}")
    sides = []
    for side in _SIDES:
        text = found.findtext(side)
        try:
            sides.append(number(text, finite=False))  # the check speaks of NaN
        except Unclear as error:
            raise _NotVOC(f"{what}: {side} {error}") from None
    return sides[0], sides[1], sides[2], sides[3]


def _flag(element: ElementTree.Element, name: str, what: str) -> bool:
    text = (element.findtext(name) or "").strip()
    if text in ("", "Unspecified"):
        return False
    try:
        return conversions.flag(text)
    except Unclear as error:
        raise _NotVOC(f"{what}: {name} {error}") from None


def _length(root: ElementTree.Element, name: str) -> int:
    """Height or width in whole pixels; 0 if it is not clear, which the check then says."""
    try:
        found = number(root.findtext(name))
    except Unclear:
        return 0
    return round(found) if abs(found) < 1e9 else 0
