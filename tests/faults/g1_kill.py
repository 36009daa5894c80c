"""G1: training that is killed at any moment, and started again, ends as if nothing had happened."""

import contextlib
import os
import random
import shlex
import shutil
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from convatlas.data import Images
from convatlas.train.run import png

from commands import Server, differences, serving, wait_for, write_pictures
from tiny import images

GOAL = "G1: kill -9 at random moments, also with the worker count changed at resume: bitwise the same end"
FULL = 120
SHORT = 6
CHANGED = 3  # in every 3rd run each start has another number of workers

TRAINING = shlex.split(
    "--network tiny --size 12 --recipe small --epochs 6 --batch 8 --lr 0.02 --augment small --policy trivialaugment "
    "--erasing 0.3 --mixup 0.2 --label-smoothing 0.1 --ema 0.9 --clip 5 --threads 1 --save-every 0.05"
)


def run(trials: int, seed: int, folder: Path) -> list[str]:
    """Kill `trials` times; a line for each run that did not end like the undisturbed one."""
    pictures, moments, failures, kills = images(200, 0), random.Random(seed), [], 0
    sources = [write_pictures(folder / "pictures", pictures), write_parquet(folder / "pictures.parquet", pictures)]
    with serving() as server:
        expected, seconds = zip(*(undisturbed(server, source, folder) for source in sources), strict=True)
        other = folder / "other"
        assert server.run(command(sources[0], other, 0, "--seed", 1), folder / "output") == 0
        if "model.safetensors" not in differences(other, expected[0]):
            failures.append("another seed ends alike, so this test can't fail")
        number = 0
        while kills < trials:
            which, changed, workers = number % 2, number % CHANGED == 1, moments.choice((0, 2))
            out, story, ended = folder / f"run{number}", [], False
            while not ended:
                workers = moments.choice((0, 1, 2, 4)) if changed else workers
                spared = kills >= trials or (out / "result.json").exists()  # all but the report is done
                wait = None if spared else moments.uniform(0, 0.6 * seconds[which])
                code = killed_after(server, command(sources[which], out, workers), folder / "output", wait, moments)
                story.append(f"{workers} workers {'to the end' if wait is None else f'{wait:.2f} s'}: {code}")
                kills += code == -signal.SIGKILL
                ended = code != -signal.SIGKILL
            wrong = differences(out, expected[which]) if code == 0 else [(folder / "output").read_text()]
            if wrong:
                failures.append(f"seed {seed} run {number} ({', '.join(story)}): {', '.join(wrong)}")
            shutil.rmtree(out)
            number += 1
    return failures


def undisturbed(server: Server, source: Path, folder: Path) -> tuple[Path, float]:
    """The folder of a run that nothing happens to, and the seconds until its result is there."""
    out, started = folder / f"undisturbed-{source.name}", time.monotonic()
    server.start(command(source, out, 0), folder / "output")
    wait_for(out / "result.json")
    seconds = time.monotonic() - started
    assert server.wait() == 0, (folder / "output").read_text()
    return out, seconds


def command(source: Path, out: Path, workers: int, *more: str) -> list[object]:
    return ["train", "--data", source, "--out", out, "--workers", workers, *TRAINING, *more]


def killed_after(server: Server, argv: list[object], output: Path, wait: float | None, moments: random.Random) -> int:
    """The exit code of a command that is killed after `wait` seconds, alone or with its workers, unless it is done."""
    pid, whole = server.start(argv, output), moments.random() < 0.5
    if wait is not None:
        time.sleep(wait)
        with contextlib.suppress(ProcessLookupError):  # it was quicker
            (os.killpg if whole else os.kill)(pid, signal.SIGKILL)
    return server.wait()


def write_parquet(path: Path, pictures: Images) -> Path:
    rows = [png(pictures.read(index)) for index in range(len(pictures))]
    table = pa.table({"image": rows, "label": [pictures.classes[label] for label in pictures.labels.tolist()]})
    pq.write_table(table, path, row_group_size=64)
    return path
