"""What a detector's labels mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from singleshot.errors import UserError


@dataclass(frozen=True)
class Classes:
    """Names and original category ids, in the order of the labels 0..K-1."""

    names: tuple[str, ...]
    category_ids: tuple[int | str, ...]

    @classmethod
    def of(
        cls, num_classes: int, names: Sequence[str] | None = None, category_ids: Sequence[int | str] | None = None
    ) -> Classes:
        """Check a builder's classes. Default names are "class 0", "class 1", ...; default ids are 0, 1, ..."""
        if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
            raise UserError(
                f"num_classes must be a whole number of at least 1 (background not counted), got {num_classes!r}"
            )
        names = tuple(names) if names is not None else tuple(f"class {i}" for i in range(num_classes))
        ids = tuple(category_ids) if category_ids is not None else tuple(range(num_classes))
        for what, given in (("class_names", names), ("category_ids", ids)):
            if len(given) != num_classes:
                raise UserError(f"{what} must have num_classes={num_classes} entries, got {len(given)}: {list(given)}")
            if len(set(given)) != len(given):
                raise UserError(f"{what} must differ from each other, got {list(given)}")
        return cls(names, ids)
