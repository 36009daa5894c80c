"""Fill in what the documents take from the code, between `<!-- generated: NAME ARGUMENTS -->` and `<!-- end -->`.

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
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
IMAGES = ROOT / "docs" / "images"
QUANTITIES = {"params": "parameters", "macs": "MACs"}
COMMANDS = ("list", "show", "audit", "recipes", "train", "eval", "predict", "import", "export", "report")


def networks() -> str:
    from convatlas.papers.counts import TABLE, counted
    from convatlas.zoo import list_networks, spec

    lines, rows = ["| network | input | parameters | MACs | for |", "|---|---:|---:|---:|---|"], ["network,params,macs"]
    for arch in map(spec, list_networks()):
        params, macs = counted(arch)
        lines.append(f"| `{arch.name}` | {arch.size} | {params:,} | {macs:,} | {arch.use} |")
        rows.append(f"{arch.name},{params},{macs}")
    BESIDE[TABLE] = "\n".join(rows) + "\n"
    return "\n".join(lines)


def variants(paper: str) -> str:
    """The networks of a paper: their exact counts, and which of the paper's numbers they meet."""
    from convatlas import audit
    from convatlas.papers.built import built
    from convatlas.papers.tables import citations
    from convatlas.zoo import list_networks, spec

    (key,) = {c.key for c in citations() if c.paper == paper}
    lines = ["| network | input | parameters | MACs | the paper prints | for |", "|---|---:|---:|---:|---|---|"]
    for arch in (a for a in map(spec, list_networks()) if a.paper == key):
        cost = built(arch).cost
        printed = [
            f"{f.printed} {f.unit} {QUANTITIES[f.quantity]} ({f.verdict})"
            for f in audit(arch.name)
            if f.quantity in QUANTITIES and f.where != "derived" and "(not paper)" not in f.where
        ]
        cells = (
            f"`{arch.name}`",
            arch.size,
            f"{cost.params:,}",
            f"{cost.macs:,}",
            "; ".join(dict.fromkeys(printed)),
            arch.use,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def block(network: str, module: str) -> str:
    """The diagram of a module, drawn from the tree, as a file of its own."""
    from convatlas.papers.built import built
    from convatlas.tree import draw
    from convatlas.zoo import spec

    net = built(spec(network))
    x = net.cost.inputs[module]
    title = f"{network}: {module}"
    svg = draw(net.net.get_submodule(module), size=(x.h, x.w), in_channels=x.c, title=title)
    path = IMAGES / f"{network}-{module}.svg"
    BESIDE[path] = str(svg)
    return f"![{title}](../images/{path.name})"


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
        if "seeds" not in r:
            continue
        spread = f" ± {r['std']:.2%}" if r["std"] is not None else ""
        seconds = f"{min(r['train_seconds']):.0f} to {max(r['train_seconds']):.0f} s"
        cells = (r["data"], r["network"], f"{r['mean']:.2%}{spread}", len(r["seeds"]), seconds, f"`{r['command']}`")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def parity() -> str:
    """The largest difference of logits against each library, or a note that says why there is none."""
    record = ROOT / "results" / "parity.json"
    if not record.exists():
        return "Not recorded yet; `make parity` measures it."
    rows = json.loads(record.read_text())
    libraries = list(dict.fromkeys(row["peer"] for row in rows))
    notes: dict[str, int] = {}
    cells: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row["peer_network"] is None:
            continue
        cell = cells.setdefault(row["network"], {}).setdefault(row["peer"], [])
        if row["reason"]:
            how = "to ours only:" if row["direction"] else "not"
            text = f"{how} `{row['peer_network']}` ({notes.setdefault(row['reason'], len(notes) + 1)})"
        else:
            same = (r for r in rows if (r["network"], r["peer_network"]) == (row["network"], row["peer_network"]))
            most = max(r["max_abs_diff"] for r in same if r["peer"] == row["peer"] and r["max_abs_diff"] is not None)
            text = f"`{row['peer_network']}` {f'{most:.0e}' if most else '0'}"
        if text not in cell:
            cell.append(text)
    lines = ["| network | " + " | ".join(libraries) + " |", "|---" * (1 + len(libraries)) + "|"]
    for network, found in cells.items():
        lines.append(f"| `{network}` | " + " | ".join("; ".join(found.get(name, [])) for name in libraries) + " |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in notes.items())])


def recipes() -> str:
    from convatlas.train.builtin import about, builtin
    from convatlas.train.recipe import Recipe

    lines = [
        "| recipe | for | epochs | batch | update | rate | source | evidence |",
        "|---|---|---:|---:|---|---:|---|---|",
    ]
    for name in builtin():
        recipe, head = Recipe.load(name), about(name)
        networks = ", ".join(f"`{pattern}`" for pattern in head["Networks"].split(", "))
        cells = (f"`{name}`", networks, recipe.epochs, recipe.batch, recipe.optimizer, recipe.lr, head["Source"])
        lines.append("| " + " | ".join(map(str, (*cells, head["Evidence"].rstrip(".")))) + " |")
    return "\n".join(lines)


def fields() -> str:
    """The fields of a recipe."""
    from dataclasses import fields

    from convatlas.train.recipe import Recipe

    lines = ["| field | default | what it is |", "|---|---|---|"]
    for f in fields(Recipe):
        allowed = f"; one of {', '.join(f.metadata['choices'])}" if f.metadata["choices"] else ""
        lines.append(f"| `{f.name}` | {json.dumps(f.default)} | {f.metadata['help']}{allowed} |")
    return "\n".join(lines)


def commands() -> str:
    os.environ["COLUMNS"] = "100"
    from convatlas.cli import build_parser

    parser = build_parser()
    subparsers = next(action for action in parser._actions if hasattr(action, "choices") and action.choices)
    texts = [("convatlas", parser), *((f"convatlas {name}", subparsers.choices[name]) for name in COMMANDS)]
    return "\n\n".join(f"## `{name}`\n\n```\n{p.format_help().rstrip()}\n```" for name, p in texts)


GENERATORS: dict[str, Callable[..., str]] = {
    f.__name__: f for f in (networks, variants, block, verdicts, results, parity, recipes, fields, commands)
}
BESIDE: dict[Path, str] = {}  # other files that the generators write: diagrams, and the table behind `convatlas list`


def filled(text: str) -> str:
    def fill(match: re.Match) -> str:
        name, *arguments = match[1].split()
        return f"<!-- generated: {match[1]} -->\n{GENERATORS[name](*arguments)}\n<!-- end -->"

    return re.sub(r"<!-- generated: ([^\n]+?) -->\n.*?<!-- end -->", fill, text, flags=re.S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    fresh = {path: filled(path.read_text("utf-8")) for path in DOCUMENTS} | BESIDE
    stale = [path for path, text in fresh.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date. Remedy: make docs", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(fresh[path], "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
