"""`singleshot export`: a detector as one file that runs without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.elsewhere import EXPORT
from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, fraction
from singleshot.data.formats import FORMATS as DATA_FORMATS
from singleshot.errors import shown
from singleshot.flags import points
from singleshot.terminal import say

FORMATS = ("onnx", "openvino", "torch", "triton")
PRECISIONS = ("fp32", "bf16", "int8")

EPILOG = """\
The file has everything from 8-bit pixels to boxes inside: normalisation, network, scores, suppression, voting. Its one
input, images, is uint8 RGB [B, H, W, 3] at the network's size, for any B; detectors that keep the aspect ratio have
a second one, limits [B, 2], the (height, width) of each image within the input. Outputs: boxes [B, D, 4] in
pixels of the input, scores [B, D] (0 in unused rows), labels [B, D], count [B]. `detect` and `evaluate` take the file
like a weights file; examples/ has scripts that run it without this package.
After the export both are compared on images: with --data on all of its val split, with AP; else on some of --calibrate,
or on generated ones. Beyond the tolerance nothing is written, and the exit code is 1.
int8 takes 150 images of --calibrate to see which values occur. If AP drops by more than --max-drop, the layers that
cost most stay float32; the report names them. onnx and triton need: pip install 'singleshot[export]'; openvino, and
int8: pip install 'singleshot[openvino]'."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("export", "Writes a detector as one file for another engine.", EPILOG, elsewhere=EXPORT)
    parser.usage = "singleshot export MODEL --out PATH [flags]"
    add = parser.add_argument
    add("model", metavar="MODEL", help="a detector's weights file, such as RUN/best.safetensors")
    add("--out", metavar="PATH", required=True, help="the file (.onnx, .xml, .pt2), or a folder that gets it")
    add("--format", choices=list(FORMATS), help="the kind of file (default: by the ending of --out)")
    add("--precision", choices=list(PRECISIONS), default="fp32", help="of the network (default: fp32)")
    add("--calibrate", metavar="DATA", help="for int8: a dataset; its train split shows which values occur")
    add(
        "--max-drop",
        type=points,
        metavar="POINTS",
        help="by how many points AP may drop (default: 0.5 for int8, 0.2 for bf16)",
    )
    add("--data", metavar="DATA", help="a dataset on which both are compared, with AP")
    add("--split", metavar="NAME", help="the split of --data (default: val, else test, else the only one)")
    add("--data-format", choices=list(DATA_FORMATS), help="the format of the data, if a folder holds several")
    add(
        "--allow-outside",
        action="store_true",
        help="read images that the annotations name outside of DATA too; give it only if you trust them",
    )
    add(
        "--threshold", type=fraction, metavar="T", help="the lowest score that the file gives (default: the detector's)"
    )
    add(
        "--input",
        choices=["image", "pixels"],
        default="image",
        help="image: uint8 [B, H, W, 3]; pixels: float32 [B, 3, H, W], normalised (default: image)",
    )
    add(
        "--outputs",
        choices=["detections", "raw"],
        default="detections",
        help="raw: what the network alone predicts (default: detections)",
    )
    add("--builder", metavar="NAME", help="builder of your own detector: my_lab.models:my_detector")
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Export, compare, and report."""
    from singleshot.engines import refuse_exported
    from singleshot.engines.graph_file import refuse_no_file
    from singleshot.exporting.request import checked
    from singleshot.paths import to_path

    # Before PyTorch is imported, which takes seconds.
    refuse_no_file(to_path(options.model))
    refuse_exported(options.model, wanted="export")
    checked(
        options.out,
        stem=to_path(options.model).stem,
        format=options.format,
        precision=options.precision,
        max_drop=options.max_drop,
        calibrated=options.calibrate is not None,
        outputs=options.outputs,
    )
    from singleshot.cli.model import load_model
    from singleshot.exporting.export import NotTheSame, export

    names = [
        "format",
        "precision",
        "calibrate",
        "max_drop",
        "data",
        "split",
        "data_format",
        "allow_outside",
        "threshold",
        "input",
        "outputs",
    ]
    model = options.model
    if options.builder is not None:
        model = load_model(options.model, builder=options.builder, device="cpu", wanted="export")
    try:
        report = export(model, options.out, **{name: options[name] for name in names}, progress=lambda text: say(text))
    except NotTheSame as error:
        return Result(error.report.to_json(), error.report.text(), failure=str(error))
    return Result(report.to_json(), f"{report.text()}\n\nwritten: {shown(report.path)}")
