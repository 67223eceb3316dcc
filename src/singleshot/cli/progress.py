"""A progress bar on stderr if it is a terminal; nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from singleshot.errors import shown as name


@contextmanager
def shown(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yields a function that takes (done, total), or None if nobody would see the bar."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
