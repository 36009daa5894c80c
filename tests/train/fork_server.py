"""Runs commands of convatlas as real processes, without the seconds that importing torch takes each time.

A line of JSON on standard input, `{"argv": [...], "output": FILE}`, starts one in a process group of its own; its id is
printed, and its exit code once it has ended.  It may also have `"memory": BYTES`, `"environment": {...}` and
`"plain": true`, which lets file modes bind it even if it is root's.  A network called `tiny` has dropout and auxiliary
heads.
"""

import ctypes
import faulthandler
import json
import os
import resource
import struct
import sys
import traceback
from pathlib import Path

import matplotlib.figure
import sklearn.model_selection
import tensorboard.summary.writer.record_writer

import convatlas.report.page
import convatlas.train.fit
from convatlas.cli import main
from convatlas.zoo.spec import register

from tiny import Tiny

PRELOADED = (
    matplotlib.figure,
    sklearn.model_selection,
    tensorboard.summary.writer.record_writer,
    convatlas.report.page,
)


register(Tiny(aux=True, paper="arXiv:1409.4842"))  # of a paper, for its report


def child(argv, output, memory=None, plain=False, environment=None) -> int:
    os.setpgid(0, 0)
    os.environ |= environment or {}
    faulthandler.dump_traceback_later(60, exit=True)
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # whatever becomes of its parent, it ends
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if plain:
        version_3, none = struct.pack("II", 0x20080522, 0), bytes(24)
        assert ctypes.CDLL(None).capset(version_3, none) == 0  # of root's capabilities
    try:
        return main(argv)
    except SystemExit as left:
        return left.code
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
