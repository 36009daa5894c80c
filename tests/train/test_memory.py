"""Memory that is freed stays with the process, if that is asked for."""

import subprocess
import sys

import pytest

PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np
from convatlas.train.memory import keep_freed_memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

kept = sys.argv[1] == "keep" and keep_freed_memory()
before = resident()
np.ones(100 << 17)  # 100 MiB, freed at once
print(kept, round(resident() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize(("choice", "least", "most"), [("keep", 95, 110), ("leave", -5, 5)])
def test_freed_memory_stays_only_where_asked_for(choice, least, most):
    done = subprocess.run([sys.executable, "-c", PROGRAM, choice], capture_output=True, text=True, check=True)
    kept, grown = done.stdout.split()
    assert kept == str(choice == "keep")
    assert least <= int(grown) <= most
