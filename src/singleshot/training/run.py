"""One run: its objects, and what happens around a step: log, validation, saving."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from singleshot.data.loader import TrainBatch, train_loader
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.evaluation.metrics import evaluate
from singleshot.plain_data import to_plain
from singleshot.training import setup
from singleshot.training.ema import Average
from singleshot.training.folder import RunFolder, saving
from singleshot.training.interrupt import StopSignals
from singleshot.training.optimizer import create_optimizer, keep_norm_statistics
from singleshot.training.parallel import Ranks
from singleshot.training.progress import Display, Speedometer
from singleshot.training.recipe import Recipe
from singleshot.training.schedule import rate_factor, scaled_rate, total_steps
from singleshot.training.state import Progress, SavedState, pack_state, random_state, set_random_state
from singleshot.training.step_report import PendingReport, StepReport
from singleshot.training.tracking import Trackers
from singleshot.weights import checkpoint

_FEW_TIMES = 8  # that a run of so many images shows each: the recipe `finetune` has them with 3,000 images
_FEW_CLASSES = 20  # up to so many are named when a run begins


class Run:
    """One training run: the objects that it needs, and what the loop asks of them."""

    folder: RunFolder

    def __init__(self, recipe: Recipe, ranks: Ranks, data: setup.RunData, detector: Detector) -> None:
        self.recipe, self.ranks, self.data = recipe, ranks, data
        self.accumulate = recipe.optimizer.accumulate
        self.images_per_step = recipe.batch_size * ranks.world * self.accumulate
        self.steps_per_epoch = max(1, round(len(data.train) / self.images_per_step))
        self.total = total_steps(recipe.schedule, self.steps_per_epoch, self.images_per_step)
        self.rate = scaled_rate(recipe.optimizer, self.images_per_step)

        layout = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
        self.detector = detector.to(ranks.device, memory_format=layout)  # type: ignore[call-overload]
        self.detector.precision = recipe.compute.precision
        self.transform = setup.build_transform(recipe.augmentation, self.detector.preprocess)
        self.average = (
            Average(self.detector, decay=recipe.ema.decay, ramp=recipe.ema.ramp) if recipe.ema.decay else None
        )
        self.optimizer = create_optimizer(self.detector, recipe.optimizer)
        self.progress = Progress(total=self.total, classes=list(data.train.class_names), data=data.fingerprint)
        # Initial weights are the same everywhere; what is drawn in the network from here on (dropout) is not.
        torch.manual_seed(recipe.seed + ranks.rank)

        if recipe.compute.compile:
            self.detector.network = torch.compile(self.detector.network)
        self.model: nn.Module = self.detector
        if ranks.world > 1:
            devices = [ranks.device] if ranks.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.detector, device_ids=devices, gradient_as_bucket_view=True)
        self.display = Display(self.total, quiet=not ranks.first)
        self.speed = Speedometer(self.images_per_step)
        self._saved_at = time.monotonic()

    @property
    def result_detector(self) -> Detector:
        """The weights that are evaluated and saved: the average where there is one."""
        detector: Detector = self.average.detector if self.average is not None else self.detector
        return detector

    def restore(self, saved: SavedState, before: Recipe) -> None:
        """Go back to a saved state: weights, average, optimiser, generators, log.

        `before` is the recipe that the run went by until then: a best of another metric is none.
        """
        if saved.progress.data != self.data.fingerprint:
            raise UserError(f"{self.folder.path}: the training images or boxes are not those that the run began with")
        saved.restore(self.detector, self.optimizer, self.average.detector if self.average else None)
        set_random_state(saved.random(self.ranks.rank), self.ranks.device)
        self.progress = progress = saved.progress
        measured = [(r.validation.metric, r.data.val_path, r.data.val_split) for r in (before, self.recipe)]
        if measured[0] != measured[1]:  # numbers that cannot be compared
            progress.best, progress.best_step, progress.stale = None, None, 0
        progress.total = self.total
        progress.finished = self._stale() or (progress.step >= self.total and not self.validation_due())
        if self.ranks.first:
            step, validated = saved.progress.step, saved.progress.validated
            self.folder.cut_log(lambda entry: entry["step"] <= (validated if entry["kind"] == "validation" else step))

    # -------------------------------------------------------------------------------------------------------- a step
    def batches(self) -> Iterator[TrainBatch]:
        recipe = self.recipe
        loader = train_loader(
            self.data.train,
            self.transform,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            start_step=self.progress.step * self.accumulate,
            steps=self.total * self.accumulate,
            workers=setup.worker_count(recipe.data.workers, self.ranks.world),
            rank=self.ranks.rank,
            world_size=self.ranks.world,
            drop_difficult=recipe.data.drop_difficult,
            crowd=recipe.data.crowd,
        )
        return iter(loader)

    def set_mode(self) -> None:
        self.model.train()
        steps = self.recipe.optimizer.freeze_norm_steps
        if steps < 0 or self.progress.step < steps:
            keep_norm_statistics(self.detector)

    def rate_at(self, step: int) -> float:
        return self.rate * rate_factor(self.recipe.schedule, step, self.total)

    # ------------------------------------------------------------------------------------------------------------- log
    def announce(self, notes: list[str]) -> None:
        recipe, ranks = self.recipe, self.ranks
        size = "x".join(map(str, self.detector.image_size))
        epochs = self.total / self.steps_per_epoch
        val = f"{len(self.data.val)} to validate on" if self.data.val is not None else "no validation"
        base = recipe.optimizer.base_batch_size
        rate = f"{recipe.optimizer.lr:g} x {self.images_per_step}/{base} images" if base else "not scaled"
        lines = [
            f"run folder: {self.folder.path}",
            *notes,
            f"{recipe.builder} at {size}, {self._classes()}; {len(self.data.train)} images to train on, {val}",
            f"{self.total} steps of {self.images_per_step} images ({recipe.batch_size} x {ranks.world} processes x "
            f"{self.accumulate} batches), {epochs:.1f} epochs; learning rate {self.rate:g} ({rate})",
            f"{ranks.device}, {recipe.compute.precision}{', compiled' if recipe.compute.compile else ''}, "
            f"torch {torch.__version__}",
        ]
        if self.images_per_step > len(self.data.train):
            lines.append(
                f"note: a step takes {self.images_per_step} images, more than there are ({len(self.data.train)}): "
                "a smaller --batch-size makes more steps of an epoch"
            )
        seen = (recipe.schedule.images or 0) / len(self.data.train)
        if recipe.schedule.unit == "images" and seen < _FEW_TIMES:
            lines.append(
                f"note: the run sees each image {seen:.1f} times, which is for fewer of them: with "
                f"{len(self.data.train):,}, more --epochs find more"
            )
        if recipe.schedule.warmup_steps >= self.total:
            lines.append(
                f"note: the run ends within the rate's warm-up of {recipe.schedule.warmup_steps} steps: give it more "
                "--epochs, or a shorter --schedule.warmup_steps"
            )
        if self.progress.step:
            lines.append(f"going on after step {self.progress.step}")
        for line in lines:
            self.display.say(line)
        if self.ranks.first:
            entry = {
                "kind": "start",
                "step": self.progress.step,
                "total": self.total,
                "rate": self.rate,
                "notes": lines,
            }
            self.folder.append(entry)

    def _classes(self) -> str:
        """Their number, and the names where these are few."""
        names = self.detector.class_names
        number = f"{len(names)} class{'es' * (len(names) != 1)}"
        return f"{number} ({', '.join(names)})" if len(names) <= _FEW_CLASSES else number

    def record(self, pending: PendingReport, trackers: Trackers) -> StepReport:
        """Read the losses of a step, check them, show them, and log their mean now and then."""
        report, progress = pending.read(self.folder), self.progress
        for name, value in report.losses.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.summed += 1
        speed = self.speed.update(report.step)
        rate = self.rate_at(report.step - 1)
        self.display.step(report.step, report.losses, rate, speed)
        if report.step % self.recipe.log.every == 0 or report.step == self.total:
            losses = {name: value / progress.summed for name, value in progress.sums.items()}
            progress.sums, progress.summed = {}, 0
            entry: dict[str, Any] = {
                "kind": "step",
                "step": report.step,
                "epoch": round(report.step / self.steps_per_epoch, 4),
                "rate": rate,
                "loss": sum(losses.values()),
                "losses": losses,
                "images_per_second": round(speed, 2),
                "time": round(time.time(), 1),
            }
            if self.ranks.first:
                self.folder.append(entry)
            values = {f"loss/{name}": value for name, value in losses.items()}
            trackers.log({**values, "loss/total": entry["loss"], "rate": rate, "images_per_second": speed}, report.step)
        return report

    # ------------------------------------------------------------------------------------------------------ validation
    def validation_due(self) -> bool:
        step, asked = self.progress.step, self.recipe.validation
        if self.data.val is None or self.progress.validated >= step:
            return False
        if asked.times is not None:
            before, now = ((at * asked.times) // self.total for at in (step - 1, step))
            return now > before
        return step % max(1, round(asked.every * self.steps_per_epoch)) == 0 or step == self.total

    def validate(self, asked: StopSignals, trackers: Trackers) -> None:
        """Measure the weights that will be saved, and keep them when they are the best so far."""
        progress = self.progress
        random = self.ranks.gather(random_state(self.ranks.device))
        self.display.say(f"step {progress.step}: validation") if self.display.bar is None else None
        try:
            with asked.at_once():
                metrics = self._measure()
        except KeyboardInterrupt:
            self._write(random)  # without this validation, which will be made when the run goes on
            self.interrupted()
        value = metric_value(metrics, self.recipe.validation.metric)
        progress.validated, progress.metrics = progress.step, metrics
        progress.stale += 1
        better = progress.best is None or value > progress.best
        if better:
            progress.best, progress.best_step, progress.stale = value, progress.step, 0
        early = self._stale()
        progress.finished = early or progress.step == self.total
        coco, voc = metrics["coco"], metrics["voc10"]["mAP"]
        numbers = {"AP": coco["AP"], "AP50": coco["AP50"], "voc07": metrics["voc07"]["mAP"], "voc10": voc}
        shown = "  ".join(f"{name} {100 * number:.1f}" for name, number in numbers.items() if number is not None)
        self.display.say(f"step {progress.step}: {shown}{'  (best)' if better else ''}")
        if early:
            self.display.say(
                f"stopped early: {progress.stale} validations without a better {self.recipe.validation.metric}"
            )
        if self.ranks.first:
            epoch = round(progress.step / self.steps_per_epoch, 4)
            entry = {"kind": "validation", "step": progress.step, "epoch": epoch, "best": better, "metrics": metrics}
            self.folder.append({**entry, "time": round(time.time(), 1)})
            if better:
                self._save_weights(self.folder.best)
        trackers.log({f"val/{name}": number for name, number in numbers.items() if number is not None}, progress.step)

    def _stale(self) -> bool:
        """Whether the validations since the best one are as many as patience allows."""
        patience = self.recipe.validation.patience
        return patience is not None and self.progress.stale >= patience

    def _measure(self) -> dict[str, Any]:
        """Each process detects in its share of the images; the first one evaluates all."""
        data, world = self.data.val, self.ranks.world
        assert data is not None
        share = replace(data, records=data.records[self.ranks.rank :: world])
        workers = setup.worker_count(self.recipe.data.workers, world)
        found = detect_dataset(
            self.result_detector, share, batch_size=self.recipe.validation.batch_size, workers=workers
        )
        shares = self.ranks.gather(found)
        if not self.ranks.first:
            return self.ranks.broadcast({})
        together = [shares[i % world][i // world] for i in range(len(data))]
        return self.ranks.broadcast(evaluate(data, together).to_json())

    # ---------------------------------------------------------------------------------------------------------- saving
    def save_due(self) -> bool:
        step, every = self.progress.step, self.recipe.log.save_every
        return step == self.total or (every is not None and step % every == 0)

    def minutes_passed(self) -> bool:
        return self.ranks.first and time.monotonic() - self._saved_at > 60 * self.recipe.log.save_minutes

    def save(self) -> None:
        """Save weights and state; all processes take part, the first one writes."""
        self._write(self.ranks.gather(random_state(self.ranks.device)))

    def _write(self, random: list[dict[str, Tensor]]) -> None:
        if self.ranks.first:
            self._save_weights(self.folder.last)
            if self.progress.finished and self.data.val is None:
                self._save_weights(self.folder.best)
            # The state comes last: whatever it tells of is on the disk by then.
            average = self.average.detector if self.average is not None else None
            content = pack_state(self.progress, self.detector, self.optimizer, average, random)
            self.folder.write(self.folder.state, content)
        self._saved_at = time.monotonic()

    def _save_weights(self, path: Path) -> None:
        recipe = setup.without_paths(to_plain(self.recipe))
        with saving(path):
            checkpoint.save(self.result_detector, path, recipe=recipe, metrics=self._metrics())

    def _metrics(self) -> dict[str, Any]:
        """What is known about the weights of this moment."""
        progress = self.progress
        known = progress.metrics if progress.validated == progress.step else {}
        return {"step": progress.step, "epoch": round(progress.step / self.steps_per_epoch, 4), **known}

    def interrupted(self) -> NoReturn:
        raise KeyboardInterrupt(
            f"stopped after step {self.progress.step} of {self.total}; everything is saved. "
            f"Go on with: singleshot train --resume {self.folder.path}"
        )


def metric_value(metrics: dict[str, Any], name: str) -> float:
    """A number out of what `evaluate` gives, by its dotted name; undefined ones count as 0."""
    group, _, key = name.partition(".")
    value = metrics[group][key]
    return 0.0 if value is None else max(float(value), 0.0)
