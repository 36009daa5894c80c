"""Starts commands of convatlas as real processes, through `fork_server.py`, and compares the runs they leave."""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from convatlas.data import Images
from convatlas.train.checkpoint import saved
from convatlas.train.run import png
from convatlas.weights import read_tensors

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


class Server:
    """Starts commands, one at a time."""

    def __init__(self):
        script = Path(__file__).with_name("fork_server.py")
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        assert self.process.stdout.readline().startswith("ready")
        self.busy = False
        atexit.register(self.end)

    def start(self, argv, output: Path, memory: int | None = None, plain: bool = False, environment=None) -> int:
        """The process's id."""
        job = {"argv": [str(word) for word in argv], "output": str(output), "memory": memory, "plain": plain}
        job["environment"] = environment or {}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        self.busy = True
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """The exit code, or minus the number of the signal that killed it."""
        code = int(self.process.stdout.readline())
        self.busy = False
        return code

    def run(self, argv, output: Path, **more) -> int:
        """Start and wait."""
        self.start(argv, output, **more)
        return self.wait()

    def end(self) -> None:
        """Let it go, once its command has ended."""
        if self.process.poll() is None:
            self.process.communicate()


_idle: list[Server] = []


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server; whoever comes next gets the same one, unless it was left in the middle of a command."""
    server = _idle.pop() if _idle else Server()
    try:
        yield server
    finally:
        if server.busy:
            server.end()
        else:
            _idle.append(server)


def wait_for(path: Path) -> None:
    """Wait until there is such a file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def write_pictures(folder: Path, pictures: Images) -> Path:
    """A PNG file of each in a folder of its class."""
    for index in range(len(pictures)):
        pixels, label = pictures[index]
        path = folder / pictures.classes[label] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    return folder


def differences(run: Path, expected: Path) -> list[str]:
    """What is not bitwise the same in two finished runs, and what only one of them left behind."""
    files = ("model.safetensors", "best.safetensors", "log.csv", "log.jsonl", "test.jsonl", "split.json")
    found = [name for name in files if (run / name).read_bytes() != (expected / name).read_bytes()]
    (tensors, record), (wanted, wanted_record) = (read_tensors(saved(folder)[0]) for folder in (run, expected))
    if tensors.keys() != wanted.keys():
        found.append("names of the state's tensors")
    found += [name for name in tensors.keys() & wanted.keys() if not torch.equal(tensors[name], wanted[name])]
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, expected)]
    for a, b, timed in ((record, wanted_record, ("seconds",)), (*results, ("command", "train_seconds", "warnings"))):
        found += [key for key in a.keys() | b.keys() if key not in timed and a.get(key) != b.get(key)]
    names, wanted_names = ({p.name for p in f.iterdir() if not p.match("checkpoint-*")} for f in (run, expected))
    return found + sorted(names ^ wanted_names)
