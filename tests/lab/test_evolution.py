"""The line of networks: quoted errors, dates, arrows, times, the picture, the command."""

import itertools
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.text import Annotation

from convatlas.cli import main
from convatlas.lab import evolution
from convatlas.lab.evolution import TOP, rows, steps, summary, table
from convatlas.lab.evolution.picture import FAMILIES, SIZE, diameter, paint, place
from convatlas.papers.tables import figures
from convatlas.zoo import spec

STEPS = {step.network: step for step in steps()}


# --- the table ---


@pytest.mark.parametrize("step", steps(), ids=lambda step: step.network)
def test_every_quoted_error_is_one_figure(step):
    chosen = [f for f in figures() if f.quantity in TOP and step.error.items() <= vars(f).items()]
    quantities = [TOP[f.quantity] for f in chosen]
    assert "top1" in quantities
    assert len(quantities) == len(set(quantities))
    assert len({(f.paper, f.dataset, f.input, f.where) for f in chosen}) == 1
    known = {step.network, step.network.replace("googlenet", "googlenet.separable")}
    assert {f.arch for f in chosen} <= known
    assert step.paper_error["setting"]


def test_errors_are_as_printed():
    def printed(name):
        return STEPS[name].paper_error["top1"], STEPS[name].paper_error["top5"]

    assert printed("vgg16") == (27.0, 8.8)
    assert printed("mobilenet_v2") == (28.0, None)  # 72.0 % are right
    assert str(printed("googlenet")[0]) == "29"
    assert STEPS["resnet50"].paper_error["source"] == "KaimingHe/deep-residual-networks README"
    assert STEPS["senet154"].paper_error["source"] == "arXiv:1709.01507, Table 8"


def test_they_stand_in_the_order_of_their_papers():
    dates = [step.date for step in steps()]
    assert dates == sorted(dates)
    assert STEPS["alexnet"].date == (2012, 12)
    assert STEPS["shufflenet.g3"].date == (2017, 7) < STEPS["senet154"].date < STEPS["mobilenet_v2"].date


def test_nobody_builds_on_what_is_not_yet_there():
    for step in steps():
        assert step.family in FAMILIES
        assert {*step.bend} <= {*step.on, *step.takes}
        for parent in (*step.on, *step.takes):
            assert STEPS[parent].date <= step.date
            assert STEPS[parent].label or not step.label
        assert bool(step.label) == step.paper_error["dataset"].startswith("ILSVRC-2012 val")
        if step.cifar:
            spec(step.cifar)


# --- rows ---


def test_columns_that_nobody_measured_are_left_out():
    assert not {"CIFAR-10, ours", "ms (quartiles) #", "/ ResNet-50 #"} & {*table(rows())}
    result = {
        "network": "resnet20",
        "size": 32,
        "recipe": "cifar10",
        "epochs": 2,
        "seeds": [0, 1],
        "mean": 0.7,
        "std": 0.1,
    }
    time = {"latency_ms": 10.0, "latency_spread": [9.0, 12.0], "ratio": 2.0}
    columns = table(rows([result], {"vgg16": time}))
    assert set(columns["CIFAR-10, ours"]) == {"", "70.0% ± 10.0% resnet20"}
    assert columns["ms (quartiles) #"][1] == "10 (9 to 12)"
    assert columns["/ ResNet-50 #"] == ["", "2.00", *[""] * (len(STEPS) - 2)]


def test_ratios_are_taken_turn_by_turn():
    a_burst = summary([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
    assert a_burst["ratio"] == 2
    assert a_burst["latency_ms"] == 2000


def test_networks_take_turns(monkeypatch):
    monkeypatch.setattr(evolution, "UNIT", "resnet56")
    told = []
    found = evolution.latencies(["resnet20"], 0.01, told.append)
    assert told[:4] == ["resnet56", "resnet20"] * 2
    assert list(found) == ["resnet20"]
    times = found["resnet20"]
    assert 0 < times["latency_spread"][0] <= times["latency_ms"] <= times["latency_spread"][1]
    assert 0 < times["ratio"] < 1


def test_the_record_is_of_these_networks():
    record = json.loads((Path(__file__).parents[2] / "results" / "evolution.json").read_text())
    derived = json.loads(json.dumps([step.row() for step in steps()]))
    assert [{key: row[key] for key in derived[0]} for row in record["rows"]] == derived
    assert all(row["ratio"] > 0 for row in record["rows"])


# --- the picture ---


def test_no_words_cover_others_or_a_circle():
    figure = Figure(SIZE)
    paint(figure)
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = [a for a in axes.get_children() if isinstance(a, AnnotationBbox)]
    parts = [a for a in axes.get_children() if isinstance(a, Annotation) and a.get_text()]
    legend = axes.get_legend().get_window_extent()
    found = [a.get_window_extent() for a in (*boxes, *parts)] + [legend]
    assert len(boxes) == sum(step.label is not None for step in steps())
    for one, other in itertools.combinations(found, 2):
        assert not one.overlaps(other)
    for box in found:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        for step in filter(lambda step: step.label, steps()):
            x, y = axes.transData.transform(place(step))
            nearest = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
            away = ((nearest[0] - x) ** 2 + (nearest[1] - y) ** 2) ** 0.5
            assert away >= diameter(step) / 2 * figure.dpi / 72, (step.name, box)


# --- the command ---


def test_the_command_prints_draws_and_records(tmp_path, capsys):
    results, record, out = tmp_path / "cifar10.json", tmp_path / "evolution.json", tmp_path / "evolution.svg"
    row = {"network": "resnet20", "size": 32, "recipe": "cifar10", "epochs": 2, "seeds": [0], "mean": 0.7, "std": None}
    results.write_text(json.dumps([row]))
    assert main(["evolution", "--results", str(results), "--record", str(record), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "25,557,032" in printed
    assert "70.0% resnet20" in printed
    assert "2 epochs" in printed
    assert "arXiv:1801.04381" in out.read_text()
    found = json.loads(record.read_text())
    assert found["rows"] == json.loads(json.dumps(rows([row])))
    assert "--results" in found["command"]
    assert found["environment"]["torch"]


def test_what_the_command_refuses(tmp_path, capsys):
    assert main(["evolution", "--out", "evolution.gif"]) == 2
    other = tmp_path / "other.json"
    for content in ("{", "[3]", '[{"network": "resnet20"}]', '{"rows": []}'):
        other.write_text(content)
        assert main(["evolution", "--results", str(other)]) == 2
        assert "error[L7]" in capsys.readouterr().err
    assert main(["evolution", "--results", str(tmp_path / "none.json")]) == 2
