"""`list`, `show` and `audit`: the networks and what their papers say."""

import argparse
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from .parts import Commands, command, count, print_json, print_table

if TYPE_CHECKING:
    from ..papers.audit import Finding
    from ..tree import Cost


def add_commands(commands: Commands) -> None:
    """Declare them."""
    parser = command(commands, list_, "list the networks with their size and cost", json=True)
    parser.add_argument("pattern", nargs="?", default="*", help="a shell pattern, for example 'resnet*'")
    parser = command(commands, show, "show a network: layers, totals, what its paper says", json=True)
    parser.add_argument("network", help="its name, see `convatlas list`")
    parser.add_argument("--diagram", metavar="FILE", help="draw it to a .svg or .png file")
    parser.add_argument("--layers", action="store_true", help="every layer, not only the network's parts")
    parser = command(commands, audit, "hold the networks against their papers' figures", json=True)
    parser.add_argument("pattern", nargs="?", default="*", help="networks or papers, for example 'resnet*' or VGG")
    parser.add_argument("--all", action="store_true", help="print every figure, not only those that were computed")


def list_(args: argparse.Namespace) -> None:
    """All networks, or those that match."""
    from ..papers.counts import counts
    from ..zoo import list_networks, spec

    nets = [(arch, *counts(arch)) for arch in map(spec, list_networks(args.pattern))]
    if args.json:
        return print_json(
            [
                {
                    "name": arch.name,
                    "paper": arch.paper,
                    "use": arch.use,
                    "input_size": arch.size,
                    "classes": arch.classes,
                    "params": params,
                    "macs": macs,
                }
                for arch, params, macs in nets
            ]
        )
    rows = [(a.name, a.size, count(params), count(macs), a.paper, a.use) for a, params, macs in nets]
    return print_table(("network", "input #", "params #", "MACs #", "paper", "for"), rows)


def show(args: argparse.Namespace) -> None:
    """One network."""
    from ..papers import describe

    about = describe(args.network)
    arch, cost, paper = about.spec, about.cost, about.paper
    if args.diagram:
        from ..tree import draw

        draw(arch.skeleton(), args.diagram, size=arch.size, in_channels=arch.in_channels, title=arch.name)
    if args.json:
        return print_json(about.to_dict())
    print(f"{arch.name}: {arch.use}")
    print(f"{paper.authors}: {paper.title}, {paper.year}, {paper.link}\n")
    show_layers(cost, args.layers)
    h, w = about.receptive_field
    print(f"input {arch.in_channels}x{arch.size}x{arch.size}, {arch.classes} classes")
    print(
        f"parameters {count(cost.params)} (weights {count(cost.total('weights'))}, biases {count(cost.total('biases'))}"
        f", norm {count(cost.total('norm'))}); running statistics {count(cost.total('stats'))}"
    )
    if about.aux:
        heads = ", ".join(f"on {part} {count(params)}" for part, params in about.aux.items())
        print(f"auxiliary heads, in training only: {heads} parameters more")
    print(f"MACs {count(cost.macs)}; receptive field of the last map {count(h)}x{count(w)} px")
    print(
        f"activations in float32: {cost.saved / 2**20:.1f} MiB kept for the backward pass of one image, "
        f"{cost.live / 2**20:.1f} MiB alive at once in inference"
    )
    if about.findings:
        print()
        rows = [
            (f.quantity, f"{f.printed} {f.unit}", "" if f.exact is None else f.exact, f.verdict, f.convention, f.where)
            for f in about.findings
        ]
        print_table(("the paper prints", "", "here", "verdict", "counting", "where"), rows)
        for f in about.findings:
            if f.verdict == "contradiction":
                print(f"- {f.quantity} {f.printed} {f.unit} ({f.where}): {f.note}")
    for remark in about.remarks:
        print(f"- {remark.text} [{remark.source}]")
    if args.diagram:
        print(f"\ndiagram: {args.diagram}")
    return None


def show_layers(cost: "Cost", every: bool) -> None:
    """The table of layers, or of parts."""
    columns = ("layer", "kind", "output", "params #", "MACs #", "saved KiB #", "receptive field #", "jump #")
    rows = cost.rows
    if every:
        table = [(r.path, r.kind, r.shape, r.params, r.macs, r.saved // 1024, r.rf[0], r.jump[0]) for r in rows]
    else:
        table = []
        for part, out in cost.parts.items():
            inside = [row for row in rows if row.path == part or row.path.startswith(f"{part}.")]
            params, macs, saved = (sum(getattr(row, name) for row in inside) for name in ("params", "macs", "saved"))
            table.append((part, f"{len(inside)} rows", out.shape, params, macs, saved // 1024, out.rf[0], out.jump[0]))
    print_table(columns, [(p, k, "x".join(map(str, shape)), *map(count, rest)) for p, k, shape, *rest in table])


def audit(args: argparse.Namespace) -> int:
    """Exit code 1 if a figure differs and nobody has explained why."""
    from ..papers import audit

    findings = audit(args.pattern)
    if args.json:
        print_json([asdict(finding) for finding in findings])
    else:
        computed = [f for f in findings if args.all or f.exact is not None or f.verdict in ("contradiction", "differs")]
        columns = ("paper", "network", "quantity", "printed", "exact", "counting", "verdict")
        print_table(columns, [finding_row(f) for f in computed])
        for f in computed:
            if f.verdict in ("contradiction", "differs"):
                print(f"{f.verdict}: {f.paper}, {f.network}, {f.quantity} {f.printed} {f.unit} ({f.where}): {f.note}")
        counts = Counter(finding.verdict for finding in findings)
        print("; ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items())))
    return 1 if any(finding.verdict == "differs" for finding in findings) else 0


def finding_row(f: "Finding") -> tuple:
    """A finding's cells."""
    exact = "" if f.exact is None else f.exact
    return f.paper, f.arch or f.network, f.quantity, f"{f.printed} {f.unit}", exact, f.convention, f.verdict
