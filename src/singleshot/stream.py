"""The one loop over images: frames -> batches -> (frame, result), in order, in bounded memory, read ahead in threads.

The source of images is an iterable of frames: files, the records of a dataset, a video. What looks at them is a
function of a batch. What uses the results (drawing, JSON, metrics) is a loop over the pairs. These three do not know
each other, and this module does not know any of them.

All generators here guarantee:

- Order: frames keep their order. An error comes once, after the frames before it.
- Memory: only images that were read ahead, wait for their batch or are in the current batch are in memory.
- End: no thread is left after an early end (`break`, an error, Ctrl-C, `close`). The iterable that was passed in is
  closed too, if it has `close`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from singleshot.errors import UserError
from singleshot.reduced import Reduced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

S = TypeVar("S")  # what a frame is read from
F = TypeVar("F")  # a frame
R = TypeVar("R")  # what is found in one
B = TypeVar("B")  # an array or a tensor


@dataclass(frozen=True, eq=False)
class Frame(Generic[S]):
    """One image, and the source that it was read from. A large one may be there as a smaller picture."""

    pixels: NDArray[np.uint8]  # [3, H, W] RGB, as a detector takes it; a view of a picture [H, W, 3] is fastest
    source: S
    reduced: Reduced | None = None  # how the pixels lie in the image; None: they are all of it

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return (self.pixels.shape[1], self.pixels.shape[2]) if self.reduced is None else self.reduced.size

    def boxes(self, boxes: B) -> B:
        """Boxes [N, 4] in `pixels`, an array or a tensor -> in pixels of the image."""
        return boxes if self.reduced is None else self.reduced.boxes(boxes)

    def picture(self) -> NDArray[np.uint8]:
        """The pixels as a picture [H, W, 3], for drawing; only read it, for it may be the same memory."""
        import cv2
        import numpy as np

        picture = self.pixels.transpose(1, 2, 0)
        if picture.flags.c_contiguous:
            return picture
        return np.asarray(cv2.merge(list(self.pixels)), np.uint8)  # NumPy's own copy takes 40 times as long

    def tensor(self) -> Tensor:
        """The same memory as a tensor uint8 [3, H, W]."""
        import torch

        return torch.from_numpy(self.pixels)


def stream(
    frames: Iterable[F],
    look: Callable[[list[F]], Sequence[R]],
    *,
    batch_size: int,
    after: Callable[[int], None] | None = None,
) -> Generator[tuple[F, R], None, None]:
    """Look at frames in batches and yield each frame with its result.

    `look` maps a batch of frames to one result for each. For `after`, see `batches`.

    Raises UserError if `look` does not return one result for each frame, and any error of `frames` and `look`.
    """
    with _closing(batches(frames, batch_size, after=after)) as groups:
        for batch in groups:
            results = list(look(batch))
            if len(results) != len(batch):
                raise UserError(
                    f"the detector gave {len(results)} results for {len(batch)} images; it must give one for each image"
                )
            yield from zip(batch, results, strict=True)
            del batch, results  # before the next ones are read


def batches(
    frames: Iterable[F], size: int, *, after: Callable[[int], None] | None = None
) -> Generator[list[F], None, None]:
    """Group frames into lists of `size`. The last one may be shorter; none is empty.

    `after` is called with the number of frames so far, each time the consumer has finished a batch and asks for the
    next.

    Raises UserError at the call for a size below 1. An error of `frames` is raised after the frames before it.
    """
    if size < 1:
        raise UserError(f"batch_size must be at least 1, got {size}")
    return _batches(frames, size, after)


def _batches(frames: Iterable[F], size: int, after: Callable[[int], None] | None) -> Generator[list[F], None, None]:
    done = 0
    with _closing(iter(frames)) as rest:
        while True:
            batch, error = _take(rest, size)
            full = len(batch) == size
            if batch:
                done += len(batch)
                yield batch
                del batch
                if after is not None:
                    after(done)
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # its traceback refers to this stack frame: a cycle that would keep earlier images alive
            if not full:
                return


def read_ahead(
    sources: Iterable[S],
    read: Callable[[S], F],
    *,
    workers: int = 0,
    ahead: int = 16,
    skip: Callable[[UserError], None] | None = None,
) -> Generator[F, None, None]:
    """Read sources in order, in `workers` threads, at most `ahead` of them (or one for each thread) in advance.

    Threads are enough, since decoding releases the interpreter's lock, and nothing has to be copied between processes.
    With 0 workers each source is read when it is needed. `skip` is called with the `UserError` of a source that cannot
    be read, and the source is left out. Without `skip` the error ends the reading.

    Raises UserError at the call for fewer than 0 workers, and later any error of `sources` and `read`.
    """
    if workers < 0:
        raise UserError(f"workers must be at least 0, got {workers}")
    pending = _in_threads(sources, read, workers, max(ahead, workers)) if workers else _in_turn(sources, read)
    return _finished(pending, skip)


def counting(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """A function that reports the number of finished frames to `progress`: 0 at once, and no number twice."""
    told = -1

    def tell(done: int) -> None:
        nonlocal told
        if progress is not None and done != told:
            progress(done, total)
        told = done

    tell(0)
    return tell


def _in_turn(sources: Iterable[S], read: Callable[[S], F]) -> Generator[Callable[[], F], None, None]:
    with _closing(iter(sources)) as rest:
        for source in rest:
            yield partial(read, source)


def _in_threads(
    sources: Iterable[S], read: Callable[[S], F], workers: int, ahead: int
) -> Generator[Callable[[], F], None, None]:
    waiting: deque[Future[F]] = deque()
    process = os.getpid()
    with _closing(iter(sources)) as rest:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="singleshot-read")
        try:
            more = True
            while more:
                if os.getpid() != process:
                    raise UserError(
                        "this iteration was begun in the process that this one was forked from, and the threads that "
                        "read ahead stayed there; begin a new one here, or read with workers=0"
                    )
                taken, error = _take(rest, 1)
                waiting.extend(pool.submit(read, source) for source in taken)
                more = bool(taken)
                while len(waiting) > (ahead if more else 0):
                    yield waiting.popleft().result
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # see `_batches`
        finally:
            if os.getpid() == process:
                pool.shutdown(wait=True, cancel_futures=True)


def _finished(pending: Iterator[Callable[[], F]], skip: Callable[[UserError], None] | None) -> Generator[F, None, None]:
    """The frames that were read, in order. A source that cannot be read is skipped if `skip` is given."""
    with _closing(pending):
        for result in pending:
            try:
                frame = result()
            except UserError as error:
                if skip is None:
                    raise
                skip(error)
                continue
            finally:
                del result  # it refers to the frame too, or to the error
            yield frame
            del frame


def _take(items: Iterator[F], number: int) -> tuple[list[F], Exception | None]:
    """The next `number` items, and an error if one came. At the end or before an error there are fewer items."""
    taken: list[F] = []
    try:
        while len(taken) < number:
            taken.append(next(items))
    except StopIteration:
        pass
    except Exception as error:
        return taken, error
    return taken, None


@contextmanager
def _closing(items: Iterator[F]) -> Iterator[Iterator[F]]:
    try:
        yield items
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
