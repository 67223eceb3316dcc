"""How a model is run, in the same words everywhere: device, precision, threads."""

from __future__ import annotations

from dataclasses import dataclass

from singleshot.errors import UserError, short

PRECISIONS = ("auto", "fp32", "bf16", "int8")
"""The words for number formats, as in recipes. `auto` is the fastest that finds the same objects."""

LONG_NAMES = {"float32": "fp32", "bfloat16": "bf16"}
"""Other names of the same."""

MOST_THREADS = 1_000


@dataclass(frozen=True)
class Options:
    """How to run a model.

    Raises `UserError` for a precision that is not one of `PRECISIONS` (or its long name), and for an impossible number
    of threads.
    """

    device: str = "cpu"
    precision: str = "auto"
    threads: int | None = None  # for the computation; None: the engine's own choice
    exact: bool = False  # with the precision `auto`: nothing below the file's own precision, to measure with

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", known_precision(self.precision))
        wrong = isinstance(self.threads, bool) or not isinstance(self.threads, int | None)
        if wrong or (self.threads is not None and not 1 <= self.threads <= MOST_THREADS):
            raise UserError(f"threads must be a whole number, 1 to {MOST_THREADS}, got {short(self.threads)}")

    def computed(self, held: str, *, title: str, bf16: bool, where: str = "") -> str:
        """The precision to compute in, for a file that holds a model in the precision `held`.

        `bf16`: whether the processor has it in hardware. It is taken by itself only there.

        Raises `UserError` where the file or the processor does not have what is asked for.
        """
        if self.precision == "int8" and held != "int8":
            raise UserError(
                f"{where}holds the model in {held}, and int8 is asked for; int8 needs images to measure the ranges "
                "of values: singleshot export MODEL.safetensors --precision int8 --calibrate DATA --out MODEL.xml"
            )
        if self.precision != "auto" and held == "int8":
            if self.precision != "int8":
                raise UserError(
                    f"{where}holds the model in int8, and {self.precision} is asked for; take --precision int8, or "
                    f"export the detector with --precision {self.precision}"
                )
            return "int8"
        if self.precision == "bf16" and not bf16:
            raise UserError(
                f"{where}{title} cannot compute in bf16 here: this needs a processor with AMX or AVX512-BF16, and "
                "elsewhere it would be slower than fp32; take --precision fp32"
            )
        if self.precision != "auto":
            return self.precision
        if held == "int8":
            return held
        return "bf16" if bf16 and not (self.exact and held == "fp32") else "fp32"


def known_precision(word: object) -> str:
    """The short name of a precision. Raises `UserError` for another word."""
    known = LONG_NAMES.get(word, word) if isinstance(word, str) else None
    if known not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, got {short(word)}")
    return known
