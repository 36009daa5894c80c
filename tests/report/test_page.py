"""The page of a run: what is on it, and that it needs nothing from outside."""

import base64
import json
import re
import sys
from html.parser import HTMLParser

import pytest
import torch

from convatlas.errors import ConfigError, ResourceError
from convatlas.papers import describe
from convatlas.report import write_report
from convatlas.train.fit import fit, plan
from convatlas.train.run import Run
from convatlas.zoo import spec

VOID = {"meta", "link", "img", "br"}
OPTIONAL_END = {"tr", "td", "th", "thead", "tbody", "dt", "dd", "li"}


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and its tables as rows of cells.

    Refuses tags that close in another order than they open.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.tables: list[list[list[str]]] = []
        self.cell = False
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.cell = tag in ("td", "th") or (self.cell and tag in ("a", "i"))
        if tag not in VOID | OPTIONAL_END:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID | OPTIONAL_END:
            assert self.open.pop() == tag
        self.cell = self.cell and tag in ("a", "i")

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            return
        self.text += data
        if self.cell:
            self.tables[-1][-1][-1] += data.strip()

    @property
    def words(self) -> str:
        """The text with its white space made single spaces."""
        return " ".join(self.text.split())

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def table(self, *head: str) -> list[list[str]]:
        """The rows below the head of the only table that has this one."""
        (found,) = [rows for rows in self.tables if rows and rows[0] == list(head)]
        return found[1:]


def page_of(folder) -> Page:
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def mixed(finished):
    """The folder of a run with a right and two wrong predictions, and its page."""
    folder = finished(("a", "b"), [0, 1, 1], [1, 1, 0])
    return folder, page_of(folder)


def test_a_real_run(tmp_path):
    class Nobody:
        def begin(self, *args): ...
        def step(self, *args): ...
        def epoch(self, *args): ...

    run = Run(tmp_path)
    result = fit(plan("digits", overrides={"epochs": 1}), run, Nobody(), command="convatlas train --epochs 1")
    assert write_report(tmp_path) == tmp_path / "report.html"
    page = page_of(tmp_path)
    assert f"{100 * result['test']['accuracy']:.2f} %" in page.words
    assert "convatlas train --epochs 1" in page.words
    assert result["how"] in page.words
    listed = json.loads(run.path("mistakes/mistakes.json").read_text("utf-8"))
    assert len([source for source in page.attributes("src") if source.startswith("data:image/png")]) == len(listed) > 0


def test_the_figures_are_on_the_page(finished):
    labels = [0] * 40 + [1] * 30 + [2] * 20
    predicted = [0] * 37 + [1] * 3 + [1] * 30 + [2] * 19 + [0]
    page = page_of(finished(("cat", "dog", "emu"), labels, predicted))
    assert "resnet20 on made-up" in page.words
    assert "95.56 % 86 of 90 images; 95 % interval 89.1 % to 98.3 %" in page.words
    assert "cut as follows: val is 15% and test 15% of each class, cut by seed 0; train is the rest." in page.words
    assert "1 min 23 s" in page.words
    assert "The weights are those of epoch 3 of 3 (val accuracy 75.00 %): the last" in page.words
    assert "Among the top 5" not in page.words
    matrix = page.table("", "cat", "dog", "emu")
    assert matrix == [["cat", "37", "3", ""], ["dog", "", "30", ""], ["emu", "1", "", "19"]]
    pairs = page.table("true", "predicted", "images", "of the true class")
    assert pairs == [["cat", "dog", "3", "7.5 %"], ["emu", "cat", "1", "5.0 %"]]
    scores = page.table("class", "precision", "recall", "F1", "test images")
    assert scores == [
        ["cat", "97.4 %", "92.5 %", "94.9 %", "40"],
        ["dog", "90.9 %", "100.0 %", "95.2 %", "30"],
        ["emu", "100.0 %", "95.0 %", "97.4 %", "20"],
    ]
    sure = torch.tensor([2.0, 0, 0]).softmax(0)[0].item()
    assert f"is {100 * (86 / 90 - sure):.1f} %. Bins" in page.words
    assert "Every mistake" in page.words
    assert page.words.count("predicted dog 78.7 % true cat 10.7 %") == 3
    assert sum(tag == "svg" for tag, _ in page.tags) == 5  # loss, accuracy, rate, reliability, network


