"""The page of a run: everything on it is computed here, how it looks is in report.html.j2."""

import base64
import importlib
import io
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.decode import shown
from ..errors import ConfigError, ResourceError
from ..files import write_text
from ..papers import CONVENTIONS, describe
from ..tree import cost
from ..tree.draw import draw
from ..tree.draw.page import rounded
from ..zoo import Arch, spec
from . import figures, measures
from .record import Record, read

MOST_IN_MATRIX = 100  # classes; for more the table of confused pairs must do
MOST_IN_TABLE = 25  # classes; of more the worst are shown
MOST_PAIRS = 10
TINY = 64  # px; smaller images are shown with their pixels as squares
KEPT = {
    "last": "the last, since none before was better on the validation images by more than chance",
    "best": "the best on the validation images, where it beat the last by more than chance",
}
FILES = {
    "model.safetensors": "the trained network: weights, classes, preprocessing, figures and recipe in one file",
    "run.json": "network, preprocessing, recipe, data, seed and environment",
    "split.json": "which images were in train, val and test",
    "log.csv": "a row for each epoch, for a spreadsheet",
    "log.jsonl": "the same, for a program",
    "test.jsonl": "a row for each test image, with the five most probable classes",
    "result.json": "the figures at the top of this page",
}


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a finished run: one file that needs nothing from outside.

    Raises ConfigError L7 if a file of the run is missing or damaged, ResourceError L5 if a package is missing and C2
    if the page cannot be written.
    """
    for package in ("jinja2", "matplotlib"):
        require(package)
    record = read(folder)
    return write_text(record.folder / "report.html", render("report.html.j2", gather(record)))


def render(template: str, content: dict[str, Any]) -> str:
    """A page as text.  Names are hostile: whatever a line cannot show becomes an escape, then HTML is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.filters |= {"percent": percent, "duration": duration, "size": size, "rounded": rounded}
    return environment.get_template(template).render(content)


def gather(record: Record) -> dict[str, Any]:
    """What the template shows."""
    kept = record.result["kept"]
    return {
        "run": record.run,
        "result": record.result,
        "classes": record.classes,
        "how": record.split["how"],
        "environment": {"seed": record.run["seed"], "device": record.run["device"], **record.run["environment"]},
        "why_kept": KEPT[kept["which"]],
        "charts": {
            "loss": figures.loss_chart(record.log, kept["epoch"]),
            "accuracy": figures.accuracy_chart(record.log, kept["epoch"]),
            "rate": figures.rate_chart(record.log),
            "reliability": figures.reliability_chart(measures.calibration(record.test)),
        },
        "mistakes": [mistake | picture(record.folder, mistake["file"]) for mistake in record.mistakes],
        "files": {name: what for name, what in FILES.items() if (record.folder / name).exists()},
        **test_content(record),
        **network_content(Arch.from_dict(record.run["network"])),
    }


def test_content(record: Record) -> dict[str, Any]:
    """What is counted from the rows of the test images."""
    counts = measures.confusion(record.classes, record.test)
    right, images = int(counts.trace()), len(record.test)
    scores = measures.class_scores(record.classes, counts)
    if len(scores) > MOST_IN_TABLE:
        present = [score for score in scores if score.support]
        scores = sorted(present, key=lambda score: score.f1 or 0.0)[:MOST_IN_TABLE]
    return {
        "right": right,
        "images": images,
        "interval": measures.wilson(right, images),
        "counts": counts.tolist() if len(record.classes) <= MOST_IN_MATRIX else None,
        "pairs": measures.confusions(record.classes, counts, MOST_PAIRS),
        "scores": scores,
    }


def network_content(arch: Arch) -> dict[str, Any]:
    """The diagram, the costs, and what is published; figures of the paper only if this is exactly its network."""
    net = arch.skeleton()
    description = describe(arch.name)
    same = arch == spec(arch.name)
    diagram = draw(net, size=arch.size, in_channels=arch.in_channels, title=arch.name)
    return {
        "arch": arch,
        "published": description.spec,
        "diagram": figures.named("network", str(diagram)),
        "cost": cost(net, arch.size, arch.in_channels),
        "paper": description.paper,
        "findings": [f for f in description.findings if same and f.where != "derived"],
        "meanings": {name: convention.meaning for name, convention in CONVENTIONS.items()},
        "remarks": description.remarks,
    }


def picture(folder: Path, file: str) -> dict[str, Any]:
    """A picture of the folder `mistakes` as a data URI, and whether it is tiny."""
    path = folder / "mistakes" / Path(file).name  # the name alone: a listing from others must not reach other files
    try:
        png = path.read_bytes()
        width, height = Image.open(io.BytesIO(png), formats=["PNG"]).size
    except OSError:
        remedy = "bring the file back from a copy, or train again into another --out"
        raise ConfigError("L7", f"{path} is missing or not a PNG", remedy) from None
    return {"uri": f"data:image/png;base64,{base64.b64encode(png).decode()}", "tiny": max(width, height) < TINY}


def percent(share: float | None, digits: int = 1) -> str:
    """`97.2 %`; None is a dash."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 12 s` or `7.5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def size(octets: int) -> str:
    """`65.5 KiB` or `1.2 MiB`."""
    return f"{octets / 2**10:,.1f} KiB" if octets < 2**20 else f"{octets / 2**20:,.1f} MiB"


def require(package: str) -> None:
    """Raise ResourceError L5 if it is not installed."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        what = f"the report needs {package}, which is not installed"
        raise ResourceError("L5", what, "pip install 'convatlas[train]'") from error
