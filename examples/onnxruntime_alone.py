"""Find objects with an exported model and plain ONNX Runtime, without this package.

    singleshot export runs/cells/best.safetensors --out cells.onnx
    python examples/onnxruntime_alone.py cells.onnx photo.jpg

For models of one input size (SSD, RefineDet) with the input `image`, which is the default of the export;
docs/how_to/exported_files.md has the lines for those that keep the aspect ratio.
"""

import json
import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it is read once
import cv2
import numpy as np
import onnxruntime


def main(model: str, picture: str) -> None:
    """Print what is found in a picture."""
    session = onnxruntime.InferenceSession(model)
    about = json.loads(session.get_modelmeta().custom_metadata_map["singleshot"])
    image = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
    height, width = about["input_size"]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    boxes, scores, labels, count = session.run(None, {"images": resized[None]})
    scale = np.tile([image.shape[1] / width, image.shape[0] / height], 2)
    for box, score, label in zip(boxes[0, : count[0]] * scale, scores[0], labels[0], strict=False):
        print(about["class_names"][label], round(float(score), 3), box.round(1).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:])
