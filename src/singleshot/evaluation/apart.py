"""COCO's matching in a process of its own, for a process that must not use hotcoco's threads.

`python -m singleshot.evaluation.apart` reads columns from its input and writes tables to its output, both as npz.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import fields

import numpy as np

from singleshot.data.dataset import Floats
from singleshot.errors import UserError
from singleshot.evaluation.box_table import Found, Integers, Truth
from singleshot.evaluation.coco import matched


def in_new_process(
    truth: Truth, found: Found, image_ids: Integers, category_ids: Integers
) -> tuple[Floats, Floats, Floats]:
    """The tables of `coco.matched`, computed by a fresh Python: the same bits, about half a second later.

    Raises `UserError` if no Python can be started.
    """
    content = io.BytesIO()
    columns = {f"{name}.{f.name}": getattr(of, f.name) for name, of in _named(truth, found) for f in fields(of)}
    np.savez(content, image_ids=image_ids, category_ids=category_ids, **columns)
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    advice = "start such processes with multiprocessing's start method 'spawn'"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "singleshot.evaluation.apart"],
            input=content.getvalue(),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path},
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"this process was forked from one that had evaluated, and the evaluation in a process of its own failed "
            f"({said[-1] if said else f'exit code {error.returncode}'}); {advice}"
        ) from None
    except (OSError, ValueError) as error:  # no Python of this name, or none that may be started
        raise UserError(
            f"this process was forked from one that had evaluated, and no other process can be started to evaluate "
            f"({error}); {advice}"
        ) from None
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as tables:
        return tables["precision"], tables["recall"], tables["scores"]


def _named(truth: Truth, found: Found) -> tuple[tuple[str, Truth | Found], ...]:
    return ("truth", truth), ("found", found)


def _main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to the errors
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as columns:
        truth = Truth(**{f.name: columns[f"truth.{f.name}"] for f in fields(Truth)})
        found = Found(**{f.name: columns[f"found.{f.name}"] for f in fields(Found)})
        precision, recall, scores = matched(truth, found, columns["image_ids"], columns["category_ids"])
    content = io.BytesIO()
    np.savez(content, precision=precision, recall=recall, scores=scores)
    with out:
        out.write(content.getvalue())


if __name__ == "__main__":
    _main()
