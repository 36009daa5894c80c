"""The recipes that come with convatlas: their files, and what the comments at their heads say."""

import itertools
import re
from importlib import resources
from pathlib import Path


def builtin() -> dict[str, Path]:
    """The files by the recipes' names."""
    folder = Path(str(resources.files("convatlas") / "recipes"))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def about(name: str) -> dict[str, str]:
    """What the head of a recipe says under Networks, Source, Evidence and the like; before these, under Title."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), builtin()[name].read_text("utf-8").splitlines())
    paragraphs = re.split(r"\n(?=[A-Z][a-z]+: )", "\n".join(line[1:].strip() for line in lines))
    title, *rest = (" ".join(paragraph.split()) for paragraph in paragraphs)
    return {"Title": title, **dict(paragraph.split(": ", 1) for paragraph in rest)}
