"""Decoded images that are kept for the next epoch: in memory, or in one file on the disk.

Every image has its place from the beginning. Whoever reads it first puts it there: a worker, or another run with the
same data. The same pixels come from the same file, so it does no harm if two do it at the same time.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from singleshot.data.dataset import ImageRecord
from singleshot.errors import UserError

Pixels = NDArray[np.uint8]
Where = Literal["ram", "disk"]
_MARK = 8  # bytes for each image at the beginning of the store: 1 if it is there, and the checksum of its pixels
_KEPT_FREE = 0.1  # share of the free memory or disk that is never taken


class ImageCache:
    """The decoded images of a dataset, by their number.

    An image whose file has changed since the beginning, or which is not of the size that its annotation says, is read
    anew each time.

    Args:
        records: the images. Their sizes say how much is needed.
        folder: for "disk", where the file is.
        reading: what else decides the pixels, such as the range of deep images.
        copies: how many processes keep one of these each.

    Raises:
        UserError: there is not enough memory, or no place on the disk.
    """

    def __init__(
        self, where: Where, records: Sequence[ImageRecord], folder: Path, *, reading: str = "", copies: int = 1
    ) -> None:
        self.where, self.paths = where, [record.path for record in records]
        self.sizes = [record.size for record in records]
        self.stamps = [_stamp(path) for path in self.paths]
        bytes_of = np.array([3 * height * width for height, width in self.sizes], np.int64)
        self.begins = _MARK * len(records) + np.cumsum(bytes_of) - bytes_of
        self.total = _MARK * len(records) + int(bytes_of.sum())
        self.verified: set[int] = set()
        self.file = folder / f"{self._key(reading)}.pixels"
        self.store = self._memory(copies) if where == "ram" else self._on_disk()

    def __str__(self) -> str:
        place = "memory, for all processes that prepare images" if self.where == "ram" else f"{self.file}"
        return f"cache: {len(self.paths):,} decoded images take {_megabytes(self.total)} in {place}"

    def __reduce__(self) -> str | tuple[object, ...]:
        """Workers that are not forked cannot see this memory."""
        raise UserError(
            f"data.cache {self.where} needs processes that fork, which this system does not start: use --cache none, "
            "or --data.workers 0"
        )

    def read(self, index: int, read: Callable[[], Pixels]) -> Pixels:
        """The image, from its place if it is there; not to be changed."""
        height, width = self.sizes[index]
        begin = int(self.begins[index])
        if self.stamps[index] is None or _stamp(self.paths[index]) != self.stamps[index]:
            return read()
        place = self.store[begin : begin + 3 * height * width]
        mark = self.store[_MARK * index : _MARK * (index + 1)].view(np.uint32)
        if mark[0] == 1 and (index in self.verified or mark[1] == zlib.crc32(place.data)):
            self.verified.add(index)
            pixels = place.reshape(height, width, 3)
            pixels.flags.writeable = False
            return pixels
        found = read()
        if found.shape == (height, width, 3):
            place[:] = found.reshape(-1)
            mark[1] = zlib.crc32(place.data)
            mark[0] = 1  # last: only a whole image is there
        return found

    def _key(self, reading: str) -> str:
        digest = hashlib.sha256(reading.encode())
        for path, size, stamp in zip(self.paths, self.sizes, self.stamps, strict=True):
            digest.update(os.fsencode(os.path.abspath(path)) + repr((size, stamp)).encode())
        return digest.hexdigest()[:24]

    def _memory(self, copies: int) -> Pixels:
        free = _free_memory()
        if free is not None and self.total * copies > free * (1 - _KEPT_FREE):
            times = f" in each of {copies} processes" if copies > 1 else ""
            raise UserError(
                f"data.cache ram: {len(self.paths):,} decoded images take {_megabytes(self.total)}{times}, and "
                f"{_megabytes(free)} of memory are free. Use data.cache disk, or none"
            )
        return np.frombuffer(mmap.mmap(-1, max(self.total, 1)), np.uint8)  # forked processes share it

    def _on_disk(self) -> Pixels:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if not (self.file.exists() and self.file.stat().st_size == max(self.total, 1)):
                self._make_file()
            with self.file.open("r+b") as opened:
                return np.frombuffer(mmap.mmap(opened.fileno(), 0), np.uint8)
        except OSError as error:
            raise UserError(
                f"data.cache disk: {self.file.parent} cannot hold {_megabytes(self.total)} of decoded images "
                f"({error}). Name another folder with SINGLESHOT_CACHE, or use data.cache none"
            ) from error

    def _make_file(self) -> None:
        """Take the whole place now: a disk that is full later would end the process when it writes."""
        free = shutil.disk_usage(self.file.parent).free
        if self.total > free * (1 - _KEPT_FREE):
            raise UserError(
                f"data.cache disk: {len(self.paths):,} decoded images take {_megabytes(self.total)}, and "
                f"{self.file.parent} has {_megabytes(free)} free. "
                "Name another folder with SINGLESHOT_CACHE, or use data.cache none"
            )
        part = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as opened:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(opened.fileno(), 0, max(self.total, 1))
                else:
                    for begin in range(0, max(self.total, 1), 1 << 24):
                        opened.write(bytes(min(1 << 24, max(self.total, 1) - begin)))
            with suppress(FileExistsError):  # another run was first
                os.link(part, self.file)
        finally:
            part.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written; None: there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _free_memory() -> int | None:
    """Bytes that this process may still take; None: the system does not say."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))))
    with suppress(OSError, ValueError):  # the limit of a container
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    return min(found, default=None)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
