"""Draws the labelled boxes of a dataset, as in the files or as in training."""

from __future__ import annotations

import itertools
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from singleshot.data.dataset import Dataset, Floats
from singleshot.data.deep import DeepRange
from singleshot.data.images import read_image
from singleshot.data.loader import train_loader
from singleshot.files import write_atomically
from singleshot.inference.draw import contact_sheet, draw
from singleshot.paths import to_path
from singleshot.prediction import Prediction
from singleshot.training import resolve, setup, start
from singleshot.training.recipe import Recipe

CELL = 384  # pixels of an image on the sheet
COLUMNS = 4

Pictures = list[tuple[NDArray[np.uint8], str]]


def labelled(dataset: Dataset, number: int, seed: int = 0, *, deep_range: DeepRange | None = None) -> Pictures:
    """Choose `number` images of a dataset at random and draw the boxes of its files; with a caption for each."""
    chosen = sorted(np.random.default_rng(seed).permutation(len(dataset))[:number].tolist())
    found = []
    for record in (dataset.records[k] for k in chosen):
        picture = _drawn(read_image(record.path, deep_range=deep_range), record.boxes, record.labels, dataset)
        found.append((picture, f"{record.name}: {len(record.labels)}"))
    return found


def as_trained(recipe: Recipe, number: int) -> Pictures:
    """The first images of a run with this recipe, augmented, at the network's input size, with their boxes drawn.

    Raises:
        UserError: as training raises for these data and settings.
    """
    recipe, source = resolve.resolve_start(recipe)
    data = setup.open_data(recipe, tuple(source.class_names) if source is not None else ()).train
    detector = start.build_detector(recipe, data, source).detector
    transform = setup.build_transform(recipe.augmentation, detector.preprocess)
    batches = train_loader(
        data,
        transform,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        steps=-(-number // recipe.batch_size),
        drop_difficult=recipe.data.drop_difficult,
        crowd=recipe.data.crowd,
        deep_range=detector.deep_range,
    )
    pairs = ((batch, k) for batch in batches for k in range(len(batch.images)))
    found = []
    for batch, k in itertools.islice(pairs, number):
        target, image = batch.targets[k], batch.images[k].permute(1, 2, 0).numpy()
        picture = _drawn(np.ascontiguousarray(image), target["boxes"].numpy(), target["labels"].numpy(), data)
        found.append((picture, f"{batch.names[k]}: {len(target['labels'])}"))
    return found


def write_sheet(pictures: Pictures, path: str | Path, *, cell: int = CELL) -> Path:
    """Put pictures on a sheet with their captions, each in a square of `cell` pixels, and write it as PNG."""
    images, captions = zip(*pictures, strict=True)
    file = BytesIO()
    sheet = contact_sheet(images, columns=COLUMNS, cell=cell, captions=captions)
    Image.fromarray(sheet).save(file, "PNG")
    write_atomically(to_path(path), file.getvalue())
    return Path(path)


def _drawn(image: NDArray[np.uint8], boxes: Floats, labels: NDArray[np.int64], dataset: Dataset) -> NDArray[np.uint8]:
    truth = Prediction(
        boxes=boxes,
        scores=np.ones(len(labels)),
        labels=labels,
        class_names=dataset.class_names,
        category_ids=dataset.category_ids,
        size=(image.shape[0], image.shape[1]),
    )
    return draw(image, truth, scores=False)
