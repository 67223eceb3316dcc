"""Train on your own folder (Pascal VOC or COCO), measure the result, and draw what it finds.

    python examples/train_on_your_folder.py my_data --epochs 40 --backbone-weights mobilenet_v2_imagenet.safetensors

Without a folder, it runs one epoch on a few generated pictures to show that everything works. These are too few to
learn from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import singleshot as ss
from singleshot.data.shapes import write_shapes
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.inference.draw import contact_sheet
from singleshot.training.recipe import Augmentation, Data, Optimizer, Schedule


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", type=Path, help="a VOC or COCO folder with the splits train and val")
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--size", type=int, default=300, help="pixels of the network's input")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--backbone-weights", help="a file with pretrained weights; nothing is downloaded")
    parser.add_argument("--out", type=Path, help="a new folder for the run (default: the next free runs/mine-N)")
    choices = parser.parse_args(arguments)
    if choices.data is None:
        choices.data = write_shapes("shapes", train=8, val=4) / "voc"
        choices.epochs, choices.size, choices.batch_size = 1, 96, 4

    # A recipe is plain data: all settings of a run. It is saved as recipe.yaml in the run folder, to repeat the run.
    recipe = ss.Recipe(
        name="mine",
        builder="ssd",
        arguments={
            "backbone": "mobilenetv2",
            "image_size": choices.size,
            **({"backbone_weights": choices.backbone_weights} if choices.backbone_weights else {}),
        },
        data=Data(path=str(choices.data), split="train", val_split="val", workers=0),
        augmentation=Augmentation(),  # photometric distortion, expansion, crop and mirror, as in the paper
        optimizer=Optimizer(name="adamw", lr=1e-3, base_batch_size=0, weight_decay=1e-2, clip_norm=10.0),
        schedule=Schedule(epochs=choices.epochs, kind="cosine", warmup_steps=100),
        batch_size=choices.batch_size,
    )
    result = ss.train(recipe, out=choices.out)
    print("run folder:", result.run)

    detector = ss.load(result.best)
    dataset = ss.open_dataset(choices.data, split="val", class_names=detector.class_names)
    print(ss.evaluate(dataset, detect_dataset(detector, dataset)).table())

    found = ss.detect(detector, [record.path for record in dataset.records[:12]], threshold=0.3)
    pictures = [ss.draw(ss.read_image(str(prediction.path)), prediction) for prediction in found]
    captions = [Path(str(prediction.path)).name for prediction in found]
    Image.fromarray(contact_sheet(pictures, captions=captions)).save(result.run / "findings.png")
    print("pictures:", result.run / "findings.png")


if __name__ == "__main__":
    main()
