"""The lab's machinery: verdicts from numbers, trials that are kept and go on, records, pages, the command."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convatlas.cli import main
from convatlas.errors import ConfigError, StoppedError
from convatlas.lab import Lab, experiment, experiments, trials
from convatlas.lab.experiment import OPEN, REFUTED, SUPPORTED, Experiment, Fact, above, better, interval, verdict
from convatlas.lab.run import run, write
from convatlas.lab.timing import race_of, times_as_long
from convatlas.lab.trials import values
from convatlas.tree import Net, classifier, conv_bn_act, cost

from tiny import splits


def small(arch, width=4):
    return Net({"stem": conv_bn_act(arch.in_channels, width, 3), "head": classifier(width, arch.classes)})


def lab(folder, **more) -> Lab:
    return Lab(splits(), folder, **{"seeds": (0, 1), **more})


MINE = Experiment(
    number=99,
    name="mine",
    claim="A wider net is better <b>& more</b>.",
    notes="宽的好。",
    source="nobody",
    refuted_if="it is worse",
    exact=lambda: [Fact("one and one", 1 + 1, 2)],
    measure=lambda lab: {"accuracy": values(lab.trials({"narrow": lab.built("narrow", small)}, epochs=2), "accuracy")},
    judge=lambda measured: [above("accuracy above chance", measured["accuracy"]["narrow"], 1 / 3)],
    draw=lambda figure, measured: figure.subplots().plot(measured["accuracy"]["narrow"]),
)


# --- verdicts ---


def test_the_interval_is_students():
    low, high = interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2)
    assert (high - low) / 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2), s = 1
    assert interval([1.0]) == (None, None)


@pytest.mark.parametrize(
    ("samples", "bound", "expected"),
    [
        ([1.0, 1.1, 0.9], 0, SUPPORTED),
        ([-1.0, -1.1, -0.9], 0, REFUTED),
        ([1.0, -1.0, 0.5], 0, OPEN),
        ([1.0, 1.1, 0.9], 2, REFUTED),
        ([1.0, 1.1, 0.9], 1, OPEN),
        ([5.0], 0, OPEN),
    ],
)
def test_a_finding_is_decided_by_its_whole_interval(samples, bound, expected):
    assert above("x", samples, bound).verdict == expected


def test_pairs_are_compared_seed_by_seed():
    assert better("x", [0.5, 0.9, 0.7], [0.4, 0.8, 0.6]).verdict == SUPPORTED  # apart they overlap
    with pytest.raises(ValueError, match="zip"):
        better("x", [1.0], [1.0, 2.0])


def test_a_verdict_needs_all_facts_and_all_findings():
    yes, no, open_ = above("", [1.0, 1.1]), above("", [-1.0, -1.1]), above("", [1.0])
    assert verdict([Fact("", 1, 1)], []) == SUPPORTED
    assert verdict([Fact("", 1, 1)], [yes, yes]) == SUPPORTED
    assert verdict([Fact("", 1, 1)], [yes, open_]) == OPEN
    assert verdict([Fact("", 1, 1)], [yes, open_, no]) == REFUTED
    assert verdict([Fact("", 1, 2)], [yes]) == REFUTED


def test_times_are_compared_turn_by_turn():
    slow = [2.0, 4.0, 2.2, 40.0, 2.1, 2.0, 2.3, 2.0, 2.1]  # a neighbour's bursts hit both of a pair
    fast = [1.0, 2.0, 1.1, 20.0, 1.0, 1.0, 1.1, 1.0, 1.0]
    assert times_as_long("", slow, fast).mean == 2
    assert times_as_long("", slow, fast, bound=1.9).verdict == SUPPORTED
    assert times_as_long("", slow, fast, bound=2.5).verdict == REFUTED


def test_turns_leave_the_number_of_threads_as_it_was():
    torch.set_num_threads(1)
    taken = race_of({"short": lambda: sum(range(10)), "long": lambda: sum(range(100_000))}, seconds=0)
    assert len(taken["short"]) == len(taken["long"]) >= 9
    assert min(taken["long"]) > min(taken["short"]) >= 0
    assert torch.get_num_threads() == 1


# --- trials ---


def test_a_trial_is_trained_once_and_read_the_second_time(tmp_path):
    looked = []

    def look(net, predictions):
        looked.append(net.training)
        return {"width": net.get_submodule("stem.conv").out_channels}

    steps = []
    where = lab(tmp_path, progress=lambda *args: steps.append(args))
    arms = {"a/b": where.built("narrow", small)}
    first = where.trials(arms, look, epochs=2)
    assert looked == [False, False]
    assert [t["width"] for t in first["a/b"]] == [4, 4]
    assert (
        first["a/b"][0]["accuracy"] != first["a/b"][1]["accuracy"] or first["a/b"][0]["loss"] != first["a/b"][1]["loss"]
    )
    assert steps[0][:3] == ("a/b", 0, 1)
    assert steps[-1][1:] == (1, steps[-1][3], steps[-1][3])
    count = len(steps)
    assert where.spared == []
    assert where.trials(arms, look, epochs=2) == first
    assert where.spared == [t["seconds"] for t in first["a/b"]]
    assert len(steps) == count
    assert looked == [False, False]
    (told,) = where.trained.values()
    net = arms["a/b"].build()
    macs = cost(net, where.size).macs
    images, params = len(where.splits.train), sum(p.numel() for p in net.parameters())
    assert told == {"params": params, "macs": macs, "images": images, "epochs": 2}


def test_another_network_recipe_or_look_is_another_trial(tmp_path):
    where = lab(tmp_path, seeds=(0,))

    def wide(arch):
        return small(arch, 8)

    arch = where.built("net", small)
    where.trial("x", arch, 0, epochs=2)
    where.trial("x", where.built("net", wide), 0, epochs=2)
    where.trial("x", arch, 0, epochs=2, lr=0.01)
    where.trial("x", arch, 1, epochs=2)
    where.trial("x", arch, 0, lambda net, predictions: {"more": 1}, epochs=2)
    where.trial("x", arch, 0, epochs=2)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_trial_that_was_stopped_goes_on_and_ends_alike(tmp_path):
    def stop(arm, seed, done, total):
        if done == 3:
            raise StoppedError(2, "stopped", "go on")

    arch = lab(tmp_path).built("narrow", small)
    with pytest.raises(StoppedError):
        lab(tmp_path / "a", progress=stop).trial("x", arch, 0, epochs=5)
    stopped = lab(tmp_path / "a").trial("x", arch, 0, epochs=5)
    whole = lab(tmp_path / "b").trial("x", arch, 0, epochs=5)
    assert {**stopped, "seconds": 0} == {**whole, "seconds": 0}


def test_the_short_budget_is_about_80_steps_and_at_least_an_epoch(tmp_path):
    many, few = lab(tmp_path), replace(lab(tmp_path), splits=splits(train=3000))
    steps = many.recipe.epochs * -(-70 // many.recipe.batch)
    assert steps == 80
    assert few.recipe.epochs == 3
    assert lab(tmp_path, budget="full").recipe.epochs == 30


# --- records ---


def test_a_record_a_picture_and_a_page_are_written(tmp_path):
    record = run(MINE, lab(tmp_path / "trials"), "convatlas lab run mine.py")
    page = write(MINE, record, tmp_path)
    assert record["exact"] == {
        "facts": [{"what": "one and one", "value": 2, "expected": 2, "holds": True}],
        "holds": True,
    }
    assert record["verdict"] in (SUPPORTED, OPEN, REFUTED)
    assert record["seeds"] == [0, 1]
    assert json.loads((tmp_path / "99-mine.json").read_text()) == record
    text = page.read_text()
    assert "&lt;b&gt;&amp; more" in text
    assert "<b>& more" not in text
    assert "宽的好。" in text
    assert "<svg" in text
    assert "src=" not in text
    assert (tmp_path / "99-mine.png").read_bytes()[:4] == b"\x89PNG"


def test_a_fact_that_does_not_hold_refutes(tmp_path):
    wrong = replace(MINE, exact=lambda: [Fact("one and one", 1 + 1, 3)])
    record = run(wrong, lab(tmp_path), "")
    assert record["verdict"] == REFUTED
    assert not record["exact"]["holds"]


# --- the registry and the command ---


def test_every_experiment_says_what_it_must():
    found = experiments()
    assert [e.number for e in found.values()] == sorted({e.number for e in found.values()})
    for name, e in found.items():
        assert name == e.name
        for text in (e.claim, e.source, e.refuted_if):
            assert text == text.strip() != ""
        assert any("\u4e00" <= character <= "\u9fff" for character in e.notes), name


def test_experiments_go_by_name_number_and_file(tmp_path):
    first = next(iter(experiments().values()))
    assert experiment(first.name) is experiment("1") is experiment("01") is first
    with pytest.raises(ConfigError, match=r"did you mean three-3x3\?"):
        experiment("three-3x")
    file = tmp_path / "mine.py"
    for content in ("", "EXPERIMENT = 3"):
        file.write_text(content)
        with pytest.raises(ConfigError, match="has no EXPERIMENT"):
            experiment(str(file))
    with pytest.raises(ConfigError, match="there is no file"):
        experiment(str(tmp_path / "other.py"))


def test_the_command_lists_and_runs(tmp_path, capsys):
    assert main(["lab"]) == 0
    assert "three-3x3" in capsys.readouterr().out
    assert main(["lab", "run"]) == 2
    assert "no experiment is named" in capsys.readouterr().err
    file = tmp_path / "mine.py"
    file.write_text(
        "from convatlas.lab.experiment import Experiment, Fact\n"
        "EXPERIMENT = Experiment(number=50, name='mine', claim='c', notes='n', source='s', refuted_if='r',\n"
        "    exact=lambda: [Fact('x', 1, 1)], measure=lambda lab: {'seeds': list(lab.seeds)}, judge=lambda m: [],\n"
        "    draw=lambda figure, m: figure.subplots().plot(m['seeds']))\n"
    )
    assert main(["lab", "run", str(file), "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert "supported" in captured.out
    assert str(tmp_path / "out" / "50-mine.html") in captured.err
    assert json.loads((tmp_path / "out" / "50-mine.json").read_text())["measured"] == {"seeds": [0, 1]}


def test_the_experiment_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "SHORT_STEPS", 3)
    text = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len(code.splitlines()) < 60
    (tmp_path / "mine.py").write_text(code)
    mine = experiment(str(tmp_path / "mine.py"))
    assert all(fact.holds for fact in mine.exact())
    where = lab(tmp_path)
    found = mine.measure(replace(where, seeds=(0,), progress=lambda *args: None))
    assert set(found["accuracy"]) == {"width 4", "width 8"}
    assert mine.judge(found)[0].verdict == OPEN
    write(mine, {**run(MINE, where, ""), "measured": found}, tmp_path)
