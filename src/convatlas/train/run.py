"""A run's folder: what it is a run of, its log, its checkpoints and its results.

run.json               network, preprocessing, recipe, data, seed, environment
split.json             which images were in train, val and test
bad_files.jsonl        the files that were left out, and why
log.csv, log.jsonl     a row an epoch
checkpoint-*           the newest two states of training
best.safetensors       the weights that were best on the validation images
model.safetensors      the finished bundle
test.jsonl             a row for each test image
samples/               a few test images, to try `convatlas predict` on
mistakes/              the test images that were wrong with the most confidence
result.json            what came out, with seeds, times and environment
lock                   which process writes here now
"""

import csv
import io
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import files
from ..data import BadFile, Images
from ..errors import ConfigError, ResourceError, explain
from . import lock
from .differences import differences
from .evaluate import Predictions

COLUMNS: tuple[str, ...] = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy")  # of the log
MISTAKES = 24  # images kept
SAMPLES = 8


class Run:
    """One training run in one folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def open(self, config: dict[str, Any], about: dict[str, Any]) -> bool:
        """Begin a run of `config`, or go on with the one that is there; whether it is finished already.

        `about` is noted too, but may differ when the run goes on.  Until `close` or the end of the process no other
        process can open the folder.

        Raises ResourceError C3 if the folder can't be written, C11 if another process has opened it, ConfigError L4 if
        it holds a run of something else.
        """
        try:
            self._occupy()
            return self._begin(config, about)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write into the folder."""
        lock.release(self.path("lock"))

    def _occupy(self) -> None:
        try:
            lock.acquire(self.path("lock"))
            files.write_text(self.path("probe"), "").unlink(missing_ok=True)
        except (OSError, ResourceError) as error:
            cause = error.__cause__ or error
            if not isinstance(cause, OSError):  # somebody else's
                raise
            what = f"cannot write to {self.folder}: {explain(cause)}"
            raise ResourceError("C3", what, "give another --out") from None
        files.sweep(self.folder)

    def _begin(self, config: dict[str, Any], about: dict[str, Any]) -> bool:
        if not self.path("run.json").exists():
            self.write_json("run.json", {**config, **about, "environment": environment()})
            return False
        before = self.read_json("run.json")
        differing = sorted(differences({k: before.get(k) for k in config}, json.loads(json.dumps(config))))
        if differing:
            what = f"{self.folder} holds another run: {', '.join(differing[:5])}"
            raise ConfigError("L4", what, "give another --out, or the same command to go on with that run")
        return self.path("result.json").exists()

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run."""
        files.write_text(self.path(name), json.dumps(content, indent=1) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run.  Raises ConfigError if there is no such run."""
        try:
            return json.loads(self.path(name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            reason = explain(error) if isinstance(error, OSError) else str(error)
            what = f"{self.folder} is not a run: {name}: {reason}"
            raise ConfigError("L7", what, "give the folder that `convatlas train` wrote") from None

    def write_bad_files(self, bad: Iterable[BadFile]) -> None:
        """Write a row for each file that was left out: name, class, what was wrong with it, sha256."""
        files.write_text(self.path("bad_files.jsonl"), "".join(json.dumps(asdict(file)) + "\n" for file in bad))

    def write_log(self, history: list[dict[str, Any]]) -> None:
        """Write the epochs so far as CSV and as JSON lines."""
        table = io.StringIO()
        rows = [{name: row[name] for name in COLUMNS} for row in history]  # a checkpoint does not keep their order
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(self.path("log.csv"), table.getvalue())
        files.write_text(self.path("log.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))

    def write_test(self, predictions: Predictions, images: Images) -> None:
        """Write a row for each test image, and the worst mistakes as pictures."""
        probabilities = predictions.probabilities
        confidence, predicted = probabilities.max(1)
        best = probabilities.topk(min(5, len(predictions.classes)))
        rows = [
            {
                "name": name,
                "label": predictions.classes[label],
                "predicted": predictions.classes[guess],
                "confidence": round(sure, 6),
                "top5": {predictions.classes[c]: round(p, 6) for p, c in zip(ps, cs, strict=True)},
            }
            for name, label, guess, sure, ps, cs in zip(
                predictions.names,
                predictions.labels.tolist(),
                predicted.tolist(),
                confidence.tolist(),
                best.values.tolist(),
                best.indices.tolist(),
                strict=True,
            )
        ]
        files.write_text(self.path("test.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
        spread = torch.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).long().tolist()
        for number, i in enumerate(spread):
            safe = re.sub(r"[^\w.-]+", "-", f"{number}_{rows[i]['label']}_{rows[i]['name']}")
            short = safe.encode()[:100].decode("utf-8", "ignore")  # a file name has 255 bytes, not characters
            files.write_bytes(self.path("samples") / f"{short}.png", png(images.read(i)))
        wrong = (predicted != predictions.labels).nonzero().flatten()
        worst = wrong[confidence[wrong].argsort(descending=True)][:MISTAKES].tolist()
        folder = self.path("mistakes")
        shutil.rmtree(folder, ignore_errors=True)
        listing = [{"file": f"{number:02}.png", **rows[i]} for number, i in enumerate(worst)]
        for entry, i in zip(listing, worst, strict=True):
            files.write_bytes(folder / entry["file"], png(images.read(i), most=256))
        files.write_text(folder / "mistakes.json", json.dumps(listing, indent=1) + "\n")


def png(pixels: torch.Tensor, most: int | None = None) -> bytes:
    """A PNG file of uint8 (3, H, W), made smaller where a side is longer than `most` pixels."""
    from torchvision.transforms.v2.functional import to_pil_image

    image = to_pil_image(pixels)
    if most is not None:
        image.thumbnail((most, most))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def environment() -> dict[str, Any]:
    """Where numbers were measured: versions, processor, threads."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }
