"""The one loop over images: order, errors, memory, and an end that leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from singleshot.errors import UserError
from singleshot.stream import Frame, batches, counting, read_ahead, stream

T = TypeVar("T")


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("singleshot-read")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert readers() == []


def doubled(batch: list[int]) -> list[int]:
    return [2 * number for number in batch]


def drain(items: Iterable[T], found: list[T]) -> None:
    """Take items one by one, as a consumer does: what came before an error is kept."""
    for item in items:
        found.append(item)


def fails_at(bad: int, error: type[Exception] = UserError) -> Callable[[int], int]:
    def read(number: int) -> int:
        if number == bad:
            raise error(f"number {number} cannot be read")
        return number

    return read


def test_frames_come_with_their_results_in_batches() -> None:
    seen: list[list[int]] = []

    def look(batch: list[int]) -> list[int]:
        seen.append(batch)
        return doubled(batch)

    assert list(stream(range(5), look, batch_size=2)) == [(k, 2 * k) for k in range(5)]
    assert seen == [[0, 1], [2, 3], [4]]
    assert list(stream([], look, batch_size=2)) == []


def test_batches_are_never_empty_and_tell_when_they_are_done() -> None:
    told: list[int] = []
    assert list(batches(iter(range(4)), 2, after=told.append)) == [[0, 1], [2, 3]]
    assert told == [2, 4]
    groups = batches(range(3), 2, after=told.append)
    next(groups)
    assert told == [2, 4]  # the first batch is still with the consumer
    groups.close()


def test_bad_numbers_are_refused_at_the_call() -> None:
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        batches([1], 0)
    with pytest.raises(UserError, match="workers must be at least 0, got -1"):
        read_ahead([1], int, workers=-1)


def test_one_result_for_each_frame() -> None:
    with pytest.raises(UserError, match="gave 1 results for 2 images; it must give one for each"):
        list(stream([1, 2], lambda batch: batch[:1], batch_size=2))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reading_ahead_keeps_the_order(workers: int) -> None:
    def read(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)  # the later ones are ready first
        return 10 * number

    assert list(read_ahead(range(20), read, workers=workers, ahead=4)) == [10 * k for k in range(20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_after_the_frames_before_it(workers: int) -> None:
    found: list[tuple[int, int]] = []
    with pytest.raises(UserError, match="number 4"):
        drain(stream(read_ahead(range(9), fails_at(4), workers=workers), doubled, batch_size=3), found)
    assert found == [(k, 2 * k) for k in range(4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_sources_comes_after_what_they_gave(workers: int) -> None:
    def sources() -> Iterator[int]:
        yield from range(5)
        raise RuntimeError("the camera is gone")

    found: list[tuple[int, int]] = []
    with pytest.raises(RuntimeError, match="camera"):
        drain(stream(read_ahead(sources(), int, workers=workers), doubled, batch_size=3), found)
    assert [frame for frame, _ in found] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_skipped_where_that_is_asked_for(workers: int) -> None:
    skipped: list[UserError] = []
    frames = read_ahead(range(6), fails_at(2), workers=workers, skip=skipped.append)
    assert [frame for frame, _ in stream(frames, doubled, batch_size=2)] == [0, 1, 3, 4, 5]
    assert [str(error) for error in skipped] == ["number 2 cannot be read"]
    with pytest.raises(ZeroDivisionError):  # a bug is no bad image
        list(read_ahead(range(6), fails_at(2, ZeroDivisionError), workers=workers, skip=skipped.append))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_detector_ends_the_reading(workers: int) -> None:
    def look(batch: list[int]) -> list[int]:
        if 3 in batch:
            raise ZeroDivisionError
        return doubled(batch)

    found: list[tuple[int, int]] = []
    with pytest.raises(ZeroDivisionError):
        drain(stream(read_ahead(range(100), int, workers=workers), look, batch_size=2), found)
    assert found == [(0, 0), (1, 2)]
    assert readers() == []


def test_leaving_early_ends_the_threads_and_closes_what_was_passed_in() -> None:
    closed: list[bool] = []

    def sources() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    reads: list[int] = []

    def read(number: int) -> int:
        reads.append(number)
        return number

    pairs = stream(read_ahead(sources(), read, workers=2, ahead=4), doubled, batch_size=2)
    assert next(pairs) == (0, 0)
    assert readers()
    pairs.close()
    assert closed == [True]
    assert readers() == []
    assert len(reads) <= 2 + 4 + 1


class Image:
    """Something whose life can be watched."""


@pytest.mark.parametrize("workers", [0, 3])
def test_few_frames_are_alive_at_a_time(workers: int) -> None:
    alive: weakref.WeakSet[Image] = weakref.WeakSet()
    most, ahead, size = 0, 4, 2

    def read(number: int) -> Image:
        nonlocal most
        image = Image()
        alive.add(image)
        most = max(most, len(alive))
        return image

    def look(batch: list[Image]) -> list[int]:
        return [id(image) for image in batch]

    frames = read_ahead(range(200), read, workers=workers, ahead=ahead)
    total = 0
    for frame, _ in stream(frames, look, batch_size=size):
        total += 1
        del frame
    assert total == 200
    assert most <= size + 1 + (ahead + 1 if workers else 0)
    assert len(alive) == 0


def test_an_error_keeps_no_frame_alive() -> None:
    alive: weakref.WeakSet[Image] = weakref.WeakSet()

    def read(number: int) -> Image:
        if number == 3:
            raise UserError("broken")
        image = Image()
        alive.add(image)
        return image

    def run() -> None:
        with pytest.raises(UserError):
            list(stream(read_ahead(range(9), read, workers=2), lambda batch: [0 for _ in batch], batch_size=2))

    import gc

    gc.disable()
    try:
        run()
        assert len(alive) == 0
    finally:
        gc.enable()


def test_progress_tells_no_number_twice() -> None:
    told: list[tuple[int, int]] = []
    tell = counting(lambda done, total: told.append((done, total)), 3)
    tell(2), tell(2), tell(3)
    assert told == [(0, 3), (2, 3), (3, 3)]
    counting(None, 3)(1)


@pytest.mark.parametrize("size", [(4, 5), (1, 5), (4, 1), (1, 1)])
@pytest.mark.parametrize("last", [False, True])
def test_a_frame_as_a_tensor_and_as_a_picture(size: tuple[int, int], last: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    if last:
        pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)
    frame = Frame(pixels, "a.jpg")
    assert frame.size == size
    assert np.array_equal(frame.picture(), pixels.transpose(1, 2, 0))
    frame.tensor()[2, 0, 0] = 7
    assert pixels[2, 0, 0] == 7  # the same memory
    assert frame.tensor().dtype == torch.uint8


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_ends_at_once_and_leaves_no_thread(tmp_path: Path) -> None:
    """In a process of its own: the signal comes while the detector looks, with readers at work."""
    code = """
import signal, sys, threading, time
from singleshot.stream import read_ahead, stream

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored

def look(batch):
    print("looking", flush=True)
    time.sleep(60)
    return batch

try:
    for pair in stream(read_ahead(range(10**6), int, workers=3), look, batch_size=4):
        pass
except KeyboardInterrupt:
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("singleshot")]
    print("interrupted", left, "torch" in sys.modules, flush=True)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "looking\n"
    time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=20)
    assert out == "interrupted [] False\n"
