"""`singleshot import`: weights of other programs become a detector or a backbone of this package."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, take_overrides
from singleshot.errors import UserError, shown, some

if TYPE_CHECKING:
    from singleshot.weights.bring import Brought

EPILOG = """\
The layout is recognised by the names and shapes of the tensors. No code in a file is run. Arguments of the detector's
builder can be set by their names, as in training: --arguments.image_size 512 --arguments.threshold 0.05
docs/how_to/your_old_weights.md says which files are known, and how exactly each was proven."""

ELSEWHERE = {"--output": "--out", "--names": "--classes", "--labels": "--classes", "--type": "--as", "--model": "--as"}

_SUFFIX = ".safetensors"
_FIRST = 3  # classes that are told
MOST_PHOTOS = 400


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb. `overrides` holds the arguments of the builder."""
    parser = VerbParser("import", "Makes a model of weights of another program.", EPILOG, elsewhere=ELSEWHERE)
    add = parser.add_argument
    add("file", metavar="FILE", help="weights of another program: .pth, .safetensors, .caffemodel, .tflite")
    add("--out", metavar=f"NAME{_SUFFIX}", required=True, help="the new file; nothing is overwritten")
    add(
        "--as",
        metavar="NAME",
        help="what it is, if the file does not tell: a variant of `singleshot models`, a builder, or a backbone",
    )
    add("--layout", metavar="NAME", help="the layout of the file, if several fit")
    add(
        "--classes",
        metavar="FILE",
        help="names of the classes: text with one name on each line, COCO's JSON, or a JSON list of names (default: "
        "those that the file names, else class 1, class 2 ...)",
    )
    add(
        "--photos",
        metavar="DIR",
        help=f"photographs like those to train on (at most {MOST_PHOTOS} are used) give batch norms their statistics, "
        "where the file has none; what the detector finds stays the same",
    )
    words, overrides = take_overrides(words, parser.flags(), lambda: ())
    options = parser.parse(words)
    options["overrides"] = overrides
    return options


def run(options: Namespace) -> Result:
    """Import, write, and tell what the file was and what became of it."""
    from singleshot.detectors.parts import restore_argument
    from singleshot.paths import to_path
    from singleshot.training.recipe import Recipe, override
    from singleshot.weights.bring import bring

    out = to_path(options.out)
    if out.suffix != _SUFFIX:
        raise UserError(f"{shown(out)}: expected a name that ends in {_SUFFIX} for --out")
    if out.exists():
        raise UserError(f"{shown(out)}: is there already, and is not overwritten: give another name with --out")
    for key in options.overrides:
        if not key.startswith("arguments."):
            raise UserError(f"--{key} is not expected here; arguments of the builder are --arguments.NAME VALUE")
    arguments = override(Recipe(builder="ssd", arguments={}), options.overrides).arguments
    names, ids = (None, None) if options.classes is None else _classes(to_path(options.classes))
    found = bring(
        options.file,
        kind=options["as"],
        layout=options.layout,
        class_names=names,
        arguments=restore_argument({**arguments, **({} if ids is None else {"category_ids": ids})}),
    )
    settled = 0 if options.photos is None else _settle(found, options.photos)
    try:
        found.save(out)
    except OSError as error:
        raise UserError(f"{shown(out)}: cannot be written ({error.strerror or error})") from error
    document = {**_document(found, options.file, out), "photos": settled}
    return Result(document, "\n".join(f"{key + ':':12} {line}" for key, line in _lines(found, document)))


