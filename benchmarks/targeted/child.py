"""A detector in a process of its own, with the package of another commit: it detects when it is asked, and is timed.

The first line of stdin is JSON: model, images, threads. Each further line is the number of an image.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Detect in one image for each line that comes; answer with the seconds."""
    told = json.loads(sys.stdin.readline())
    import torch

    import singleshot as ss

    torch.set_num_threads(told["threads"])
    model = ss.load(told["model"])
    print("ready", flush=True)
    for line in sys.stdin:
        image = told["images"][int(line) % len(told["images"])]
        start = time.perf_counter()
        model.predict(image)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
