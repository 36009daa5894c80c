"""A few pictures of each class, and those that are there twice, on one sheet."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.decode import shown
from ..data.inspect import Inspection
from ..data.splits import PARTS

SIDE = 96  # px of a picture on the sheet
GAP, MARGIN, TEXT = 6, 14, 11  # px
TITLE = 190  # px, the width of the column of titles
MOST_CLASSES = 24
PER_CLASS = 8
MOST_GROUPS = 12
PER_GROUP = 4


@dataclass(frozen=True)
class Row:
    """Pictures in a row, by a label each, with what they have in common."""

    title: str
    detail: str
    pictures: tuple[tuple[Image.Image, str], ...]


def class_rows(inspection: Inspection) -> list[Row]:
    """Pictures spread evenly over each class; of more than `MOST_CLASSES` the smallest classes."""
    labels, counts = inspection.images.labels.numpy(), inspection.counts()
    present = [c for c in range(len(counts)) if counts[c].any()]
    chosen = sorted(sorted(present, key=lambda c: counts[c].sum())[:MOST_CLASSES])
    rows = []
    for c in chosen:
        members = (labels == c).nonzero()[0].tolist()
        spread = dict.fromkeys(members[i * len(members) // PER_CLASS] for i in range(PER_CLASS))
        detail = ", ".join(f"{part} {n:,}" for part, n in zip(PARTS, counts[c], strict=True))
        rows.append(Row(inspection.images.classes[c], detail, tuple(_picture(inspection, i, False) for i in spread)))
    return rows


def copy_rows(inspection: Inspection) -> list[Row]:
    """Copies and lookalikes side by side, first those in several classes, then those in several parts."""
    labels, part = inspection.images.labels.tolist(), inspection.part.tolist()
    groups = [("the same picture", g) for g in inspection.copies] + [("look alike", g) for g in inspection.lookalikes]

    rows = []
    for title, group in groups:
        kinds = len({labels[i] for i in group}) > 1, len({part[i] for i in group}) > 1
        where = {(True, True): "in several classes and parts", (True, False): "in several classes",
                 (False, True): "in several parts", (False, False): "in one class and part"}[kinds]  # fmt: skip
        rows.append((kinds, title, where, group))
    rows.sort(key=lambda row: row[0], reverse=True)
    return [
        Row(title, where, tuple(_picture(inspection, i, True) for i in group[:PER_GROUP]))
        for _, title, where, group in rows[:MOST_GROUPS]
    ]


def paint(rows: Sequence[Row], title: str) -> bytes:
    """The rows as one PNG under a title, each with its own on the left."""
    width = TITLE + max((len(row.pictures) for row in rows), default=0) * (SIDE + GAP) + 2 * MARGIN
    height = SIDE + GAP + TEXT + GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + 2 * TEXT + height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, (MARGIN, MARGIN), title, width - 2 * MARGIN, TEXT + 3)
    for number, row in enumerate(rows):
        top = MARGIN + 2 * TEXT + number * height
        _write(draw, (MARGIN, top + SIDE // 2 - TEXT - 2), row.title, TITLE - GAP, TEXT + 1)
        _write(draw, (MARGIN, top + SIDE // 2 + 2), row.detail, TITLE - GAP, TEXT - 1, "#5f6368")
        for place, (picture, label) in enumerate(row.pictures):
            left = MARGIN + TITLE + place * (SIDE + GAP)
            sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
            _write(draw, (left, top + SIDE + 1), label, SIDE, TEXT - 2, "#5f6368")
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _picture(inspection: Inspection, index: int, with_folder: bool) -> tuple[Image.Image, str]:
    """An image fitted to the sheet, tiny ones with their pixels as squares, and its name."""
    image = Image.fromarray(inspection.images.read(index).permute(1, 2, 0).numpy())
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.LANCZOS if scale < 2 else Image.Resampling.NEAREST
    name = shown(inspection.images.names[index])
    return image.resize(size, method, reducing_gap=2), name if with_folder else name.rpartition("/")[2]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Of matplotlib, for it knows most alphabets; Pillow's own has no accents."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, size: int, colour: str = "#222"
) -> None:
    """One line; the beginning of a text that is too long gives way to an ellipsis, for the ends of names differ."""
    font = _font(size)
    text = line = shown(text)
    while draw.textlength(line, font) > width:
        text = text[1:]
        line = f"...{text}"
    draw.text(place, line, colour, font)
