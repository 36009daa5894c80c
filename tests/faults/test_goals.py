"""The goals of reliability, shortened; `make faults` runs them in full and records what came out."""

import importlib
from pathlib import Path

import pytest

GOALS = sorted(file.stem for file in Path(__file__).parent.glob("g[0-9]*.py"))


@pytest.mark.parametrize("name", GOALS)
def test_the_goal_is_met(name, tmp_path):
    goal = importlib.import_module(name)
    assert goal.run(goal.SHORT, 0, tmp_path) == []
