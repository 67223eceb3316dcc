"""What post-processing costs in an exported graph: the whole graph beside the network alone, in each engine.

    python benchmarks/graph_speed.py zoo/chess.safetensors ssd300_mobilenetv2 --rounds 15

The images are of the zoo's kind of load for a trained model. An untrained network of the catalogue of builders gets
logits with a spread, so that about one anchor in fifty passes the threshold: scores that are all 0 would cost nothing.
Both graphs run in turns on one thread; the figures are medians, and their difference is the post-processing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import singleshot as ss
from singleshot.detectors import find_builder
from singleshot.engines.graph import Exportable, exportable
from singleshot.engines.quiet import load_package

UNTRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "ssd300_mobilenetv2": ("ssd", {"backbone": "mobilenetv2", "image_size": 300}),
    "ssd300_vgg16": ("ssd", {"backbone": "vgg16", "image_size": 300}),
    "retinanet320_mobilenetv2": ("retinanet", {"backbone": "mobilenetv2", "image_size": 320}),
    "refinedet320_mobilenetv2": ("refinedet", {"backbone": "mobilenetv2", "image_size": 320}),
}
"""Detectors of 20 classes without weights, by name."""

PASSING = 0.02  # the share of (anchor, class) pairs of an untrained detector with a score above its threshold


def detector(name: str) -> Any:
    """A detector of a weights file, or one of `UNTRAINED` with realistic scores."""
    if name not in UNTRAINED:
        return ss.load(name).eval()
    torch.manual_seed(0)
    builder, arguments = UNTRAINED[name]
    made = find_builder(builder)(num_classes=20, **arguments).eval()
    with torch.no_grad():
        predictions, _ = made.predictions(torch.randn(1, 3, *made.image_size))
        logits = predictions["class_logits"]
        layers = [layer for key, layer in made.head.named_modules() if key.endswith("class_logits")]
        for layer in layers:
            layer.weight.mul_(2.0 / float(logits.std()))
        low, high = -20.0, 20.0
        for _ in range(20):  # the bias at which the wanted share passes
            middle = (low + high) / 2
            shifted = dict(predictions)
            moved = (logits - logits.mean()) * (2.0 / logits.std())
            moved = torch.cat([moved[..., :20] + middle, moved[..., 20:]], -1)
            share = float(
                (made.postprocess.scores({**shifted, "class_logits": moved}) > made.postprocess.threshold)
                .float()
                .mean()
            )
            low, high = (low, middle) if share > PASSING else (middle, high)
        for layer in layers:
            size = logits.shape[-1]
            bias = torch.zeros(layer.bias.shape).reshape(-1, size)
            bias[:, :20] = low
            layer.bias.copy_(bias.flatten())
    return made


def onnx(form: Exportable, threads: int) -> Callable[[Any], Any]:
    """The form in ONNX Runtime."""
    from singleshot.engines.onnx_graph import to_onnx

    runtime = load_package("onnxruntime")
    choices = runtime.SessionOptions()
    choices.intra_op_num_threads = threads
    choices.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(to_onnx(form).SerializeToString(), choices)
    return lambda given: session.run(None, dict(zip(form.input_names, given, strict=True)))


def openvino(form: Exportable, threads: int) -> Callable[[Any], Any]:
    """The form in OpenVINO."""
    from singleshot.engines.openvino_graph import to_openvino

    core = load_package("openvino").Core()
    choices = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
    compiled = core.compile_model(to_openvino(form), "CPU", choices)
    return lambda given: compiled(list(given))


ENGINES = {"onnxruntime": onnx, "openvino": openvino}


def main() -> None:
    """Measure, and print one line for each model and engine."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=["zoo/chess.safetensors", "zoo/bccd.safetensors", *UNTRAINED])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--image", type=Path, help="a picture, in place of noise")
    choices = parser.parse_args()
    torch.set_num_threads(choices.threads)
    for name in choices.models:
        one = detector(name)
        size = one.image_size
        whole, alone = exportable(one, size=size), exportable(one, size=size, outputs="raw")
        if choices.image is None:
            picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        else:
            import cv2

            read = cv2.cvtColor(cv2.imread(str(choices.image)), cv2.COLOR_BGR2RGB)
            picture = cv2.resize(read, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        given = [picture[None], np.array([size], np.float32)][: len(whole.input_names)]
        for engine in choices.engines:
            runs = [ENGINES[engine](form, choices.threads) for form in (whole, alone)]
            times: list[list[float]] = [[], []]
            for turn in range(choices.rounds + 3):
                for run, took in zip(runs, times, strict=True):
                    start = time.perf_counter()
                    run(given)
                    if turn >= 3:
                        took.append(1e3 * (time.perf_counter() - start))
            all_of_it, network = (statistics.median(took) for took in times)
            least = min(times[0]) - min(times[1])
            print(
                f"{name:28} {engine:12} whole {all_of_it:7.2f} ms, network {network:7.2f}, post-processing "
                f"{all_of_it - network:6.2f} (of the fastest rounds {least:6.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
