"""Usual JPEG files, decoded by OpenCV: the same pixels as from Pillow, in half of the time.

Pillow hands over its pixels as bytes, which are joined and copied. OpenCV decodes them where they stay. Both use the
same library (libjpeg-turbo) in the same way. But OpenCV does not say what is wrong with a damaged file. So it gets only
files that are whole and of the usual kind by their markers. All others are left to Pillow.
"""

from __future__ import annotations

import re

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from singleshot.reduced import Reduced

LARGEST_FILE = 64 << 20  # bytes; larger ones need not be in memory as a whole

START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: Huffman-coded, and not lossless
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC, *_FRAMES}
_SCAN = 0xDA
_REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}  # the bit of `cv2.IMREAD_REDUCED_COLOR_N`, without that of `IMREAD_COLOR`
_BETWEEN_SCANS = (0xC4, _SCAN, 0xDD)  # tables, the next scan of a progressive file, the distance of restarts
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)  # those left out stand within a scan
_ORIENTATION = 0x0112  # EXIF tag


def decoded(content: bytes, reduced: Reduced) -> NDArray[np.uint8] | None:
    """The pixels of a file of this `usual_size`, uint8 [h, w, 3] RGB; None if it cannot be decoded."""
    as_rgb = getattr(cv2, "IMREAD_COLOR_RGB", None)  # not before OpenCV 4.11
    colour = cv2.IMREAD_COLOR if as_rgb is None else as_rgb
    flags = colour | _REDUCED[reduced.factor] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    if found is None or found.shape != (*reduced.picture, 3):
        return None
    if as_rgb is None:
        found = cv2.cvtColor(found, cv2.COLOR_BGR2RGB, dst=found)
    return np.asarray(found, np.uint8)


def usual_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a usual JPEG: it begins and ends as one, is upright, grey or YCbCr, of 8 bits."""
    if not (content.startswith(START) and content.endswith(_END)):
        return None
    place, size = 2, None
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        segment = content[place + 4 : place + 2 + length]
        if marker == _SCAN:
            return size if _whole(content, place + 2 + length) else None
        if marker in _OTHER_FRAMES or length < 2 or marker in (0xD8, 0xD9, 0xFF) or not _harmless(marker, segment):
            return None
        if marker in _FRAMES:
            if size is not None or len(segment) < 6 or segment[0] != 8 or segment[5] not in (1, 3):
                return None
            size = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
            if 0 in size:
                return None
        place += 2 + length
    return None


def _whole(content: bytes, place: int) -> bool:
    """Whether nothing but scans and what belongs to them stands between the first scan and the end of the file.

    A damaged scan mostly has a marker where none may be.
    """
    while (found := _MARKER.search(content, place)) is not None:
        place = found.start()
        if place == len(content) - 2:
            return True  # it is the end, as `usual_size` has checked
        if content[place + 1] not in _BETWEEN_SCANS:
            return False
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return False


def _harmless(marker: int, segment: bytes) -> bool:
    """Whether a segment leaves the pixels as they are: upright, and in the usual colours."""
    if marker == 0xE1 and segment.startswith(b"Exif"):
        try:
            exif = Image.Exif()
            exif.load(segment)
            return bool(exif.get(_ORIENTATION, 1) == 1)
        except Exception:  # a damaged block may raise anything
            return False
    if marker == 0xE2:
        return not segment.startswith(b"MPF")  # several pictures
    if marker == 0xEE and segment.startswith(b"Adobe"):
        return len(segment) >= 12 and segment[11] == 1  # YCbCr
    return True
