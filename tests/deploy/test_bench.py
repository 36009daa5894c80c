"""Ours beside others: the same weights in all, or nothing is timed; what is left out is said; limits are limits."""

import json

import numpy as np
import pytest
import torch

from convatlas.cli import main
from convatlas.data import Preprocess
from convatlas.deploy import bench
from convatlas.deploy.bench import agree, compare, contestants, limit, peers
from convatlas.deploy.timing import turns
from convatlas.errors import WeightsError
from convatlas.tree import cost

from bundles import bundle_of


@pytest.fixture(scope="module")
def small():
    return bundle_of("resnet18.b", Preprocess(32, 32))


@pytest.fixture(scope="module")
def found(small):
    return contestants(small, ("torchvision", "timm", "onnxruntime"), 1)


def test_all_have_the_bundles_weights(small, found):
    assert found.ours.keys() == {"torch", "onnxruntime", "openvino"}
    assert found.others.keys() == {"torchvision", "timm", "torchvision onnxruntime"}
    agree(found, small)
    net = peers.network(small, "timm")
    assert net is not None
    torch.nn.init.zeros_(net.fc.bias)
    torch.nn.init.normal_(net.fc.weight)
    other = bench.Contestants(found.ours, {"timm": peers.eager(net)})
    with pytest.raises(WeightsError, match="timm computes other logits"):
        agree(other, small)


def test_a_row_has_every_ratio_and_the_limit(small, found):
    bound = limit.Limit(product=1e9, convolution=2e9, bandwidth=1e9)
    row = compare(small, found, 2, 0.01, bound)
    engines = {f"ours {name}" for name in found.ours}
    (part,) = row["ms"].keys() - engines - found.others.keys()
    assert part.endswith(" by 1")
    assert part.removesuffix(" by 1") in engines
    assert row["ratio"].keys() == row["spread"].keys() == found.others.keys()
    ours = row["ms"][f"ours {row['engine']}"]
    assert ours == min(ms for name, ms in row["ms"].items() if name.startswith("ours "))
    assert all(low <= row["ratio"][name] <= high for name, (low, high) in row["spread"].items())
    assert row["over_limit"] == pytest.approx(ours / row["limit_ms"], abs=0.006)


def test_the_limit_is_that_of_every_layer(small):
    macs = cost(small.spec.skeleton(), 32).macs
    assert limit.Limit(1e9, 2e9, 1e30).seconds(small.spec, 3) == pytest.approx(3 * macs / 2e9)
    rows = [row for row in cost(small.spec.skeleton(), 32).rows if row.macs]
    moved = sum(4 * (row.weights + 3 * int(np.prod(row.shape))) for row in rows)
    assert limit.Limit(1e30, 1.0, 1e9).seconds(small.spec, 3) == pytest.approx(moved / 1e9)


def test_the_limits_are_measured():
    threads = torch.get_num_threads()
    found = limit.measure(0.01)
    assert 1e8 < found.product < 1e14
    assert 1e8 < found.bandwidth < 1e13
    assert found.macs == max(found.product, found.convolution)
    assert torch.get_num_threads() == threads


def test_what_no_library_has_is_compared_with_its_plain_tree():
    notes = []
    found = contestants(bundle_of("resnet20", Preprocess(32, 32)), ("timm",), 1, notes.append)
    assert found.others.keys() == {"plain"}
    assert notes == ["timm is left out: it has no resnet20"]


def test_turns_alternate_and_warm_up():
    calls = []
    taken = turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0, least=3)
    assert calls == ["a", "b"] * 4
    assert [len(times) for times in taken.values()] == [3, 3]


def test_the_command(small, tmp_path, capsys):
    saved = small.save(tmp_path / "m.safetensors")
    flags = ["--against", "torchvision", "--batch", "1", "--seconds", "0.01"]
    assert (
        main(["bench", str(saved), *flags, "--out", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.svg")]) == 0
    )
    out = capsys.readouterr().out
    assert "resnet18.b, 1 images a call, 1 threads" in out
    assert "this machine: gmacs product" in out
    record = json.loads((tmp_path / "b.json").read_text())
    assert record["rows"][0]["ratio"].keys() == {"torchvision"}
    assert "ms an image" in (tmp_path / "b.svg").read_text()
    assert main(["bench", str(saved), *flags, "--plot", str(tmp_path / "b.pdf")]) == 2
    assert "ends in .svg or .png" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", str(saved), "--against", "theano"])
    assert "theano: choose of torchvision" in capsys.readouterr().err
