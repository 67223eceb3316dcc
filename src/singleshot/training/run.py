"""One run: its objects, and what a step needs from them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from singleshot.data.dataset import Dataset
from singleshot.data.loader import TrainBatch, train_loader
from singleshot.detectors.detector import Detector
from singleshot.plain_data import to_plain
from singleshot.training import setup
from singleshot.training.clock import Clock
from singleshot.training.ema import Average
from singleshot.training.folder import RunFolder
from singleshot.training.made_by import MadeBy, image_files, machine, objects
from singleshot.training.optimizer import create_optimizer, keep_norm_statistics
from singleshot.training.pace import Pace, now
from singleshot.training.parallel import Ranks
from singleshot.training.progress import Display
from singleshot.training.recipe import Recipe
from singleshot.training.schedule import rate_factor, rate_factor_by_time, scaled_rate, total_steps
from singleshot.training.state import Progress
from singleshot.training.tracking import Trackers


class Run:
    """The objects of one training run. The modules `log`, `validation` and `saving` do the work around a step."""

    folder: RunFolder  # folder and trackers are made last, when nothing else can fail
    trackers: Trackers

    def __init__(
        self, recipe: Recipe, ranks: Ranks, data: setup.RunData, detector: Detector, *, started: float
    ) -> None:
        self.recipe, self.ranks, self.data = recipe, ranks, data
        self.accumulate = recipe.optimizer.accumulate
        self.images_per_step = recipe.batch_size * ranks.world * self.accumulate
        self.steps_per_epoch = max(1, round(len(data.train) / self.images_per_step))
        self.total = total_steps(recipe.schedule, self.steps_per_epoch, self.images_per_step)  # 0: by the clock
        limit = recipe.schedule.minutes
        self.clock = None if limit is None else Clock(limit, started)
        self.rate = scaled_rate(recipe.optimizer, self.images_per_step)

        layout = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
        self.detector = detector.to(ranks.device, memory_format=layout)  # type: ignore[call-overload]
        self.detector.precision = recipe.compute.precision
        self.transform = setup.build_transform(recipe.augmentation, self.detector.preprocess)
        self.cache = setup.open_cache(recipe.data, data.train, ranks.world)
        self.average = (
            Average(self.detector, decay=recipe.ema.decay, ramp=recipe.ema.ramp) if recipe.ema.decay else None
        )
        self.optimizer = create_optimizer(self.detector, recipe.optimizer)
        self.progress = Progress(total=self.total, classes=data.train.class_names, data=data.fingerprint)
        # Initial weights are the same in all processes. Random draws from here on (dropout) differ between them.
        torch.manual_seed(recipe.seed + ranks.rank)

        if recipe.compute.compile:
            self.detector.network = torch.compile(self.detector.network)
        self.model: nn.Module = self.detector
        if ranks.world > 1:
            devices = [ranks.device] if ranks.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.detector, device_ids=devices, gradient_as_bucket_view=True)
        self.display = Display(self.total, quiet=not ranks.first)
        self.pace = Pace()
        self.saved_at = now()  # when the state was written last
        self.made_by = MadeBy(
            recipe=to_plain(recipe),
            train=objects(data.train),
            pixels=image_files([record.path for record in data.train.records]),
            val=_validated_on(data.val),
            processes=ranks.world,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            machine=machine(ranks.device),
        )

    @property
    def result_detector(self) -> Detector:
        """The detector that is evaluated and saved: the average if there is one."""
        detector: Detector = self.average.detector if self.average is not None else self.detector
        return detector

    def epoch(self, step: int) -> float:
        """The number of passes over the data after a step, rounded as in the log."""
        return round(step / self.steps_per_epoch, 4)

    def batches(self) -> Iterator[TrainBatch]:
        """The batches of this process from the current step on, `accumulate` per step."""
        recipe = self.recipe
        loader = train_loader(
            self.data.train,
            self.transform,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            start_step=self.progress.step * self.accumulate,
            steps=self.total * self.accumulate if self.clock is None else None,
            workers=setup.worker_count(recipe.data.workers, self.ranks.world),
            rank=self.ranks.rank,
            world_size=self.ranks.world,
            drop_difficult=recipe.data.drop_difficult,
            crowd=recipe.data.crowd,
            deep_range=self.detector.deep_range,
            cache=self.cache,
        )
        return iter(loader)

    def set_mode(self) -> None:
        """Training mode. The backbone's batch norm keeps its statistics as long as `freeze_norm_steps` says."""
        self.model.train()
        steps = self.recipe.optimizer.freeze_norm_steps
        if steps < 0 or self.progress.step < steps:
            keep_norm_statistics(self.detector)

    @property
    def speed(self) -> float:
        """Images per second, over the last ten steps of this process."""
        return self.images_per_step / self.pace.recent if self.pace.recent else 0.0

    def time_left(self, step: int) -> float | None:
        """Seconds: by the clock the rest of the time, else what the steps after this one take. None: not known yet."""
        if self.clock is not None:
            return self.clock.left
        typical = self.pace.typical
        return None if typical is None else typical * (self.total - step)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step; the first step is 0. By the clock: of the step that comes next."""
        if self.clock is not None:
            return self.rate * rate_factor_by_time(self.recipe.schedule, step, self.clock.verdict.share)
        return self.rate * rate_factor(self.recipe.schedule, step, self.total)

    @property
    def share(self) -> float:
        """How much of the run is done, from 0 to 1."""
        if self.clock is not None:
            return min(self.clock.used / self.clock.limit, 1.0)
        return min(self.progress.step / self.total, 1.0)


def _validated_on(val: Dataset | None) -> str:
    if val is None:
        return "none"
    return f"{objects(val, areas=True)}; {image_files([record.path for record in val.records])}"
