"""The engine chosen by measurement: the fastest, kept, and measured again when anything that matters has changed."""

import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from convatlas.deploy import choice
from convatlas.deploy.choice import in_calls, measure
from convatlas.deploy.engine import Engine
from convatlas.deploy.export import check
from convatlas.errors import ResourceError, WeightsError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "SECONDS", 0.05)
    return tmp_path / "cache/engines"


@pytest.fixture
def saved(bundle, tmp_path):
    return bundle.save(tmp_path / "model.safetensors")


def sleeping(bundle, seconds: float) -> Engine:
    def run(pixels):
        time.sleep(seconds)
        return np.zeros((len(pixels), 4), np.float32)

    return Engine("sleeping", bundle.classes, bundle.preprocess, run)


def test_the_one_that_takes_less_time_is_measured_to_take_less(bundle):
    seconds = measure({"slow": sleeping(bundle, 0.02), "fast": sleeping(bundle, 0.002)}, 2)
    assert seconds["fast"] < seconds["slow"]
    assert seconds["fast"] >= 0.002
    assert seconds["slow"] >= 0.02


def test_a_bundle_runs_on_the_fastest_of_what_is_installed(saved, bundle, cache):
    chosen = choice.auto(saved, batch=4, threads=1)
    whole = {name for name in chosen.seconds if " by " not in name}
    assert whole == {"torch", "onnxruntime", "openvino"}
    fastest = min(whole, key=chosen.seconds.get)
    assert chosen.seconds.keys() - whole == {f"{fastest} by 1", f"{fastest} by 2"}
    best = min(chosen.seconds, key=chosen.seconds.get)
    assert chosen.engine.name == best.split(" by ")[0]
    assert check(chosen.engine, bundle) <= 1e-4
    assert chosen.why.startswith(f"engine {best}: {best} ")
    assert "batches of 4 with 1 threads (measured now)" in chosen.why
    assert len(list(cache.iterdir())) == 1


def test_a_choice_is_kept_until_what_matters_changes(exported, cache, monkeypatch):
    def onnx():
        return choice.auto(exported["onnx"], batch=4, threads=1)

    first = choice.auto(exported["onnx"], batch=4, threads=1)
    (place,) = cache.iterdir()
    assert first.seconds.keys() > {"onnxruntime", "openvino"}
    for name, other in (("onnxruntime", "openvino"), ("openvino", "onnxruntime")):
        place.write_text(json.dumps({name: 0.5, other: 2.0}))  # so that it is seen to come from there
        kept = choice.auto(exported["onnx"], batch=4, threads=1)
        assert kept.engine.name == name
        assert kept.why == f"engine {name}: {name} 8.0, {other} 2.0 images/s in batches of 4 with 1 threads (measured before)"  # fmt: skip  # noqa: E501
    places = {place}
    for change in (
        lambda: choice.auto(exported["onnx"], batch=5, threads=1),
        lambda: choice.auto(exported["onnx"], batch=4, threads=2),
        lambda: choice.auto(exported["openvino"], batch=4, threads=1),
        lambda: (
            monkeypatch.setattr(choice, "_version", "9.9".__add__) or choice.auto(exported["onnx"], batch=4, threads=1)
        ),
        lambda: (
            monkeypatch.setattr(choice, "_processor", lambda: "a") or choice.auto(exported["onnx"], batch=4, threads=1)
        ),
    ):
        assert "measured now" in change().why
        assert len(set(cache.iterdir()) - places) == 1
        places = set(cache.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"7",
        b"\xff",
        b'{"onnxruntime": -1}',
        b'{"onnxruntime": null}',
        b'{"rm": 1}',
        b'{"onnxruntime by 0": 1}',
        b'{"onnxruntime by 2 by 2": 1}',
    ],
)
def test_a_damaged_cache_is_measured_again(exported, cache, content):
    choice.auto(exported["onnx"], threads=1)
    (place,) = cache.iterdir()
    place.write_bytes(content)
    chosen = choice.auto(exported["onnx"], threads=1)
    assert "measured now" in chosen.why
    assert json.loads(place.read_bytes()) == chosen.seconds


def test_without_a_cache_folder_it_is_measured_each_time(exported, cache, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert "measured now" in choice.auto(exported["onnx"], threads=1).why


def test_an_engine_called_for_parts_of_a_batch_gives_the_same_answers(exported, bundle, cache):
    choice.auto(exported["onnx"], batch=4, threads=1)
    (place,) = cache.iterdir()
    place.write_text(json.dumps({"onnxruntime": 2.0, "onnxruntime by 2": 1.0}))
    chosen = choice.auto(exported["onnx"], batch=4, threads=1)
    assert chosen.why.startswith("engine onnxruntime by 2: onnxruntime by 2 4.0, onnxruntime 2.0 images/s")
    assert check(chosen.engine, bundle) <= 1e-4
    calls = []
    counted = replace(chosen.engine, run=lambda pixels: calls.append(len(pixels)) or np.zeros((len(pixels), 4)))
    in_calls(counted, 2).predict(np.zeros((5, 16, 16, 3), np.uint8))
    assert calls == [2, 2, 1]


def test_what_is_not_installed_is_left_out(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choice.auto(exported["onnx"], threads=1).seconds.keys() == {"onnxruntime"}
    with pytest.raises(ResourceError, match=r"openvino is not installed. Remedy: pip install 'convatlas\[openvino\]'"):
        choice.auto(exported["openvino"], threads=1)


def test_a_damaged_model_is_an_error_not_a_choice(exported, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(exported["onnx"].read_bytes()[:-100])
    with pytest.raises(WeightsError):
        choice.auto(path)
