"""The documents say what the code does: generated tables are fresh, examples run, every name and flag is real."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_generated_tables_are_fresh():
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readmes_python_runs():
    import convatlas

    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    scope = {}
    exec(code.replace('convatlas.draw(net, "resnet50-se.svg", size=224)', ""), scope)
    assert scope["card"].params == convatlas.cost(convatlas.create("resnet50", classes=10)).params
    assert scope["maps"].names == ("stage2", "stage4")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_flag_in_the_documents_is_real():
    from convatlas.cli import build_parser

    commands = next(action.choices for action in build_parser()._actions if action.dest == "==SUPPRESS==")
    for path in DOCUMENTS:
        for name, rest in re.findall(r"convatlas (\w+)([^`\n]*)", path.read_text()):
            if name in commands:
                known = {flag for action in commands[name]._actions for flag in action.option_strings}
                assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= known, (path.name, name, rest)


def test_every_public_name_is_documented():
    import convatlas

    for name in convatlas.__all__:
        assert getattr(convatlas, name).__doc__, name
