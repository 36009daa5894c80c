"""Files of others, hostile and damaged ones: refused before a runtime sees them."""

import os
import subprocess
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convatlas.deploy import open_engine
from convatlas.deploy.sealed import RECORD, SUM, onnx_sum
from convatlas.errors import ConfigError, WeightsError


@pytest.fixture(scope="module")
def content(exported) -> bytes:
    return exported["onnx"].read_bytes()


@pytest.fixture(scope="module")
def pair(exported) -> tuple[bytes, bytes]:
    return exported["openvino"].read_bytes(), exported["openvino"].with_suffix(".bin").read_bytes()


def outside(location: str, said: bool = True) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    if said:
        tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initializer(model, tensor):
    model.graph.initializer.append(tensor)


def in_attribute(model, tensor):
    model.graph.node.append(helper.make_node("Constant", [], ["w"], value=tensor))


def in_branch(model, tensor):
    branch = helper.make_graph([helper.make_node("Constant", [], ["w"], value=tensor)], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def in_function(model, tensor):
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    model.functions.append(helper.make_function("d", "f", [], ["w"], [constant], []))


def in_sparse(model, tensor):
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", [in_initializer, in_attribute, in_branch, in_function, in_sparse])
@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_x3_tensors_in_other_files_are_refused(content, kind, place, location, tmp_path):
    for said in (True, False):
        model = onnx.ModelProto.FromString(content)
        place(model, outside(location, said))
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(WeightsError, match="keeps tensors in other files") as caught:
            open_engine(path, kind)
        assert (caught.value.id, caught.value.exit_code) == ("X3", 4)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("record", [None, "", "[]", '{"classes": ["a"]}', '{"classes": ["a"], "preprocess": {}}'])
def test_x4_without_classes_or_preprocessing_a_file_is_refused(content, kind, record, tmp_path):
    model = onnx.ModelProto.FromString(content)
    for entry in list(model.metadata_props):
        if entry.key == RECORD:
            if record is None:
                model.metadata_props.remove(entry)
            else:
                entry.value = record
    (written,) = [entry for entry in model.metadata_props if entry.key == SUM]
    written.value = onnx_sum(model.SerializeToString()).hexdigest()
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="says nothing of its classes and preprocessing") as caught:
        open_engine(path, kind)
    assert caught.value.id == "X4"


def test_a_flipped_bit_is_seen_wherever_it_is(content, tmp_path):
    """In the weights, the preprocessing or the classes it would change answers silently."""
    random, path, record = np.random.default_rng(0), tmp_path / "model.onnx", content.index(b'"classes"')
    places = [*random.integers(0, len(content), 60), *random.integers(record, record + 300, 40)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"model\.onnx") as caught:
            open_engine(path)
        assert caught.value.id in ("C8", "X4")


@pytest.mark.parametrize("which", [0, 1], ids=["xml", "bin"])
def test_a_flipped_bit_of_either_of_a_pair_is_seen(pair, which, tmp_path):
    random, names = np.random.default_rng(0), ("model.xml", "model.bin")
    (tmp_path / names[1 - which]).write_bytes(pair[1 - which])
    for place in random.integers(0, len(pair[which]), 30):
        damaged = bytearray(pair[which])
        damaged[place] ^= 1 << int(random.integers(8))
        (tmp_path / names[which]).write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"has changed since it was exported|model\.xml cannot be read"):
            open_engine(tmp_path / "model.xml")


def test_x4_a_pair_without_classes_is_refused(pair, tmp_path):
    (tmp_path / "model.xml").write_bytes(pair[0].replace(b"<convatlas ", b"<other "))
    (tmp_path / "model.bin").write_bytes(pair[1])
    with pytest.raises(WeightsError, match="says nothing of its classes and preprocessing") as caught:
        open_engine(tmp_path / "model.xml")
    assert (caught.value.id, caught.value.exit_code) == ("X4", 4)


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        "<!DOCTYPE net [<!ENTITY a0 'aaaaaaaaaa'>"
        + "".join(f"<!ENTITY a{i + 1} '{f'&a{i};' * 10}'>" for i in range(9))
        + "<!ENTITY x '&a9;'>]>",
    ],
    ids=["another file", "a billion laughs"],
)
def test_x3_entities_are_refused(pair, declared, tmp_path):
    body = pair[0].split(b"?>", 1)[1].replace(b'value="{', b'value="&x;{', 1)
    (tmp_path / "model.xml").write_bytes(declared.encode() + body)
    (tmp_path / "model.bin").write_bytes(pair[1])
    with pytest.raises(WeightsError, match=r"model\.xml") as caught:
        open_engine(tmp_path / "model.xml")
    assert caught.value.exit_code == 4
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt2", "model.safetensors"])
@pytest.mark.parametrize("bad", [b"", b"hello", b"\x00" * 1000, None])
def test_what_is_no_model_is_named(name, bad, tmp_path):
    if bad is not None:
        (tmp_path / name).write_bytes(bad)
        (tmp_path / "model.bin").write_bytes(bad)
    with pytest.raises(WeightsError, match=r"model\.(onnx|xml|bin|pt2|safetensors)") as caught:
        open_engine(tmp_path / name, "pt2" if name.endswith("pt2") else None)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt2", "model.safetensors"])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match="is not a regular file"):
        open_engine(tmp_path / name, "pt2" if name.endswith("pt2") else None)


CPU = '{"AOTI_DEVICE_KEY": "cpu"}'


def test_the_code_in_a_package_is_not_run_before_it_is_known_to_be_ours(tmp_path):
    """AOTInductor loads the library in the archive to read its metadata."""
    source, library, path = (tmp_path / name for name in ("code.c", "code.so", "model.pt2"))
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) void f() {{ fopen("{tmp_path}/ran", "w"); }}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    members = {"archive_format": "pt2", "archive_version": "0", ".data/serialization_id": "0", "byteorder": "little"}
    members |= {f"data/aotinductor/model/x.wrapper{end}": text for end, text in ((".cpp", ""), ("_metadata.json", CPU))}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"archive/{name}", text)
        archive.write(library, "archive/data/aotinductor/model/x.wrapper.so")
    for kind, id in ((None, "X3"), ("pt2", "X4")):
        with pytest.raises(WeightsError) as caught:
            open_engine(path, kind)
        assert caught.value.id == id
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_pixels_of_another_size_or_type_are_refused(content, kind, tmp_path):
    """OpenVINO would take them, and answer."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    engine = open_engine(path, kind)
    for shape, dtype in (((2, 8, 16, 3), np.uint8), ((2, 16, 16, 1), np.uint8), ((2, 16, 16, 3), np.float32)):
        with pytest.raises(ConfigError, match=r"not uint8 \(N, 16, 16, 3\)"):
            engine.predict(np.zeros(shape, dtype))
    assert engine.predict(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, 4)
