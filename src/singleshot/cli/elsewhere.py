"""The names of flags in other tools, and what they are called here; those of `train` stand beside its fields."""

from __future__ import annotations

from collections.abc import Mapping

_BOTH = {
    "--batch": "--batch-size",
    "--batchsize": "--batch-size",
    "--num-workers": "--workers",
    "--augment": "--tta",
    "--imgsz": "--tta, with a file of views (the size for one pass is fixed in the model's file)",
    "--img-size": "--tta, with a file of views (the size for one pass is fixed in the model's file)",
    "--image-size": "--tta, with a file of views (the size for one pass is fixed in the model's file)",
}
DETECT: Mapping[str, str] = {
    **_BOTH,
    "--conf": "--threshold",
    "--conf-thres": "--threshold",
    "--confidence": "--threshold",
    "--score": "--threshold",
    "--score-thr": "--threshold",
    "--pred-score-thr": "--threshold",
    "--max-det": "--top-k",
    "--class": "--classes",
    "--output": "--out",
    "--out-dir": "--out",
    "--output-dir": "--out",
    "--save-dir": "--out",
    "--project": "--out",
    "--name": "--out",
    "--exist-ok": "--overwrite",
    "--weights": "MODEL, the first word after detect,",
    "--model": "MODEL, the first word after detect,",
    "--checkpoint": "MODEL, the first word after detect,",
    "--source": "SOURCE, a word after MODEL,",
    "--input": "SOURCE, a word after MODEL,",
}
MEASURE: Mapping[str, str] = {
    "--batch": "--batch-size",
    "--batchsize": "--batch-size",
    "--num-workers": "--workers",
    "--weights": "MODEL, the first word after the verb,",
    "--model": "MODEL, the first word after the verb,",
    "--checkpoint": "MODEL, the first word after the verb,",
    "--data": "DATA, the word after MODEL,",
    "--data-path": "DATA, the word after MODEL,",
}
EVALUATE: Mapping[str, str] = {
    **MEASURE,
    **_BOTH,
    "--conf": "--sweep threshold=0.01,0.05 (a metric needs the low scores too)",
    "--conf-thres": "--sweep threshold=0.01,0.05 (a metric needs the low scores too)",
    "--iou": "--sweep nms=0.4,0.5",
    "--iou-thres": "--sweep nms=0.4,0.5",
    "--max-det": "--sweep detections=100,200",
    "--save-json": "--save-detections",
    "--out": "--save-detections",
}
EXPORT: Mapping[str, str] = {
    "--output": "--out",
    "--output-file": "--out",
    "--name": "--out",
    "--half": "--precision bf16",
    "--int8": "--precision int8 --calibrate DATA",
    "--include": "--format",
    "--dynamic": "nothing (the number of images is always free)",
    "--nms": "nothing (the suppression is always inside; --outputs raw leaves it out)",
    "--simplify": "nothing (the graph is simplified already)",
    "--conf": "--threshold",
    "--conf-thres": "--threshold",
    "--weights": "MODEL, the first word after export,",
    "--model": "MODEL, the first word after export,",
    "--checkpoint": "MODEL, the first word after export,",
}
