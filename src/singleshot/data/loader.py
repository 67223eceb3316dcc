"""Batches of training images.

The order of the training data is one endless stream without state: for each epoch a seeded permutation of the images,
one after another. Step t of a global batch of G images takes positions [t * G, (t + 1) * G), and rank r of R takes its
contiguous G / R of these. The random numbers of a sample come from (seed, position) only. So the batches are the same
with any number of workers, in one process or several, and from any first step.
"""

from __future__ import annotations

import multiprocessing.connection
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.deep import DeepRange
from singleshot.data.image_cache import ImageCache
from singleshot.data.images import read_image
from singleshot.data.transforms import Sample, Transform
from singleshot.errors import UserError

_ORDER, _SAMPLE = 0, 1  # two streams of random numbers under one seed


class WorkerLostError(UserError):
    """A process that prepares images was killed, or ended by itself. All batches before were whole."""


@dataclass(frozen=True)
class TrainBatch:
    """One step's images (of this rank) and their objects."""

    images: list[Tensor]  # uint8 [3, H, W] RGB, contiguous
    targets: list[dict[str, Tensor]]  # "boxes" [N, 4] float32 pixels of the image, "labels" int64, "iscrowd" bool
    names: list[str]
    step: int


def train_loader(
    dataset: Dataset,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    steps: int | None = None,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_difficult: bool = False,
    crowd: Literal["drop", "ignore"] = "ignore",
    deep_range: DeepRange | None = None,
    cache: ImageCache | None = None,
) -> Iterable[TrainBatch]:
    """The batches of steps `start_step`, `start_step` + 1, ... below `steps` (without end when None).

    `batch_size` is the number of images of one rank. Workers are started once and end with the iteration. An image
    that cannot be read raises a `UserError` that names it; a worker that was killed, a `WorkerLostError`.
    `drop_difficult` leaves VOC's difficult objects out (SSD trains on them). `crowd` drops COCO's crowd regions, or
    passes them on as regions to ignore ("iscrowd"). Deep images are read by `deep_range`.
    `cache` keeps decoded images; it must be that of these records, in their order.
    """
    if batch_size < 1:
        raise UserError(f"a batch of {batch_size} images: give a batch size of at least 1.")
    if seed < 0:
        raise UserError(f"seed {seed}: give 0 or a positive whole number.")
    if not len(dataset):
        raise UserError(f"{dataset.root}: the split {dataset.split!r} has no images to train on; choose another split.")
    if crowd not in ("drop", "ignore"):
        raise UserError(f"crowd={crowd!r}: give 'drop' or 'ignore'.")
    order = StreamOrder(len(dataset), batch_size, seed, start_step, steps, rank, world_size)
    images = _TrainingImages(
        dataset.records, transform, seed, batch_size * world_size, drop_difficult, crowd, deep_range, cache
    )
    return _batches(_loader(images, order, workers))


@dataclass(frozen=True)
class StreamOrder:
    """Which images each step takes: lists of (index of the image, position in the stream)."""

    length: int  # images in the dataset
    batch_size: int  # of one rank
    seed: int
    start_step: int = 0
    steps: int | None = None
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step, epoch = self.start_step, -1
        permutation: NDArray[np.int64] = np.empty(0, np.int64)
        while self.steps is None or step < self.steps:
            batch = []
            for position in self.positions(step):
                if position // self.length != epoch:
                    epoch = position // self.length
                    permutation = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(self.length)
                batch.append((int(permutation[position % self.length]), position))
            yield batch
            step += 1

    def positions(self, step: int) -> range:
        """The positions in the stream that this rank takes at a step."""
        first = (step * self.world_size + self.rank) * self.batch_size
        return range(first, first + self.batch_size)


@dataclass(frozen=True)
class _Packed:
    """The form of a batch between processes: few large tensors, since each tensor costs a file descriptor."""

    images: Tensor | list[Tensor]  # [B, 3, H, W] where all have one size
    boxes: Tensor  # [sum of counts, 4]
    labels: Tensor
    crowd: Tensor
    counts: list[int]
    names: list[str]
    step: int


@dataclass(frozen=True)
class _Failure:
    """A user's error that a worker returns; if it were raised, torch would bury the message in a traceback."""

    message: str


@dataclass(frozen=True)
class _TrainingImages:
    records: tuple[ImageRecord, ...]
    transform: Transform
    seed: int
    global_batch: int
    drop_difficult: bool
    crowd: str
    deep_range: DeepRange | None = None
    cache: ImageCache | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, batch: list[tuple[int, int]]) -> _Packed | _Failure:
        try:
            samples = [self.sample(index, position) for index, position in batch]
        except UserError as error:
            return _Failure(str(error))
        return _Packed(
            images=_stack([sample.image for sample in samples]),
            boxes=torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
            labels=torch.from_numpy(np.concatenate([sample.labels for sample in samples])),
            crowd=torch.from_numpy(np.concatenate([sample.crowd for sample in samples])),
            counts=[len(sample.labels) for sample in samples],
            names=[self.records[index].name for index, _ in batch],
            step=batch[0][1] // self.global_batch,
        )

    def sample(self, index: int, position: int) -> Sample:
        record = self.records[index]
        keep = np.ones(len(record.labels), np.bool_)
        if self.drop_difficult:
            keep &= ~record.difficult
        if self.crowd == "drop":
            keep &= ~record.crowd
        boxes = record.boxes[keep].astype(np.float32).reshape(-1, 4)
        read = partial(_read, record.path, self.deep_range)
        image = read() if self.cache is None else self.cache.read(index, read)
        sample = Sample(image, boxes, record.labels[keep], record.crowd[keep])
        return self.transform(sample, np.random.default_rng([self.seed, _SAMPLE, position]))


