"""What a finished run left in its folder, read and checked."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, explain
from ..train.run import Run

ROW = ("name", "label", "predicted", "confidence", "top5")
FIELDS = {  # what the page needs of each file
    "run.json": ("command", "network", "preprocess", "recipe", "recipe_name", "data", "seed", "device", "why",
                 "environment"),
    "split.json": ("classes", "how"),
    "result.json": ("images", "epochs", "train_seconds", "kept", "test", "warnings", "left_out"),
    "log.jsonl": ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    "test.jsonl": ROW,
    "mistakes/mistakes.json": ("file", *ROW),
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """The contents of run.json, split.json and result.json, and the rows of log.jsonl, test.jsonl and mistakes.json."""

    folder: Path
    run: dict[str, Any]
    split: dict[str, Any]
    result: dict[str, Any]
    log: list[dict[str, Any]]
    test: list[dict[str, Any]]
    mistakes: list[dict[str, Any]]

    @property
    def classes(self) -> list[str]:
        """In the order of the network's outputs."""
        return self.split["classes"]


def read(folder: Path) -> Record:
    """Read a run.  Raises ConfigError L7 that names what is missing, damaged or at odds with the rest."""
    run = Run(folder)
    run.read_json("run.json")
    missing = [name for name in FIELDS if not run.path(name).is_file()]
    if missing:
        what = f"{run.folder} is not a finished run: it lacks {', '.join(missing)}"
        raise ConfigError("L7", what, "finish it with the command that began it, or bring the files back")
    record = Record(run.folder, *(_load(run, name) for name in FIELDS))
    rows, images = len(record.test), record.result["test"]["images"]
    if rows != images:
        raise _damaged(run, "test.jsonl", f"it has {rows} rows, but result.json speaks of {images} test images")
    strange = {row[key] for row in record.test for key in ("label", "predicted")} - set(record.classes)
    if strange:
        raise _damaged(run, "test.jsonl", f"split.json has no class {min(strange)!r}")
    return record


def _load(run: Run, name: str) -> Any:
    content = _read_lines(run, name) if name.endswith(".jsonl") else run.read_json(name)
    for row in content if isinstance(content, list) else [content]:
        lacking = [field for field in FIELDS[name] if not isinstance(row, dict) or field not in row]
        if lacking:
            raise _damaged(run, name, f"it says nothing of {', '.join(lacking)}")
    return content


def _read_lines(run: Run, name: str) -> list[dict[str, Any]]:
    rows = []
    try:
        for line in run.path(name).read_text("utf-8").splitlines():
            rows.append(json.loads(line))
    except OSError as error:
        raise _damaged(run, name, explain(error)) from None
    except ValueError as error:
        raise _damaged(run, name, f"line {len(rows) + 1}: {error}") from None
    if not rows:
        raise _damaged(run, name, "it is empty")
    return rows


def _damaged(run: Run, name: str, why: str) -> ConfigError:
    remedy = "bring the file back from a copy, or train again into another --out"
    return ConfigError("L7", f"{run.path(name)} cannot be used: {why}", remedy)
