"""What is in a data set and what is wrong with it, as a page, a picture sheet and files for programs."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.findings import Finding
from ..data.inspect import Inspection
from ..data.splits import PARTS
from ..files import write_bytes, write_text
from . import sheet
from .page import render, require

MOST_FILES = 200  # on the page for each finding; the rest is in findings.json


def write_datasheet(inspection: Inspection, found: Sequence[Finding], folder: Path) -> Path:
    """Write data.html, sheet.png, findings.json and bad_files.jsonl into a folder; the page, which needs nothing else.

    Raises ResourceError L5 if a package is missing and C2 if the folder cannot be written.
    """
    for package in ("jinja2", "matplotlib"):
        require(package)
    name = inspection.source.name
    classes, copies = sheet.class_rows(inspection), sheet.copy_rows(inspection)
    title = f"{name}: {len(inspection.images):,} images, {len(inspection.images.classes):,} classes"
    write_bytes(folder / "sheet.png", sheet.paint([*classes, *copies], title))
    write_text(folder / "bad_files.jsonl", "".join(json.dumps(asdict(file)) + "\n" for file in inspection.bad))
    write_text(folder / "findings.json", json.dumps(to_dict(inspection, found), indent=1) + "\n")
    content = {
        **to_dict(inspection, found),
        "rows": {"classes": [_row(row) for row in classes], "copies": [_row(row) for row in copies]},
        "parts": PARTS,
        "most_files": MOST_FILES,
        "most_classes": sheet.MOST_CLASSES,
    }
    return write_text(folder / "data.html", render("datasheet.html.j2", content))


def to_dict(inspection: Inspection, found: Sequence[Finding]) -> dict[str, Any]:
    """JSON-able: what is in the data set and everything found."""
    counts = zip(inspection.images.classes, inspection.counts().tolist(), strict=True)
    return {
        "name": inspection.source.name,
        "images": len(inspection.images),
        "how": inspection.how,
        "classes": {name: dict(zip(PARTS, row, strict=True)) for name, row in counts},
        "figures": inspection.figures(),
        "findings": [asdict(finding) for finding in found],
        "bad": [asdict(file) for file in inspection.bad],
    }


def _row(row: sheet.Row) -> dict[str, Any]:
    return {
        "title": row.title,
        "detail": row.detail,
        "pictures": [{"uri": _uri(picture), "label": label} for picture, label in row.pictures],
    }


def _uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