def _read(path: Path, deep_range: DeepRange | None) -> NDArray[np.uint8]:
    try:
        return read_image(path, deep_range=deep_range)
    except OSError as error:  # gone since it was checked, or no permission
        raise UserError(f"{path}: cannot be read ({error}). Check that it exists and that you may read it.") from error


def _stack(images: list[NDArray[np.uint8]]) -> Tensor | list[Tensor]:
    """Images [H, W, 3] as one tensor [B, 3, H, W] if they have the same size, else a tensor for each."""
    if len({image.shape for image in images}) > 1:
        return [_channels_first(image) for image in images]
    height, width, _ = images[0].shape
    stacked = np.empty((len(images), 3, height, width), np.uint8)
    for target, image in zip(stacked, images, strict=True):
        for channel, plane in zip(target, cv2.split(image), strict=True):
            channel[:] = plane
    return torch.from_numpy(stacked)


def _channels_first(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.stack(cv2.split(image)))


def _loader(dataset: Any, batches: Iterable[Any], workers: int) -> DataLoader[Any]:
    if workers < 0:
        raise UserError(f"{workers} workers: give 0 or more.")
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_hand_over,
        worker_init_fn=_start_worker,
        # torch draws a base seed for the workers, by default from the global generator. That would advance it, and a
        # resumed run would differ from an uninterrupted one. Nothing here uses that seed.
        generator=torch.Generator(),
    )


def _hand_over(found: Any) -> Any:
    """Put a worker's batch into shared memory here. Later it would be done by a thread whose errors lose the batch."""
    if isinstance(found, _Failure) or get_worker_info() is None:
        return found
    try:
        images = found.images if isinstance(found.images, list) else [found.images]
        for tensor in (*images, found.boxes, found.labels, found.crowd):
            tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        return _Failure(
            f"a batch finds no place in shared memory ({str(error).splitlines()[0]}){_shared_memory()}. Give it "
            "more (in a container: --shm-size 2g), or use fewer processes: --data.workers N, with 0 for none"
        )
    return found


def _shared_memory() -> str:
    """How much shared memory this machine has, where the system says so."""
    try:
        found = shutil.disk_usage("/dev/shm")
    except OSError:
        return ""
    return f"; /dev/shm has {found.total >> 20:,} MiB, {found.free >> 20:,} of them free"


def _start_worker(_: int) -> None:
    # One worker is one thread. A signal to the whole process group reaches the workers too; only the main process
    # handles it, and ends them.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)


def _batches(loader: DataLoader[Any]) -> Iterator[TrainBatch]:
    with _same_child_handler():
        source = iter(loader)
    while True:
        try:
            packed = next(source)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if str(error).startswith("Caught "):  # an error of our code in a worker, not the end of one
                raise
            workers = getattr(source, "_workers", ())
            # A worker that is killed while it hands over a batch breaks the connection, and is gone a moment later.
            ended = multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=2)
            for worker in workers:
                if worker.sentinel in ended:
                    worker.join(timeout=2)
            if codes := [worker.exitcode for worker in workers if worker.exitcode]:
                raise WorkerLostError(_lost(min(codes))) from error
            raise
        if isinstance(packed, _Failure):
            raise UserError(packed.message)
        parts = (tensor.split(packed.counts) for tensor in (packed.boxes, packed.labels, packed.crowd))
        targets = [
            {"boxes": boxes, "labels": labels, "iscrowd": crowd} for boxes, labels, crowd in zip(*parts, strict=True)
        ]
        yield TrainBatch(list(packed.images), targets, packed.names, packed.step)


@contextmanager
def _same_child_handler() -> Iterator[None]:
    """Keep the handler of SIGCHLD. torch's raises an error in the middle of a step as soon as a worker has ended.

    Without it, a worker that has ended is found when the next batch is asked for: all steps until then are whole.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _lost(code: int) -> str:
    """What happened to a worker, by its exit code, and what to do."""
    how = f"it ended with the exit code {code}"
    if code < 0:
        with suppress(ValueError):
            how = f"it was killed by the signal {signal.Signals(-code).name}"
    return (
        f"a process that prepares images is gone: {how}. Is the machine out of memory{_shared_memory()}? Use fewer "
        "such processes (--data.workers N, with 0 for none) or smaller images; in a container, give it more memory "
        "(--memory) and more shared memory (--shm-size 2g)"
    )
