"""A trained detector of the catalogue in the place of a file: fetched if it is not here, then imported."""

from __future__ import annotations

from pathlib import Path

from singleshot.cache import cache_folder
from singleshot.catalogue import Weights, obtain
from singleshot.errors import UserError
from singleshot.weights import checkpoint
from singleshot.weights.importers import import_weights


def detector_file(weights: Weights, *, may_fetch: bool = True) -> Path:
    """The file of this package's own for a trained detector that others publish.

    It lies in the cache, and is made anew each time: that takes seconds, and so it never is one of an older version.

    Raises:
        UserError: as `catalogue.obtain` and `import_weights`; or the cache cannot be written.
    """
    path = obtain(weights, may_fetch=may_fetch)
    detector = import_weights(path, class_names=weights.class_names or None)
    made = cache_folder("detectors") / f"{weights.name}.safetensors"
    try:
        checkpoint.save(detector, made)
    except OSError as error:
        raise UserError(
            f"{made}: cannot be written ({error.strerror or error}): free some space, or name another folder with "
            "SINGLESHOT_CACHE"
        ) from None
    return made
