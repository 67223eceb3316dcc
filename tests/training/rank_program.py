"""What each process of a test of several processes runs: `rank_program.py OUT SETTINGS`, with JSON settings.

Settings: "builders" (name -> the recipe's builder and arguments; a run for each), "recipe" (a YAML file), "changes" (to
it), "kill" (die before this step), "resume" (continue the runs).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_detector import OWN
from torch import Tensor, nn

from singleshot.data.loader import TrainBatch
from singleshot.training import from_yaml, loop, override, train
from singleshot.training.parallel import start_ranks
from singleshot.training.run import Run


def main(out: Path, settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    recipe = override(from_yaml(settings["recipe"]), settings.get("changes", {}))
    original = loop.step

    def step(run: Run, batches: list[TrainBatch], rate: float) -> dict[str, Tensor]:
        if run.progress.step == settings.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        with (run.folder.path.parent / f"{run.folder.path.name}-images-{run.ranks.rank}.jsonl").open("a") as file:
            file.write(json.dumps([run.progress.step, [name for batch in batches for name in batch.names]]) + "\n")
        return original(run, batches, rate)

    def set_mode(run: Run) -> None:
        """Without the statistics of batches: those differ by their nature."""
        run.model.train()
        for module in run.detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    loop.step = step  # type: ignore[assignment]
    Run.set_mode = set_mode  # type: ignore[method-assign]
    with start_ranks("cpu"):  # one group for all runs
        for name, changes in settings["builders"].items():
            folder = out / name
            if settings.get("resume"):
                train(override(from_yaml(folder / "recipe.yaml"), settings["changes"]), resume=folder, builder=OWN)
            else:
                train(override(recipe, changes), out=folder, builder=changes.get("builder", OWN))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
