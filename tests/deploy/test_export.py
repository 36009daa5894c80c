"""Exported files: the bundle's logits, nothing lost, and nothing but a whole and checked file under its name."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from convatlas.data import Preprocess, decode
from convatlas.deploy import export, export_program, of_bundle, open_engine, predict_files
from convatlas.deploy.export import SUFFIXES, at_size, check, example, to_onnx
from convatlas.deploy.predict import pixels_of
from convatlas.errors import ConfigError, ResourceError, WeightsError

from bundles import bundle_of

KINDS = [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")]


@pytest.mark.parametrize(("to", "kind"), KINDS)
def test_a_file_computes_the_bundles_logits_whatever_the_batch(exported, bundle, to, kind):
    engine = open_engine(exported[to], kind, threads=1)
    assert (engine.name, engine.classes, engine.preprocess) == (kind, bundle.classes, bundle.preprocess)
    pixels = example(bundle, 64)
    with torch.inference_mode():
        wanted = bundle.build()(bundle.preprocess.normalize(pixels.permute(0, 3, 1, 2))).numpy()
    for batch in (1, 7, 64):
        found = np.concatenate([engine.predict(part.numpy()) for part in pixels.split(batch)])
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_grey_network_takes_the_luma_of_its_pixels(tmp_path, to):
    grey = bundle_of("resnet20", Preprocess(16, 16).for_channels(1), in_channels=1)
    path = export_program(grey, to, tmp_path / f"grey{SUFFIXES[to]}")
    assert check(open_engine(path), grey) <= 1e-4


@pytest.mark.parametrize(("to", "kind"), KINDS)
def test_a_dynamic_file_takes_every_size(bundle, tmp_path, to, kind):
    out = tmp_path / f"model{SUFFIXES[to]}"
    engine = open_engine(export_program(bundle, to, out, dynamic=True), kind)
    for more in ((0, 0), (1, 0), (13, 40)):
        pixels = example(bundle, 3, more)
        with torch.inference_mode():
            wanted = bundle.build()(bundle.preprocess.normalize(pixels.permute(0, 3, 1, 2))).numpy()
        assert np.abs(engine.run(pixels.numpy()) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_network_that_is_bound_to_its_size_is_refused_as_dynamic(tmp_path):
    alexnet = bundle_of("alexnet.cifar", Preprocess(32, 32))
    with pytest.raises(ConfigError, match=r"alexnet.cifar cannot be exported for every size") as caught:
        export_program(alexnet, "onnx", tmp_path / "a.onnx", dynamic=True)
    assert caught.value.id == "L2"
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_size(bundle, tmp_path):
    larger = at_size(bundle, 48)
    engine = open_engine(export_program(larger, "onnx", tmp_path / "a.onnx"))
    assert engine.preprocess == bundle.preprocess.for_size(48)
    with torch.inference_mode():
        wanted = bundle.build()(bundle.preprocess.normalize(example(larger, 2).permute(0, 3, 1, 2))).numpy()
    assert np.abs(engine.predict(example(larger, 2).numpy()) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    with pytest.raises(ConfigError, match=r"vgg11_bn.cifar cannot take 16x16 images"):
        at_size(bundle_of("vgg11_bn.cifar", Preprocess(32, 32)), 16)


def test_auxiliary_heads_and_batch_norms_are_gone(tmp_path):
    path = export_program(bundle_of("googlenet.cifar", Preprocess(32, 32)), "onnx", tmp_path / "googlenet.onnx")
    graph = onnx.load(path).graph
    assert not any("aux" in tensor.name for tensor in graph.initializer)
    assert {node.op_type for node in graph.node}.isdisjoint({"BatchNormalization", "Dropout", "Div"})
    assert [(i.name, [d.dim_value for d in i.type.tensor_type.shape.dim][1:]) for i in graph.input] == [
        ("pixels", [32, 32, 3])
    ]


def test_a_depthwise_stem_takes_the_division_too():
    separable = bundle_of("googlenet.separable", Preprocess(32, 32))
    assert check(of_bundle(separable), separable) <= 1e-4


def test_the_graph_keeps_no_strides_and_no_paths_and_names_its_layers():
    shufflenet = bundle_of("shufflenet.g3.cifar", Preprocess(32, 32))
    for runtime, shuffle, last in (("onnxruntime", {"Gather"}, "head.fc.conv"), ("openvino", set(), "head.fc")):
        content = to_onnx(shufflenet, runtime)
        graph = onnx.load_from_string(content).graph
        detours = {"Gather", "Range", "Shape", "Split", "Unsqueeze"} - shuffle
        assert {node.op_type for node in graph.node}.isdisjoint(detours)
        assert b".py" not in content
        names = [node.name for node in graph.node]
        assert len(set(names)) == len(names)
        assert {last, "stage2.0.mix.body.layers.conv1.conv"} <= set(names)


@pytest.mark.parametrize(("to", "kind"), KINDS)
def test_the_answers_for_a_file_are_the_bundles(exported, bundle, tmp_path, to, kind):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (wanted,) = predict_files(of_bundle(bundle), [tmp_path])
    (found,) = predict_files(open_engine(exported[to], kind), [tmp_path])
    assert [name for name, _ in found.top] == [name for name, _ in wanted.top]
    assert np.allclose([p for _, p in found.top], [p for _, p in wanted.top], atol=1e-5)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_cards_code_runs_without_convatlas(exported, bundle, to, tmp_path, monkeypatch, capsys):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (53, 31, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    path = exported[to]
    card = path.with_name(f"{path.name}.md").read_text("utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace(f'"{path.name}"', repr(str(path)))
    monkeypatch.chdir(tmp_path)
    exec(code, space := {})
    wanted = pixels_of(decode(tmp_path / "photo.jpg"), bundle.preprocess)
    assert np.abs(space["pixels"][0] - wanted.astype(int)).max() <= 1
    (row,) = predict_files(of_bundle(bundle), [tmp_path / "photo.jpg"])
    assert capsys.readouterr().out == f"[{bundle.classes.index(row.top[0][0])}]\n"
    assert "convatlas." not in code
    assert all(text in card for text in ("resnet20", "Käfer", "Licence", bundle.digest()))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_x2_a_program_that_computes_something_else_is_not_written(bundle, to, tmp_path, monkeypatch):
    out = tmp_path / f"model{SUFFIXES[to]}"
    out.write_bytes(b"the old export")
    weights = dict(bundle.weights)
    name = next(name for name, t in weights.items() if t.ndim == 4)
    weights[name] = weights[name].clone()
    weights[name][0, 0, 0, 0] += 0.5
    honest = export.for_inference
    monkeypatch.setattr(export, "for_inference", lambda b, runtime: honest(replace(b, weights=weights), runtime))
    with pytest.raises(WeightsError, match="computes other logits than the bundle") as caught:
        export_program(bundle, to, out)
    assert (caught.value.id, caught.value.exit_code) == ("X2", 4)
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() == b"the old export"


@pytest.mark.parametrize("point", ["write", "fsync", "rename"])
def test_x1_a_full_disk_leaves_the_old_export(bundle, point, tmp_path, monkeypatch):
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the old export")
    monkeypatch.setenv("CONVATLAS_FAULT", f"ENOSPC@{point}:1+")
    with pytest.raises(ResourceError, match="No space left on device"):
        export_program(bundle, "onnx", out)
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() == b"the old export"


def test_what_cannot_be_is_refused_in_one_line(bundle, exported, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"name that ends in \.onnx"):
        export_program(bundle, "onnx", tmp_path / "model.xml")
    with pytest.raises(ConfigError, match=r"'torch' does not run .*use --engine onnxruntime or openvino"):
        open_engine(exported["onnx"], "torch")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ResourceError, match=r"onnxruntime is not installed. Remedy: pip install 'convatlas\[export\]'"):
        open_engine(exported["onnx"])


@pytest.mark.slow
def test_a_compiled_package_computes_the_bundles_logits(bundle, tmp_path):
    path = export_program(bundle, "pt2", tmp_path / "model.pt2")
    assert check(open_engine(path, "pt2"), bundle) <= 1e-4
    with pytest.raises(WeightsError, match="holds machine code") as caught:
        open_engine(path)
    assert caught.value.id == "X3"
    assert check(of_bundle(bundle, compiled=True), bundle) <= 1e-4
