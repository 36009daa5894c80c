"""The documents say what the code does: generated tables are fresh, examples run, every name and flag is real."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DOCUMENTS = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


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


def code(text):
    """The lines of all blocks of code, without their comments."""
    blocks = re.findall(r"^```.*?^```", text, re.M | re.S)
    return [re.sub(r"\s+# .*", "", line) for block in blocks for line in block.splitlines()]


def test_the_chinese_readme_has_the_same_commands_links_and_tables():
    english, chinese = (path.read_text("utf-8") for path in READMES)
    assert code(english) == code(chinese)
    assert len(code(english)) > 30
    for found in (r"^<!-- generated.*?<!-- end -->", r"^#+ ", r"\]\(((?!README)[^)]+)\)"):
        assert re.findall(found, english, re.M | re.S) == re.findall(found, chinese, re.M | re.S), found
    assert "](README.zh-CN.md)" in english
    assert "](README.md)" in chinese


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def flags(parser):
    """Of a command and the commands under it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from flags(command)


def test_every_flag_in_the_documents_is_real():
    from convatlas.cli import build_parser

    commands = next(action.choices for action in build_parser()._actions if action.dest == "==SUPPRESS==")
    for path in DOCUMENTS:
        for name, rest in re.findall(r"convatlas (\w+)([^`\n]*)", path.read_text()):
            if name in commands:
                known = set(flags(commands[name]))
                assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= known, (path.name, name, rest)


def test_every_public_name_is_documented():
    import convatlas

    for name in convatlas.__all__:
        assert getattr(convatlas, name).__doc__, name
