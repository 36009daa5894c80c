"""Fill in what the documents take from the code, between `<!-- generated: NAME ARGUMENTS -->` and `<!-- end -->`.

python docs/generate.py            write
python docs/generate.py --check    exit 1 if a document is out of date
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md")))
IMAGES = ROOT / "docs" / "images"
QUANTITIES = {"params": "parameters", "macs": "MACs"}


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


def table(file: str, *columns: str) -> str:
    """The rows of results/FILE.json: a column is the name of a field, or name:format as of Python's `format`.

    `name=value` leaves out the rows whose field is another.
    """
    record = json.loads((ROOT / "results" / f"{file}.json").read_text())
    rows = record["rows"] if isinstance(record, dict) else record
    wanted = dict(c.split("=") for c in columns if "=" in c)
    fields = [(c + ":").split(":")[:2] for c in columns if "=" not in c]

    def cell(value: object, form: str) -> str:
        if isinstance(value, list):
            return ", ".join(cell(v, form) or "-" for v in value)
        return "" if value is None else format(value, "" if isinstance(value, str) else form)

    lines = ["| " + " | ".join(name.replace("_", " ") for name, _ in fields) + " |", "|---" * len(fields) + "|"]
    for row in rows:
        if all(row[name] == value for name, value in wanted.items()):
            lines.append("| " + " | ".join(cell(row.get(name), form) for name, form in fields) + " |")
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

    def help_of(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
        yield f"## `{name}`\n\n```\n{parser.format_help().rstrip()}\n```"
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command, of_command in action.choices.items():
                    yield from help_of(f"{name} {command}", of_command)

    return "\n\n".join(help_of("convatlas", build_parser()))


def lab() -> str:
    """The table of experiments with what was recorded of each; and a page for each record, with its picture."""
    from convatlas.lab import experiments
    from convatlas.lab.run import MARKS
    from convatlas.report.figures import render

    lines = ["| | claim | data, budget, seeds | verdict |", "|---:|---|---|---|"]
    for e in experiments().values():
        path = ROOT / "results" / "lab" / f"{e.title}.json"
        if not path.exists():
            lines.append(f"| {e.number} | {e.claim} | | not recorded yet: `convatlas lab run {e.name}` |")
            continue
        record = json.loads(path.read_text("utf-8"))
        where = f"{record['data']}, {record['budget']}, {len(record['seeds'])}"
        verdict = f"{MARKS[record['verdict']]} {record['verdict']}"
        lines.append(f"| {e.number} | [{record['claim']}](lab/{e.title}.md) | {where} | {verdict} |")
        BESIDE[IMAGES / "lab" / f"{e.title}.svg"] = render(e.name, partial(_draw, e, record), *e.size)
        BESIDE[ROOT / "docs" / "lab" / f"{e.title}.md"] = experiment_page(e, record)
    return "\n".join(lines)


def _draw(experiment, record: dict, figure) -> None:
    experiment.draw(figure, record["measured"])


def experiment_page(experiment, record: dict) -> str:
    """The page of a record."""
    from convatlas.lab.run import MARKS

    title = experiment.title
    facts = [f"| {f['what']} | {f['value']} | {f['expected']} | {'yes' if f['holds'] else '**no**'} |"
             for f in record["exact"]["facts"]]  # fmt: skip
    findings = [
        f"| {f['what']} | {f['mean']:.4g} | "
        + ("one seed" if f["low"] is None else f"{f['low']:.4g} to {f['high']:.4g}")
        + f" | {f['bound']:.4g} | {MARKS[f['verdict']]} {f['verdict']} |"
        for f in record["findings"]
    ]
    seeds = ", ".join(map(str, record["seeds"]))
    parts = [
        f"# {record['claim']}",
        f"> {record['notes']}",
        f"**{MARKS[record['verdict']]} {record['verdict'][0].upper()}{record['verdict'][1:]}**, on {record['data']} at "
        f"the {record['budget']} budget, seeds {seeds}. Source: {record['source']}. Refuted if {record['refuted_if']}.",
        f"![{record['claim']}](../images/lab/{title}.svg)",
        experiment.reading,
    ]
    if findings:
        head = ["| finding | mean | 95 % interval | must be above | verdict |", "|---|---:|---:|---:|---|"]
        parts += ["## What was measured", "\n".join(head + findings)]
    if trained := record.get("trained"):
        head = ["| network | parameters | MACs | training images | epochs |", "|---|---:|---:|---:|---:|"]
        rows = [" | ".join([f"| {arm}", *(f"{count:,}" for count in counts.values())]) + " |"
                for arm, counts in trained.items()]  # fmt: skip
        parts += ["## What was trained", "\n".join(head + rows)]
    if facts:
        head = ["| fact | value | the claim's | holds |", "|---|---|---|---|"]
        parts += ["## What is exact", "\n".join(head + facts)]
    environment = ", ".join(f"{name} {value}" for name, value in record["environment"].items() if value is not None)
    how = f"```\n{record['command']}\n```\n\n{record['seconds']:.0f} s; {environment}."
    record_link = f"The record: [results/lab/{title}.json](../../results/lab/{title}.json)."
    return "\n\n".join([*parts, "## How it was run", how, record_link]) + "\n"


def evolution() -> str:
    """The picture of the line of networks, and the table of its record."""
    from convatlas.lab.evolution import table
    from convatlas.lab.evolution.picture import SIZE, paint
    from convatlas.report.figures import render

    record = json.loads((ROOT / "results" / "evolution.json").read_text("utf-8"))
    columns = table(record["rows"])
    BESIDE[IMAGES / "evolution.svg"] = render("evolution", paint, *SIZE)
    return "\n".join([
        "![error over time, multiply-adds as areas, arrows from who is built upon](images/evolution.svg)",
        "",
        "| " + " | ".join(name.removesuffix(" #") for name in columns) + " |",
        "|" + "|".join("---:" if name.endswith(" #") else "---" for name in columns) + "|",
        *("| " + " | ".join(cells) + " |" for cells in zip(*columns.values(), strict=True)),
    ])  # fmt: skip


def limits() -> str:
    """The chart of results/inference.json: time over the least that this machine's arithmetic allows."""
    from convatlas.report.figures import render

    rows = json.loads((ROOT / "results" / "inference.json").read_text("utf-8"))["rows"]
    BESIDE[IMAGES / "limits.svg"] = render("limits", partial(_draw_limits, rows), 7.0, 3.6)
    return "![time over the arithmetic limit, for each network in float32 and int8](images/limits.svg)"