def _settle(found: Brought, photos: str) -> int:
    """Give the norms the statistics of photographs; returns how many were read."""
    from singleshot.detectors.settle import settle_norm
    from singleshot.inference.sources import expand

    if found.detector is None:
        raise UserError(f"{found.source.where}--photos is for detectors, and this is {found.title}: leave it out")
    images = [source.path for source in expand(photos)]
    images = images[:: -(-len(images) // MOST_PHOTOS)]  # from the whole folder, not only its beginning
    settle_norm(found.detector, images)
    return len(images)


def _document(found: Brought, path: str, out: Path) -> dict[str, Any]:
    from singleshot.torch_files import SECOND

    detector = found.detector
    made: dict[str, Any] = {"backbone": found.layout}
    if detector is not None:
        made = {
            "builder": detector.builder,
            "backbone": detector.arguments.get("backbone") or _usual_backbone(detector.builder),
            "image_size": list(detector.image_size),
            "class_names": list(detector.class_names),
            "category_ids": list(detector.category_ids),
        }
    return {
        "file": path,
        "layout": found.layout,
        "title": found.title,
        **made,
        "pixels": found.pixels.choice(),
        "unneeded": list(found.unneeded),
        "second_weights": list(found.source.notes.get(SECOND, ())),
        "out": str(out),
        "bytes": out.stat().st_size,
    }


def _usual_backbone(builder: str | None) -> str | None:
    """The backbone of a builder that is given none."""
    import inspect

    from singleshot.detectors import BUILDERS

    parameter = inspect.signature(BUILDERS[builder]).parameters.get("backbone") if builder in BUILDERS else None
    return None if parameter is None else parameter.default


def _lines(found: Brought, said: dict[str, Any]) -> list[tuple[str, str]]:
    from singleshot.detectors.settle import lacks_statistics

    lines = [("recognised", found.title if found.detector is None else f"{found.title} (layout {found.layout})")]
    name = shlex.quote(said["out"])
    if found.detector is not None:
        height, width = found.detector.image_size
        on = f" on {said['backbone']}" if said["backbone"] else ""
        lines.append(("built", f"{said['builder']}{on}, {height}x{width} pixels (height x width)"))
        how = "" if found.named else "; give names with --classes FILE"
        names = said["class_names"]
        lines.append(("classes", f"{len(names)}: {some(names, limit=_FIRST)}{how}"))
    lines.append(("pixels", _pixels(said["pixels"])))
    if said["photos"]:
        lines.append(("norms", f"with the statistics of {said['photos']} photographs"))
    elif found.detector is not None and lacks_statistics(found.detector):
        lines.append(
            ("norms", "without statistics: exact as it is, but to train it give photographs with --photos DIR")
        )
    if found.unneeded:
        lines.append(
            ("not needed", some(found.unneeded, "tensors of the file", one="tensor of the file", limit=_FIRST))
        )
    if said["second_weights"]:
        lines.append(("not used", f"second weights in the file ({some(said['second_weights'], limit=_FIRST)})"))
    lines.append(("written", f"{shown(said['out'])}, {said['bytes'] / 1e6:.1f} MB"))
    if found.detector is None:
        words = f"singleshot train DATA --arguments.backbone {found.layout}"
        if found.backbone_options:  # without them the same weights may be those of another network
            words += f" --arguments.backbone_options {shlex.quote(json.dumps(found.backbone_options))}"
        return [*lines, ("next", f"{words} --backbone-weights {name}")]
    lines += [("next", f"singleshot detect {name} PHOTO"), ("or", f"singleshot evaluate {name} DATA")]
    return [*lines, ("or", f"singleshot train DATA --from {name}")]


def _pixels(choice: str | list[Any]) -> str:
    if isinstance(choice, str):
        return choice
    mean, std, order = choice
    told = [", ".join(f"{number:.4g}" for number in numbers) for numbers in (mean, std)]
    return f"mean ({told[0]}) and deviation ({told[1]}) of values from 0 to 1, {order.upper()}"


def _classes(path: Path) -> tuple[list[str], list[int] | None]:
    """Names of classes, and their ids if the file has ids."""
    from singleshot.files import not_a_file
    from singleshot.ranges import MOST_CLASSES

    try:
        if (kind := not_a_file(path)) is not None:
            raise UserError(f"{shown(path)}: this is {kind}, expected names of classes")
        if path.stat().st_size > 300 * MOST_CLASSES:
            raise UserError(f"{shown(path)}: expected names of classes, but the file is very large")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError:
        raise UserError(f"{shown(path)}: expected text, one name of a class on each line") from None
    if path.suffix.lower() == ".json":
        try:
            found = json.loads(text)
            if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
                return found, None
            entries = sorted((int(one["id"]), str(one["name"])) for one in found["categories"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{shown(path)}: expected COCO's JSON with its categories, or a list of names ({error})"
            ) from error
        return [name for _, name in entries], [number for number, _ in entries]
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise UserError(f"{shown(path)}: is empty, expected one name of a class on each line")
    return names, None
