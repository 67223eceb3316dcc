"""What is known of published weights: from where they come, and what their publisher says of them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from singleshot.fetch import LARGEST, Wanted

Triple = tuple[float, float, float]

DEFAULT_PIXELS = "imagenet_rgb"


@dataclass(frozen=True)
class Weights:
    """One file of weights. Nothing here is guessed: what the source does not say is left out."""

    name: str
    """What a user calls it."""
    trained_on: str
    """The data, as the source calls it."""
    source: str
    """Where these facts stand."""
    terms: str
    """What the source says on its licence."""
    backbones: tuple[str, ...]
    """The backbones whose weights it holds; of a detector: that of the detector."""
    detector: str | None = None
    """The builder of the detector that it is; None: a backbone alone."""
    class_names: tuple[str, ...] = ()
    """Of a detector whose file does not name its classes, nor its layout: in the file's order."""
    published: str = ""
    """The figure that the source gives."""
    pixels: str | tuple[Triple, Triple, str] = DEFAULT_PIXELS
    """The pixel values that a backbone's weights expect: `pixels` of the builders."""
    url: str | None = None
    """None: it comes in an installed package (`installed_weights`)."""
    size: tuple[int, int] | None = None
    """The least and the most bytes that it can have, as published."""
    sha256: str = ""
    """As published: 64 hexadecimal digits, or the first ones; "": none."""

    @property
    def file(self) -> str:
        """The name of the file, here and at a mirror."""
        return "" if self.url is None else urlsplit(self.url).path.rpartition("/")[2]

    @property
    def about_size(self) -> str:
        """The size in words; "" if it is not published."""
        return "" if self.size is None else f"{sum(self.size) / 2e6:.1f} MB"

    def wanted(self, mirror: str | None = None) -> Wanted:
        """What to fetch, from the official address or from a mirror: a folder on the web that holds these files."""
        least, most = self.size or (1, LARGEST)
        url = self.url if mirror is None else f"{mirror.rstrip('/')}/{self.file}"
        return Wanted(url or "", least, most, self.sha256)


def mebibytes(published: float) -> tuple[int, int]:
    """The least and the most bytes of a file whose size is published in 2**20 bytes with three decimals."""
    unit = 2**20
    return int((published - 0.0006) * unit), int((published + 0.0006) * unit)


def exactly(size: int) -> tuple[int, int]:
    """The least and the most bytes of a file whose size is published."""
    return size, size