def _draw_limits(rows: list[dict], figure) -> None:
    """A row for each network: a dot for each precision, filled for 8 images a call and hollow for one."""
    from convatlas.lab.pictures import PALETTE

    axes = figure.subplots()
    networks = list(dict.fromkeys(row["network"] for row in rows))
    for row in rows:
        colour = PALETTE[("fp32", "int8").index(row["precision"])]
        face = colour if row["batch"] > 1 else "white"
        axes.plot(row["over_limit"], networks.index(row["network"]), "o", color=colour, markerfacecolor=face)
    for colour, precision in zip(PALETTE, ("float32", "int8"), strict=False):
        axes.plot([], [], "o", color=colour, label=f"{precision}, 8 images")
        axes.plot([], [], "o", color=colour, markerfacecolor="white", label=f"{precision}, 1 image")
    axes.axvline(1, color=PALETTE[-1], linewidth=1)
    axes.set(xlabel="time over the arithmetic limit of float32", yticks=range(len(networks)), xlim=(0, None))
    axes.set_yticklabels(networks)
    axes.invert_yaxis()
    axes.legend(fontsize=7, loc="center right")


GENERATORS: dict[str, Callable[..., str]] = {
    f.__name__: f
    for f in (
        networks,
        variants,
        block,
        verdicts,
        results,
        table,
        parity,
        recipes,
        fields,
        commands,
        lab,
        evolution,
        limits,
    )
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
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fresh[path], "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
