"""Training: `train` sets a run up, `Run.loop` is the loop itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from singleshot.data.loader import TrainBatch, train_loader
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError
from singleshot.evaluation.metrics import evaluate
from singleshot.evaluation.run import run as detect_all
from singleshot.training import setup, tracking
from singleshot.training.ema import Average
from singleshot.training.folder import RunFolder, saving
from singleshot.training.guard import PendingReport, StepReport
from singleshot.training.interrupt import StopSignals, stop_signals
from singleshot.training.optimizer import create_optimizer, keep_norm_statistics, set_rate
from singleshot.training.parallel import Ranks, start_ranks
from singleshot.training.plain import to_plain
from singleshot.training.progress import Display, Speedometer
from singleshot.training.recipe import Recipe, check_values, from_yaml, override, to_yaml
from singleshot.training.resume import check_changes, resolved_as
from singleshot.training.schedule import rate_factor, scaled_rate, total_steps
from singleshot.training.state import Progress, SavedState, pack_state, random_state, set_random_state
from singleshot.weights import checkpoint


@dataclass(frozen=True)
class TrainResult:
    """What a run has left."""

    run: Path  # the run folder
    best: Path  # weights with the best validation metric; without validation, the last ones
    last: Path
    metrics: dict[str, Any]  # of the last validation, as `singleshot evaluate --json` prints them; empty without


def train(
    recipe: Recipe | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    from_checkpoint: str | Path | None = None,
    skip_bad: bool = False,
    device: str | None = None,
) -> TrainResult:
    """Train a detector as a recipe says, in a new run folder, or go on with an old one.

    Several processes, started by `torchrun`, train together: each takes `recipe.batch_size` images.

    Args:
        recipe: what to do. With `resume` it may be left out; it may then change the length, paths and what is logged.
        data: folder or annotation file (in place of `recipe.data.path`).
        out: the run folder, which must not exist; default `runs/<recipe>-<n>`.
        resume: the folder of a run to go on with, exactly from its last saved state.
        from_checkpoint: weights of a trained detector to start from (in place of `recipe.start_from`).
        skip_bad: leave out images that the check of the data calls errors (in place of `recipe.data.skip_bad`).
        device: "cpu", "cuda", ... (in place of `recipe.compute.device`).

    Raises:
        UserError: bad data, recipe or folder, full disk; `DivergedError`, one of them, when a loss is not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    saved = None
    if resume is not None:
        folder = RunFolder.existing(resume)
        if out is not None and Path(out).resolve() != folder.path.resolve():
            raise UserError(f"--resume {resume} goes on in that folder; leave --out away")
        before = from_yaml(folder.recipe)
        saved = SavedState.read(folder.state)
        recipe = recipe or before
    recipe = recipe or Recipe()
    if data is not None:
        recipe = replace(recipe, data=replace(recipe.data, path=str(data)))
    if skip_bad:
        recipe = replace(recipe, data=replace(recipe.data, skip_bad=True))
    if from_checkpoint is not None:
        recipe = replace(recipe, start_from=str(from_checkpoint))
    if device is not None:
        recipe = replace(recipe, compute=replace(recipe.compute, device=device))
    check_values(recipe)
    tracking.require(recipe.log.trackers)
    if saved is None and out is not None:
        RunFolder.must_be_new(out)  # before anybody waits for the check of the data

    with start_ranks(recipe.compute.device) as ranks:
        if saved is None:
            recipe, source = setup.resolve_start(setup.absolute_paths(recipe))
        else:
            recipe, source = resolved_as(before, setup.absolute_paths(recipe)), None
        precision = setup.choose_precision(recipe.compute.precision, ranks.device)
        recipe = override(recipe, {"compute.precision": precision})
        notes = check_changes(before, recipe, folder) if saved is not None else []
        known = saved.progress.classes if saved is not None else source.class_names if source is not None else ()
        with ranks.in_turn():  # the first process fills the cache of the check
            found = setup.open_data(recipe, tuple(known))
        torch.manual_seed(recipe.seed)
        detector, said = setup.build_detector(recipe, found.train, source)
        run = Run(recipe, ranks, found, detector)
        if saved is None:
            # The folder appears when everything else has gone well.
            folder = RunFolder(ranks.broadcast(RunFolder.create(out, recipe.name).path if ranks.first else Path()))
            notes += said
        if ranks.first and (saved is None or notes):
            folder.write(folder.recipe, to_yaml(recipe).encode())
        run.folder = folder
        if saved is not None:
            run.restore(saved)
        with run.display:
            return run.train(notes + found.warnings)


