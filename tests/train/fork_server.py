"""Runs commands of convatlas as real processes, without the seconds that importing torch takes each time.

A line of JSON on standard input, `{"argv": [...], "output": FILE, "memory": BYTES or null}`, starts one in a process
group of its own; its id is printed, and its exit code once it has ended.
"""

import faulthandler
import json
import os
import resource
import sys
import traceback
from pathlib import Path

import matplotlib.figure
import sklearn.model_selection
import torch.utils.tensorboard.writer

import convatlas.report.page
import convatlas.train.fit
from convatlas.cli import main

PRELOADED = (matplotlib.figure, sklearn.model_selection, torch.utils.tensorboard.writer, convatlas.report.page)


def child(argv: list[str], output: str, memory: int | None) -> int:
    os.setpgid(0, 0)
    faulthandler.dump_traceback_later(60, exit=True)
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # whatever becomes of its parent, it ends
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        return main(argv)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


print("ready", convatlas.__version__, flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os._exit(child(**job))
    os.setpgid(pid, pid)  # here too: whoever is told the id may signal the group at once
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
