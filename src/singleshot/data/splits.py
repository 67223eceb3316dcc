"""Names of splits: `val` finds the split that a folder calls `val2017` or `valid`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from singleshot.errors import UserError

_SAME = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_USUAL = {"train", "val", "test", "trainval"}


def find_split(wanted: str, splits: Sequence[str]) -> str | None:
    """Find the split that a name means: the split of exactly this name, else the only one with this word in its name.

    Signs and digits separate words, case is ignored, and valid and validation mean val. So `val` finds
    `instances_val2017` or `valid`, but `train` does not find `trainval`. Returns None if no split or several fit.
    """
    if wanted in splits:
        return wanted
    word = _SAME.get(wanted.lower(), wanted.lower())
    found = [split for split in splits if word in _words(split)]
    return found[0] if len(found) == 1 else None


def is_split_name(name: str) -> bool:
    """Whether a name consists of the usual words for splits: train, val, test and their synonyms."""
    words = _words(name)
    return bool(words) and words <= _USUAL


def choose_splits(splits: Sequence[str], wanted: str | None, prefer: Sequence[str], where: str) -> list[str]:
    """The split that `choose_split` finds, or several, as in train2014+val2014. UserError if one occurs twice."""
    names = wanted.split("+") if wanted is not None and wanted not in splits else [wanted]
    chosen = [choose_split(splits, name, prefer, where) for name in names]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"{where}: split {wanted!r} names {max(chosen, key=chosen.count)!r} twice; name it once.")
    return chosen


def choose_split(splits: Sequence[str], wanted: str | None, prefer: Sequence[str], where: str) -> str:
    """`wanted`, or the first of `prefer` that exists, or the only split; else UserError, which names all splits."""
    if wanted is not None:
        found = find_split(wanted, splits)
        if found is None:
            raise UserError(
                f"{where}: there is no split {wanted!r}. The splits are: {', '.join(splits) or 'none'}. Name one of "
                "them with --split (the one to validate on with --val-split)."
            )
        return found
    for name in prefer:
        found = find_split(name, splits)
        if found is not None:
            return found
    if len(splits) == 1:
        return splits[0]
    raise UserError(f"{where} has several splits: {', '.join(splits)}. Choose one with --split (split= in Python).")


def _words(split: str) -> set[str]:
    return {_SAME.get(word, word) for word in re.split(r"[\W\d_]+", split.lower()) if word}
