"""Find objects with an exported model and plain OpenVINO, without this package.

    singleshot export runs/cells/best.safetensors --out cells.xml
    python examples/openvino_alone.py cells.xml photo.jpg

For models of one input size (SSD, RefineDet) with the input `image`, which is the default of the export;
docs/how_to/exported_files.md has the lines for those that keep the aspect ratio.
"""

import json
import sys

sys.modules.setdefault("openvino_telemetry", None)  # before the import: nothing is reported
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import openvino  # noqa: E402


def main(model: str, picture: str) -> None:
    """Print what is found in a picture."""
    graph = openvino.Core().read_model(model)
    about = json.loads(graph.get_rt_info(["singleshot"]).astype(str))
    network = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
    height, width = about["input_size"]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    boxes, scores, labels, count = network(resized[None]).values()
    scale = np.tile([image.shape[1] / width, image.shape[0] / height], 2)
    for box, score, label in zip(boxes[0, : count[0]] * scale, scores[0], labels[0], strict=False):
        print(about["class_names"][label], round(float(score), 3), box.round(1).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:])
