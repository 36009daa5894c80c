"""Running an experiment, and what is left of it: a record as JSON, a picture, and a page that needs nothing else."""

import json
import time
from pathlib import Path
from typing import Any

from ..files import write_bytes, write_text
from ..report import figures
from ..report.page import render
from ..train.run import environment
from .experiment import OPEN, REFUTED, SUPPORTED, Experiment, verdict
from .trials import Lab

MARKS = {SUPPORTED: "✓", OPEN: "?", REFUTED: "✗"}


def run(experiment: Experiment, lab: Lab, command: str) -> dict[str, Any]:
    """The record of an experiment: its exact part, what was measured, and the verdict that follows."""
    start = time.monotonic()
    facts = experiment.exact()
    measured = json.loads(json.dumps(experiment.measure(lab)))  # as it is read from a file
    findings = experiment.judge(measured)
    return {
        "number": experiment.number,
        "name": experiment.name,
        "claim": experiment.claim,
        "notes": experiment.notes,
        "source": experiment.source,
        "refuted_if": experiment.refuted_if,
        "exact": {"facts": [fact.to_dict() for fact in facts], "holds": all(fact.holds for fact in facts)},
        "trained": lab.trained,
        "measured": measured,
        "findings": [finding.to_dict() for finding in findings],
        "verdict": verdict(facts, findings),
        "data": lab.splits.name,
        "seeds": list(lab.seeds),
        "budget": lab.budget,
        "seconds": round(time.monotonic() - start + sum(lab.spared), 1),
        "command": command,
        "environment": environment(),
    }


def write(experiment: Experiment, record: dict[str, Any], folder: Path) -> Path:
    """Write the record as NN-name.json, its picture as .svg and .png, and its page as .html; the page.

    Raises ResourceError if that is impossible.
    """
    base = folder / experiment.title

    def paint(figure: Any) -> None:
        experiment.draw(figure, record["measured"])

    svg = figures.render(experiment.name, paint, *experiment.size)
    write_text(base.with_suffix(".json"), json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(base.with_suffix(".svg"), svg)
    write_bytes(base.with_suffix(".png"), figures.png(paint, *experiment.size))
    seen = {"title": experiment.title, "svg": svg, "reading": experiment.reading}
    page = render("experiment.html.j2", {"record": record, "marks": MARKS, **seen})
    return write_text(base.with_suffix(".html"), page)
