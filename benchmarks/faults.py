"""The goals of reliability in full: how many trials, how many failed.

    python benchmarks/faults.py [G1 G2 ...] [--seed 0]

Writes a row for each goal to results/faults.json and prints every failure.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

from convatlas.train.run import environment

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results/faults.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("goals", nargs="*", help="G1, G2, ... (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests/faults"), str(ROOT / "tests/train")]
    files = sorted((ROOT / "tests/faults").glob("g[0-9]*.py"))
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in (file.stem for file in files):
        number = name.split("_")[0].upper()
        if options.goals and number not in options.goals:
            continue
        goal, started = importlib.import_module(name), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            failures = goal.run(goal.FULL, options.seed, Path(folder))
        row = {
            "goal": goal.GOAL,
            "trials": goal.FULL,
            "failures": len(failures),
            "seconds": round(time.monotonic() - started),
            "command": f"python benchmarks/faults.py {number} --seed {options.seed}",
            "environment": environment(),
        }
        rows = sorted([r for r in rows if r["goal"] != goal.GOAL] + [row], key=lambda r: r["goal"])
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{goal.GOAL}: {len(failures)} of {goal.FULL} failed, {row['seconds']} s")
        print("\n".join(failures), end="\n" if failures else "")
    return any(row["failures"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