class Run:
    """One training run: the objects that it needs, and the loop over them."""

    folder: RunFolder

    def __init__(self, recipe: Recipe, ranks: Ranks, data: setup.RunData, detector: Detector) -> None:
        self.recipe, self.ranks, self.data = recipe, ranks, data
        self.accumulate = recipe.optimizer.accumulate
        self.images_per_step = recipe.batch_size * ranks.world * self.accumulate
        self.steps_per_epoch = max(1, round(len(data.train) / self.images_per_step))
        self.total = total_steps(recipe.schedule, self.steps_per_epoch)
        self.rate = scaled_rate(recipe.optimizer, self.images_per_step)

        layout = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
        self.detector = detector.to(ranks.device, memory_format=layout)  # type: ignore[call-overload]
        self.detector.precision = recipe.compute.precision
        red, green, blue = (255.0 * float(value) for value in self.detector.preprocess.pixels.mean)
        self.transform = setup.build_transform(recipe.augmentation, detector.image_size, (red, green, blue))
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

    def restore(self, saved: SavedState) -> None:
        """Go back to a saved state: weights, average, optimiser, generators, log."""
        if saved.progress.data != self.data.fingerprint:
            raise UserError(f"{self.folder.path}: the training images or boxes are not those that the run began with")
        saved.restore(self.detector, self.optimizer, self.average.detector if self.average else None)
        set_random_state(saved.random(self.ranks.rank), self.ranks.device)
        self.progress = saved.progress
        if self.total != saved.progress.total:
            self.progress.finished = self.progress.step >= self.total
            self.progress.total = self.total
        if self.ranks.first:
            step, validated = saved.progress.step, saved.progress.validated
            self.folder.cut_log(lambda entry: entry["step"] <= (validated if entry["kind"] == "validation" else step))

    # -------------------------------------------------------------------------------------------------------- the loop
    def train(self, notes: list[str]) -> TrainResult:
        """From the current step to the end."""
        progress = self.progress
        if progress.finished:
            self.display.say(
                f"{self.folder.path}: this run is finished ({progress.step} steps), nothing to do; "
                "a larger --epochs goes on"
            )
            return self._result()
        self._announce(notes)
        config = to_plain(self.recipe)
        trackers = tracking.Trackers(self.recipe.log.trackers if self.ranks.first else (), self.folder.path, config)
        try:
            with stop_signals() as asked:
                self.loop(asked, trackers)
        finally:
            trackers.finish()
        return self._result()

    def loop(self, asked: StopSignals, trackers: tracking.Trackers) -> None:
        """The loop: rate, losses, gradients, step, average; then the losses of the step before, validation, saving."""
        recipe, progress, optimizer = self.recipe, self.progress, self.optimizer
        batches = self._batches()
        pending: PendingReport | None = None
        self.display.begin(progress.step)
        if self._validation_due():  # the run was stopped during a validation
            self._validate(asked, trackers)
            self.save()

        while not progress.finished:
            self._set_mode()
            set_rate(optimizer, self._rate(progress.step))
            optimizer.zero_grad(set_to_none=True)
            taken: list[TrainBatch] = []
            losses: dict[str, Tensor] = {}
            for part in range(self.accumulate):
                try:
                    taken.append(next(batches))
                except RuntimeError:  # a signal to the whole process group ends the workers too
                    if asked.stop and self.ranks.world == 1:
                        self.save()
                        self._interrupted()
                    raise
                with self._exchange(last=part == self.accumulate - 1):
                    terms = self.model(taken[-1].images, taken[-1].targets)
                    total = torch.stack(list(terms.values())).sum() / self.accumulate
                    total.backward()  # type: ignore[no-untyped-call]
                for name, value in terms.items():
                    losses[name] = losses.get(name, 0) + value.detach() / self.accumulate
            if recipe.optimizer.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.detector.parameters(), recipe.optimizer.clip_norm)
            optimizer.step()
            if self.average is not None:
                self.average.update(self.detector, progress.step)
            progress.step += 1

            # The losses of the step before are there by now: reading them does not make the device wait.
            stop, save = asked.stop and self.ranks.world == 1, self._save_due()
            if pending is not None:
                report = self._record(pending, trackers)
                stop, save = stop or report.stop, save or report.save
            pending = PendingReport(
                progress.step, losses, taken, self.ranks, stop=asked.stop, save=self._minutes_passed()
            )
            if stop or save or self._validation_due():
                self._record(pending, trackers)  # also: no state is saved whose losses were not seen to be finite
                pending = None
                if self._validation_due() and not stop:
                    self._validate(asked, trackers)
                progress.finished = progress.finished or (progress.step == self.total and not self._validation_due())
                self.save()
            if stop and not progress.finished:
                self._interrupted()

    def _batches(self) -> Iterator[TrainBatch]:
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

    def _set_mode(self) -> None:
        self.model.train()
        steps = self.recipe.optimizer.freeze_norm_steps
        if steps < 0 or self.progress.step < steps:
            keep_norm_statistics(self.detector)

    def _rate(self, step: int) -> float:
        return self.rate * rate_factor(self.recipe.schedule, step, self.total)

    def _exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over the processes with the last batch of a step only."""
        return nullcontext() if last or self.ranks.world == 1 else self.model.no_sync()  # type: ignore[operator]

    # ------------------------------------------------------------------------------------------------------------- log
    def _announce(self, notes: list[str]) -> None:
        recipe, ranks = self.recipe, self.ranks
        size = "x".join(map(str, self.detector.image_size))
        epochs = self.total / self.steps_per_epoch
        val = f"{len(self.data.val)} to validate on" if self.data.val is not None else "no validation"
        base = recipe.optimizer.base_batch_size
        rate = f"{recipe.optimizer.lr:g} x {self.images_per_step}/{base} images" if base else "not scaled"
        lines = [
            f"run folder: {self.folder.path}",
            *notes,
            f"{recipe.builder} at {size}, {self.detector.num_classes} classes; "
            f"{len(self.data.train)} images to train on, {val}",
            f"{self.total} steps of {self.images_per_step} images ({recipe.batch_size} x {ranks.world} processes x "
            f"{self.accumulate} batches), {epochs:.1f} epochs; learning rate {self.rate:g} ({rate})",
            f"{ranks.device}, {recipe.compute.precision}{', compiled' if recipe.compute.compile else ''}, "
            f"torch {torch.__version__}",
        ]
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

    def _record(self, pending: PendingReport, trackers: tracking.Trackers) -> StepReport:
        """Read the losses of a step, check them, show them, and log their mean now and then."""
        report, progress = pending.read(self.folder), self.progress
        for name, value in report.losses.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.summed += 1
        speed = self.speed.update(report.step)
        rate = self._rate(report.step - 1)
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
    def _validation_due(self) -> bool:
        step, every = self.progress.step, max(1, round(self.recipe.validation.every * self.steps_per_epoch))
        due = self.data.val is not None and self.progress.validated < step
        return due and (step % every == 0 or step == self.total)

    def _validate(self, asked: StopSignals, trackers: tracking.Trackers) -> None:
        """Measure the weights that will be saved, and keep them when they are the best so far."""
        progress = self.progress
        random = self.ranks.gather(random_state(self.ranks.device))
        self.display.say(f"step {progress.step}: validation") if self.display.bar is None else None
        try:
            with asked.at_once():
                metrics = self._measure()
        except KeyboardInterrupt:
            self._write(random)  # without this validation, which will be made when the run goes on
            self._interrupted()
        value = metric_value(metrics, self.recipe.validation.metric)
        progress.validated, progress.metrics = progress.step, metrics
        progress.stale += 1
        better = progress.best is None or value > progress.best
        if better:
            progress.best, progress.best_step, progress.stale = value, progress.step, 0
        patience = self.recipe.validation.patience
        early = patience is not None and progress.stale >= patience
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

    def _measure(self) -> dict[str, Any]:
        """Each process detects in its share of the images; the first one evaluates all."""
        data, world = self.data.val, self.ranks.world
        assert data is not None
        share = replace(data, records=data.records[self.ranks.rank :: world])
        workers = setup.worker_count(self.recipe.data.workers, world)
        found = detect_all(self.result_detector, share, batch_size=self.recipe.validation.batch_size, workers=workers)
        shares = self.ranks.gather(found)
        if not self.ranks.first:
            return self.ranks.broadcast({})
        together = [shares[i % world][i // world] for i in range(len(data))]
        return self.ranks.broadcast(evaluate(data, together).to_json())

    # ---------------------------------------------------------------------------------------------------------- saving
    def _save_due(self) -> bool:
        step, every = self.progress.step, self.recipe.log.save_every
        return step == self.total or step % self.steps_per_epoch == 0 or (every is not None and step % every == 0)

    def _minutes_passed(self) -> bool:
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

    def _interrupted(self) -> NoReturn:
        raise KeyboardInterrupt(
            f"stopped after step {self.progress.step} of {self.total}; everything is saved. "
            f"Go on with: singleshot train --resume {self.folder.path}"
        )

    def _result(self) -> TrainResult:
        return TrainResult(self.folder.path, self.folder.best, self.folder.last, self.progress.metrics)


def metric_value(metrics: dict[str, Any], name: str) -> float:
    """A number out of what `evaluate` gives, by its dotted name; undefined ones count as 0."""
    group, _, key = name.partition(".")
    value = metrics[group][key]
    return 0.0 if value is None else max(float(value), 0.0)