def test_the_pictures_of_the_mistakes_are_inside(mixed):
    folder, page = mixed
    pictures = [base64.b64decode(source.partition(",")[2]) for source in page.attributes("src")]
    assert pictures == [(folder / "mistakes" / name).read_bytes() for name in ("00.png", "01.png")]
    assert page.attributes("class").count("tiny") == 2


def test_nothing_is_fetched_and_nothing_runs(mixed):
    folder, page = mixed
    text = (folder / "report.html").read_text("utf-8")
    assert all(source.startswith("data:") for source in page.attributes("src"))
    outside = {link for link in page.attributes("href") if not link.startswith(("#", "data:"))}
    assert {link for link in outside if ":" in link} == {"https://arxiv.org/abs/1512.03385"}
    assert all((folder / link).exists() for link in outside if ":" not in link)
    assert {tag for tag, attrs in page.tags if "https" in attrs.get("href", "")} == {"a"}
    assert not re.search(r"@import|url\((?!#)", text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_ids_are_unique_and_every_reference_has_one(mixed):
    folder, page = mixed
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    text = (folder / "report.html").read_text("utf-8")
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', text)) <= set(ids)


def test_the_same_run_gives_the_same_page(mixed):
    folder, _ = mixed
    assert (folder / "report.html").read_bytes() == write_report(folder).read_bytes()


HOSTILE = (
    "<script>alert(1)</script>",
    "\"' onmouseover=alert(1) x='",
    "{{ 7 * 7 }} {% raw %}",
    "two\nlines",
    "bytes \udcff and \ud800",
    "$\\frac{1}{2}$ &amp; </td>",
    "\u202eright to left",
)


def test_hostile_names_are_shown_not_obeyed(finished):
    n = len(HOSTILE)
    names = tuple(f"{name}/{i}.png" for i, name in enumerate(HOSTILE))
    folder = finished(HOSTILE, list(range(n)), [*range(1, n), 0], names=names, warnings=[HOSTILE[0]], left_out=2)
    run = json.loads((folder / "run.json").read_text("utf-8"))
    spiked = {**run, **dict.fromkeys(("command", "data", "why", "recipe_name"), HOSTILE[0] + HOSTILE[4])}
    Run(folder).write_json("run.json", spiked)
    page = page_of(folder)  # decodes as UTF-8
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    shown = [*HOSTILE[:3], r"two\nlines", r"bytes \udcff and \ud800", HOSTILE[5], r"\u202eright to left"]
    assert [row[0] for row in page.table("class", "precision", "recall", "F1", "test images")] == shown
    assert f"resnet20 on {shown[0]}{shown[4]}" in page.words
    assert "2 unreadable files were left out." in page.words


def test_no_mistakes(finished):
    page = page_of(finished(("a", "b"), [0, 1, 1], [0, 1, 1]))
    assert "100.00 % 3 of 3 images" in page.words
    assert "No test image was taken for another class." in page.words
    assert "Not one of the 3 test images was wrong." in page.words
    assert "img" not in {tag for tag, _ in page.tags}


def test_more_mistakes_than_are_kept(finished):
    page = page_of(finished(("a", "b"), [0] * 30, [1] * 30))
    assert "The 24 of 30 mistakes of which the network was surest." in page.words


def test_one_epoch(finished):
    page = page_of(finished(("a", "b"), [0, 1], [0, 1], epochs=1))
    assert "1 epoch on cpu" in page.words


def test_a_class_without_test_images(finished):
    page = page_of(finished(("a", "b", "c"), [0, 1], [0, 1]))
    dash = "\N{EN DASH}"
    assert page.table("class", "precision", "recall", "F1", "test images")[2] == ["c", dash, dash, dash, "0"]


def test_thirty_classes_list_the_worst(finished):
    classes = tuple(f"c{i}" for i in range(30))
    predicted = [*range(28), 0, 0]
    page = page_of(finished(classes, list(range(30)), predicted))
    scores = page.table("class", "precision", "recall", "F1", "test images")
    assert len(scores) == 25
    assert [row[0] for row in scores[:3]] == ["c28", "c29", "c0"]
    assert len(page.table("", *classes)) == 30


def test_a_thousand_classes_have_no_matrix(finished):
    classes = tuple(f"c{i}" for i in range(1000))
    folder = finished(classes, [*range(1000), 5, 5], [*range(1000), 7, 7], network="resnet50", size=224)
    page = page_of(folder)
    assert "With 1,000 classes the whole matrix would tell less" in page.words
    assert page.table("true", "predicted", "images", "of the true class") == [["c5", "c7", "2", "66.7 %"]]
    assert "Among the top 5" in page.words
    assert (folder / "report.html").stat().st_size < 1 << 20


def test_the_paper_beside_exactly_its_network(finished):
    assert spec("resnet20").classes == 10
    assert spec("resnet20").size == 32
    classes = tuple("abcdefghij")
    page = page_of(finished(classes, list(range(10)), list(range(10)), size=32))
    table = page.table("quantity", "printed", "ours", "what is counted", "where", "verdict")
    assert ["params", "0.27 M", "269,722", "all trainable parameters", "ResNet, Table 6", "agrees"] in table
    assert all(remark.text in page.words for remark in describe("resnet20").remarks)


def test_no_paper_figures_beside_another_network(finished):
    page = page_of(finished(("a", "b"), [0, 1], [0, 1]))
    assert "for 10 classes and 32 × 32 × 3 images; this one is for 2 classes and 16 × 16 × 3 images" in page.words  # noqa: RUF001
    assert not any("printed" in rows[0] for rows in page.tables)


@pytest.mark.parametrize("name", ["log.jsonl", "test.jsonl", "split.json", "result.json", "mistakes/mistakes.json"])
def test_a_missing_file_is_named(finished, name):
    folder = finished(("a", "b"), [0, 1], [0, 1])
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"error\[L7\]: .*run is not a finished run: it lacks {name}\. Remedy: \S"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_not_a_run(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run: run\.json: No such file"):
        write_report(tmp_path)


def cut_line(text):
    return text[: len(text) // 2]


def without(field):
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != field})


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        ("log.jsonl", cut_line, "line 2: "),
        ("log.jsonl", lambda text: "", "it is empty"),
        ("test.jsonl", lambda text: text.splitlines()[0], "it has 1 rows, but result.json speaks of 2 test images"),
        ("test.jsonl", lambda text: text.replace('"a"', '"z"'), "split.json has no class 'z'"),
        ("test.jsonl", lambda text: "[1]\n", "it says nothing of name, label"),
        ("run.json", without("network"), "it says nothing of network"),
        ("result.json", without("kept"), "it says nothing of kept"),
        ("mistakes/00.png", lambda text: "", "is missing or not a PNG"),
    ],
)
def test_a_damaged_file_is_named(finished, name, damage, why):
    folder = finished(("a", "b"), [0, 1], [0, 0])
    path = folder / name
    path.write_text(damage(path.read_text("utf-8", "replace")), "utf-8")
    with pytest.raises(ConfigError, match=re.escape(why)) as caught:
        write_report(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_listing_cannot_reach_files_elsewhere(finished):
    folder = finished(("a", "b"), [0, 1], [0, 0])
    listing = folder / "mistakes" / "mistakes.json"
    listing.write_text(listing.read_text("utf-8").replace("00.png", "../../secret.png"), "utf-8")
    (folder / "mistakes" / "00.png").rename(folder.parent / "secret.png")
    with pytest.raises(ConfigError, match=r"secret\.png is missing"):
        write_report(folder)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named(finished, monkeypatch, package):
    folder = finished(("a", "b"), [0, 1], [0, 1])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResourceError, match=rf"error\[L5\]: the report needs {package}.*pip install"):
        write_report(folder)
