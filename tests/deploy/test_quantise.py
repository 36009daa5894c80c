"""Int8 and its gate, on a network that really classifies."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from convatlas.data import Images, Preprocess
from convatlas.deploy import open_engine
from convatlas.deploy.engine import in_onnxruntime
from convatlas.deploy.export import to_onnx
from convatlas.deploy.quantise import (
    PERCENTILES,
    accuracy,
    best_ranges,
    by_harm,
    export_int8,
    in_int8,
    layers_of,
    quantise,
    sample,
)
from convatlas.errors import ConfigError, WeightsError

from bundles import bundle_of


def images_like(bundle, count: int, seed: int) -> Images:
    """Noise, labelled by what the bundle says of it, so that it is always right."""
    random = np.random.default_rng(seed)
    pixels = torch.from_numpy(random.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8))
    with torch.inference_mode():
        labels = bundle.build()(bundle.preprocess.normalize(pixels)).argmax(1)
    return Images(bundle.classes, labels, tuple(map(str, range(count))), pixels.__getitem__)


@pytest.fixture(scope="module")
def small():
    """All classes are equally likely on noise, and often by little."""
    bundle = bundle_of("resnet20", Preprocess(16, 16))
    noise = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (200, 3, 16, 16), dtype=np.uint8))
    with torch.inference_mode():
        mean = bundle.build()(bundle.preprocess.normalize(noise)).mean(0)
    return replace(bundle, weights={**bundle.weights, "head.fc.bias": bundle.weights["head.fc.bias"] - mean})


@pytest.fixture(scope="module")
def images(small):
    return images_like(small, 64, 0), images_like(small, 200, 1)


def test_layers_are_in_int8_and_accuracy_stays_within_the_gate(small, images, tmp_path):
    made = export_int8(small, *images, tmp_path / "int8.onnx", max_drop=15)
    model = onnx.load(tmp_path / "int8.onnx")
    assert sum(t.data_type == onnx.TensorProto.INT8 for t in model.graph.initializer) >= 20 - len(made.kept)
    assert len(made.content) < 0.5 * len(to_onnx(small))
    engine = open_engine(tmp_path / "int8.onnx")
    assert (engine.classes, engine.preprocess) == (small.classes, small.preprocess)
    assert accuracy(engine, images[1]) == made.int8
    assert made.float32 == 1
    assert 0 < made.drop <= 15
    assert f"Int8: {made.int8:.2%}" in (tmp_path / "int8.onnx.md").read_text()


def test_what_loses_more_is_refused_by_the_names_of_the_layers(small, images, tmp_path):
    lines = []
    with pytest.raises(WeightsError, match=r"int8 loses \d+\.\d\d points of accuracy, most of it in (\S+), ") as caught:
        export_int8(small, *images, tmp_path / "int8.onnx", max_drop=-1, progress=lines.append)
    assert (caught.value.id, caught.value.exit_code) == ("X5", 4)
    named = re.findall(r"most of it in (\S+), (\S+), (\S+)\.", str(caught.value))[0]
    assert set(named) <= set(layers_of(to_onnx(small)))
    assert [int(re.search(r"with (\d+) of", line)[1]) for line in lines] == [0, 1, 2, 4, 8, 16]
    assert not list(tmp_path.iterdir())


def test_the_layer_that_int8_hurts_most_is_found_and_kept(small, images):
    """One layer gets filters that int8 cannot hold: one weight far above the others, for a channel that is always 0."""
    weights = {name: t.clone() for name, t in small.weights.items()}
    name = "stage2.0.res.body.conv1.conv.weight"
    weights[name][:, 0, 0, 0] *= 300
    for dark in ("stem.norm", *(f"stage1.{unit}.res.body.conv2.norm" for unit in range(3))):
        weights[f"{dark}.weight"][0] = weights[f"{dark}.bias"][0] = 0
    bad = replace(small, weights=weights)
    model = to_onnx(bad)
    pixels = sample(images[0], bad.preprocess, 32)
    base = in_onnxruntime(model, "float32", 1)
    ranked = by_harm(model, base, pixels, layers_of(model), PERCENTILES[0], 1)
    assert ranked[0] == name.removesuffix(".weight")
    few = in_onnxruntime(in_int8(model, pixels, exclude=ranked[:1]), "kept", 1)
    everything = in_onnxruntime(in_int8(model, pixels), "all", 1)
    wanted = base.predict(pixels)
    lost, kept = (np.square(engine.predict(pixels) - wanted).mean() for engine in (everything, few))
    assert kept < 0.1 * lost


def test_ranges_leave_out_what_is_rare_and_of_no_use(small, images):
    """In every residual branch a channel is rarely on, but then far above the others, and nobody reads it."""
    weights = {name: t.clone() for name, t in small.weights.items()}
    for name in weights:
        if name.endswith("conv1.norm.weight"):
            weights[name][0], weights[name.replace("weight", "bias")][0] = 300, -750  # from 2.5 deviations
        elif name.endswith("conv2.conv.weight"):
            weights[name][:, 0] = 0
    chosen = []
    for each in (small, replace(small, weights=weights)):
        model, pixels = to_onnx(each), sample(images[0], each.preprocess, 64)
        base = in_onnxruntime(model, "float32", 1)
        percentile, content = best_ranges(model, base, pixels, 1)
        assert content == in_int8(model, pixels, percentile)
        wanted, found = (
            [torch.from_numpy(engine.predict(pixels)).log_softmax(1) for engine in engines]
            for engines in ([base], [in_onnxruntime(in_int8(model, pixels, p), "int8", 1) for p in PERCENTILES])
        )
        lost = [torch.nn.functional.kl_div(each, *wanted, reduction="batchmean", log_target=True) for each in found]
        assert percentile == PERCENTILES[int(np.argmin(lost))]
        chosen.append(percentile)
    assert chosen[1] < chosen[0]


def test_a_gate_needs_no_layer_in_float_where_nothing_is_lost(small, images):
    assert quantise(small, *images, max_drop=100).kept == ()


def test_another_suffix_is_refused_before_any_work(small, images, tmp_path):
    with pytest.raises(ConfigError, match=r"name that ends in \.onnx"):
        export_int8(small, *images, tmp_path / "int8.xml")
