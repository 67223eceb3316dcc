"""Writes the numbers that `singleshot models` prints: those of every variant, measured on its network.

python benchmarks/list_models.py
"""

from __future__ import annotations

import json
from pathlib import Path

from singleshot.detectors.models import stored_models

FILE = Path(__file__).parents[1] / "src" / "singleshot" / "cli" / "models.json"


def main() -> int:
    """Measure all, and write the file. Returns the exit code."""
    rows = [json.dumps(model, ensure_ascii=False) for model in stored_models()]
    FILE.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
