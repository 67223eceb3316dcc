"""Measures and draws text in any script for which the machine has a font."""

from __future__ import annotations

import os
from functools import lru_cache

from PIL import ImageFont

# matplotlib is imported where it is used: its import takes longer than a small network, and not every run draws.


@lru_cache(maxsize=1)
def _shipped() -> tuple[str, ...]:
    import matplotlib

    names = ("DejaVuSans-Bold.ttf", "DejaVuSans.ttf")
    return tuple(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name) for name in names)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font of that size in pixels that has every letter of the text, or None.

    DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic and more. For other scripts (Chinese,
    Japanese, Korean) the fonts of the system are searched.
    """
    path = _path_for(frozenset(letter for letter in text if not letter.isspace()))
    return None if path is None else _load(path, size)


@lru_cache(maxsize=256)
def _path_for(letters: frozenset[str]) -> str | None:
    for path in _shipped():
        if _has(path, letters):
            return path
    # Imported here, because this import makes matplotlib list all fonts of the system and save the list on disk.
    from matplotlib.font_manager import findSystemFonts

    return next((path for path in sorted(findSystemFonts()) if _has(path, letters)), None)


@lru_cache(maxsize=1024)
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(path, 12)  # Pillow draws the text
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # not a font that this library can read
        return frozenset()


def _has(path: str, letters: frozenset[str]) -> bool:
    known = _letters(path)
    return all(ord(letter) in known for letter in letters)


@lru_cache(maxsize=64)
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
