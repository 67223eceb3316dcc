"""Writes the generated parts of docs/results.md, between marks, from the recorded lines.

    python benchmarks/results_page.py            # write them
    python benchmarks/results_page.py --check    # print what would change, and exit with 1 if anything would

A part begins with `<!-- made: KIND NAME -->` and ends with `<!-- end -->`. All text outside is written by hand.
KIND: `runs` (a dataset), `classes` (the same by class), `run` (its command and curve), `pairs` (a paired experiment),
`int8` (what int8 costs and gains), `growth` (how cost grows).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
PART = re.compile(r"(<!-- made: (\w+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(text: str, made: dict[str, dict[str, str]]) -> str:
    """The page with every generated part written again.

    Raises:
        UserError: the kind or name of a part does not exist.
    """
    from singleshot.errors import UserError

    def part(match: re.Match[str]) -> str:
        begin, kind, name, end = match.groups()
        if name not in made.get(kind, {}):
            known = ", ".join(f"{kind} {name}" for kind, names in made.items() for name in names)
            raise UserError(f"{PAGE.name}: there is no part {kind} {name}; expected one of {known}")
        return f"{begin}{made[kind][name]}\n{end}"

    return PART.sub(part, text)


def parts() -> dict[str, dict[str, str]]:
    """Every generated part: kind -> name -> Markdown."""
    import int8
    from growing import report as growing
    from growing.measure import Row
    from pairs import experiments, records, report
    from recorded import page, runner

    lines = runner.read()
    pairs = {}
    for name, experiment in experiments.EXPERIMENTS.items():
        path = ROOT / "benchmarks" / "results" / f"{name}_pairs.jsonl"
        found = records.read(path)
        records.check(experiment, found, path)
        pairs[name] = report.table(experiment, records.of(experiment, found))
    grown = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text(encoding="utf-8"))
    rows = [Row.from_json(row) for row in grown["rows"]]
    sets = dict.fromkeys(line["dataset"] for line in lines.values())
    return {
        "runs": {name: page.table(name, lines.values()) for name in sets},
        "classes": {name: page.classes(name, lines.values()) for name in sets},
        "run": {name: page.run(line) for name, line in lines.items()},
        "pairs": pairs,
        "int8": {"all": int8.table(int8.read())},
        "growth": {"all": f"{growing.where(grown['about'])}\n\n{growing.table(rows)}\n\n{growing.reasons(rows)}"},
    }


def main(words: list[str] | None = None) -> int:
    """Run the command line: write the page, or check it. Returns the exit code."""
    from singleshot.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not up to date")
    options = parser.parse_args(words)
    text = PAGE.read_text(encoding="utf-8")
    try:
        new = written(text, parts())
    except UserError as error:
        print(f"results_page: {error}", file=sys.stderr)
        return 2
    if new == text:
        print(f"{PAGE}: up to date")
        return 0
    if options.check:
        print(f"{PAGE}: not up to date; run python benchmarks/results_page.py", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    print(f"{PAGE}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
