"""The losses of a step, read while the next step runs: no wait for the device, and every NaN is found."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from singleshot.data.loader import TrainBatch
from singleshot.errors import UserError
from singleshot.tensor_files import packed, unpacked
from singleshot.training.clock import Verdict
from singleshot.training.folder import RunFolder
from singleshot.training.parallel import Ranks


class DivergedError(UserError):
    """A loss became NaN or infinite. `names` are the images of that step, `path` the file with its batch."""

    def __init__(self, message: str, *, names: list[str], terms: list[str], path: Path | None) -> None:
        super().__init__(message)
        self.names, self.terms, self.path = names, terms, path


@dataclass(frozen=True)
class StepReport:
    """The results of one step for the log: means over all processes."""

    step: int  # steps done, including this one
    losses: dict[str, float]
    stop: bool  # whether any process was asked to stop
    save: bool  # whether the first process says that it is time to save
    verdict: Verdict  # of the first process, about a run by the clock


class PendingReport:
    """The losses of a step on their way from the device to the host."""

    def __init__(
        self,
        step: int,
        losses: dict[str, Tensor],
        batches: list[TrainBatch],
        ranks: Ranks,
        *,
        rate: float,
        stop: bool,
        save: bool,
        verdict: Verdict,
    ) -> None:
        self.rate = rate
        self.step, self.names, self.batches, self.ranks = step, list(losses), batches, ranks
        own = torch.stack([value.detach().float() for value in losses.values()])
        asked = torch.tensor([*(ranks.world * number for number in verdict.numbers()), stop, save], device=own.device)
        shared = ranks.mean(torch.cat([own, asked]))
        self._values = torch.cat([own, shared]).to("cpu", non_blocking=True)
        self._ready: torch.cuda.Event | None = None
        if own.device.type == "cuda":
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()

    def read(self, folder: RunFolder) -> StepReport:
        """Wait for this step only, and check its losses.

        Raises:
            DivergedError: a loss of any process is not finite; all processes raise it at the same step.
        """
        if self._ready is not None:
            self._ready.synchronize()
        values = self._values.tolist()
        count = len(self.names)
        own = dict(zip(self.names, values[:count], strict=True))
        shared = dict(zip(self.names, values[count : 2 * count], strict=True))
        if not all(math.isfinite(value) for value in shared.values()):
            self._diverged(own, folder)
        share, validate, over, stop, save = values[2 * count :]
        verdict = Verdict(share, validate=validate > 0, over=over > 0)
        return StepReport(self.step, shared, stop=stop > 0, save=save > 0, verdict=verdict)

    def _diverged(self, own: dict[str, float], folder: RunFolder) -> None:
        bad = [name for name, value in own.items() if not math.isfinite(value)]
        path: Path | None = folder.path / f"diverged-{self.step}-{self.ranks.rank}.safetensors"
        where = f"The batch is saved in {path}"
        names = [name for batch in self.batches for name in batch.names]
        if bad and path is not None:
            try:
                self._save(path, own)
            except UserError as error:  # a full disk: the loss is the news
                path, where = None, f"The batch is not saved: {error}"
        found = [item for item in self.ranks.gather((bad, names, path, where)) if item[0]]
        terms = sorted({term for item in found for term in item[0]})
        images = [name for item in found for name in item[1]]
        first, told = (found[0][2], f"{found[0][3]}. ") if found else (None, "")
        message = (
            f"step {self.step}: the loss became NaN or infinite (term {', '.join(terms)}) on the images "
            f"{', '.join(images)}. "
            f"{told}Lower optimizer.lr, or set schedule.warmup_steps or optimizer.clip_norm"
        )
        if folder.state.exists():
            message += f"; `{folder.to_resume}` repeats the steps since the last saved state"
        raise DivergedError(message, names=images, terms=terms, path=first)

    def _save(self, path: Path, losses: dict[str, float]) -> None:
        """Images, boxes and labels as tensors; names and losses as JSON in the file's metadata."""
        tensors: dict[str, Tensor] = {}
        names: list[str] = []
        for batch in self.batches:
            for image, target, name in zip(batch.images, batch.targets, batch.names, strict=True):
                index = len(names)
                tensors[f"{index}.image"] = image
                tensors.update({f"{index}.{key}": value for key, value in target.items()})
                names.append(name)
        text = {"names": json.dumps(names), "step": str(self.step), "losses": json.dumps(losses)}
        RunFolder(path.parent).write(path, packed(tensors, text))


def load_batch(path: str | Path) -> tuple[list[Tensor], list[dict[str, Tensor]], list[str]]:
    """The images, targets and names of a step that was saved because its loss was not finite."""
    tensors, text = unpacked(Path(path).read_bytes(), f"{path}: ")
    names = json.loads(text["names"])
    images = [tensors.pop(f"{i}.image") for i in range(len(names))]
    targets = [
        {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == str(i)}
        for i in range(len(names))
    ]
    return images, targets, names
