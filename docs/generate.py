"""Fill in what the documents take from the code: tables between `<!-- generated: NAME -->` and `<!-- end -->`.

python docs/generate.py            write
python docs/generate.py --check    exit 1 if a document is out of date
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMANDS = ("list", "show", "audit", "train", "eval", "predict", "import", "report")


def networks() -> str:
    from convatlas.papers.built import built
    from convatlas.zoo import list_networks, spec

    lines = ["| network | input | parameters | MACs | for |", "|---|---:|---:|---:|---|"]
    for arch in map(spec, list_networks()):
        cost = built(arch).cost
        lines.append(f"| `{arch.name}` | {arch.size} | {cost.params:,} | {cost.macs:,} | {arch.use} |")
    return "\n".join(lines)


def verdicts() -> str:
    from collections import Counter

    from convatlas import audit

    counts = Counter(finding.verdict for finding in audit())
    return "\n".join(
        ["| verdict | figures |", "|---|---:|", *(f"| {verdict} | {n} |" for verdict, n in sorted(counts.items()))]
    )


def results() -> str:
    lines = ["| data | network | test accuracy | seeds | training | command |", "|---|---|---:|---:|---:|---|"]
    for file in sorted((ROOT / "results").glob("*.json")):
        r = json.loads(file.read_text())
        spread = f" ± {r['std']:.2%}" if r["std"] is not None else ""
        seconds = f"{min(r['train_seconds']):.0f} to {max(r['train_seconds']):.0f} s"
        cells = (r["data"], r["network"], f"{r['mean']:.2%}{spread}", len(r["seeds"]), seconds, f"`{r['command']}`")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def commands() -> str:
    os.environ["COLUMNS"] = "100"
    from convatlas.cli import build_parser

    parser = build_parser()
    subparsers = next(action for action in parser._actions if hasattr(action, "choices") and action.choices)
    texts = [("convatlas", parser), *((f"convatlas {name}", subparsers.choices[name]) for name in COMMANDS)]
    return "\n\n".join(f"## `{name}`\n\n```\n{p.format_help().rstrip()}\n```" for name, p in texts)


GENERATORS: dict[str, Callable[[], str]] = {f.__name__: f for f in (networks, verdicts, results, commands)}


def filled(text: str) -> str:
    def fill(match: re.Match) -> str:
        return f"<!-- generated: {match[1]} -->\n{GENERATORS[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path in DOCUMENTS if filled(path.read_text("utf-8")) != path.read_text("utf-8")]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date. Remedy: make docs", file=sys.stderr)
        else:
            path.write_text(filled(path.read_text("utf-8")), "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
