"""Names of splits: `val` finds the split that a folder calls `val2017` or `valid`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from singleshot.errors import UserError

_SAME = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_USUAL = {"train", "val", "test", "trainval"}


def find_split(wanted: str, splits: Sequence[str]) -> str | None:
    """The split that a name means: the very name, else the only split with this word in its name.

    Words are what stands between signs and digits, in any case; valid and validation are val. So `val` means
    `instances_val2017` or `valid`, `train` does not mean `trainval`, and two candidates mean none.
    """
    if wanted in splits:
        return wanted
    word = _SAME.get(wanted.lower(), wanted.lower())
    found = [split for split in splits if word in _words(split)]
    return found[0] if len(found) == 1 else None


def is_split_name(name: str) -> bool:
    """Whether a name is made of the usual words for splits: train, val, test and what means the same."""
    words = _words(name)
    return bool(words) and words <= _USUAL


def choose_splits(splits: Sequence[str], wanted: str | None, prefer: Sequence[str], where: str) -> list[str]:
    """The split that is meant, as `choose_split` finds it, or several: train2014+val2014. UserError for one twice."""
    names = wanted.split("+") if wanted is not None and wanted not in splits else [wanted]
    chosen = [choose_split(splits, name, prefer, where) for name in names]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"{where}: split {wanted!r} names {max(chosen, key=chosen.count)!r} twice.")
    return chosen


def choose_split(splits: Sequence[str], wanted: str | None, prefer: Sequence[str], where: str) -> str:
    """`wanted`, or the first of `prefer` that exists, or the only one; UserError naming all of them if none."""
    if wanted is not None:
        found = find_split(wanted, splits)
        if found is None:
            raise UserError(
                f"{where}: no split {wanted!r}. The splits are: {', '.join(splits) or 'none'}; name one of them with "
                "--split (--val-split for the one to validate on)."
            )
        return found
    for name in prefer:
        found = find_split(name, splits)
        if found is not None:
            return found
    if len(splits) == 1:
        return splits[0]
    raise UserError(f"{where}: which split? Choose with --split (split= in Python) among: {', '.join(splits)}.")


def _words(split: str) -> set[str]:
    return {_SAME.get(word, word) for word in re.split(r"[\W\d_]+", split.lower()) if word}
