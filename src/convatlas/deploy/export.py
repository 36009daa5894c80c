"""Trained networks as files for other runtimes, each checked against the bundle before it gets its name."""

import ast
import json
import logging
import os
import tempfile
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, files
from ..errors import ConfigError, ResourceError, WeightsError, library
from ..tree import cost
from ..weights import Bundle
from .card import card
from .engine import Engine, in_onnxruntime, in_openvino, open_engine
from .inference import for_inference
from .sealed import RECORD, SUM, UNSUMMED, openvino_sum, seal_onnx

IMAGES, BATCH = 32, 8  # of the check
OTHER = (32, 64)  # pixels more in height and width, to check a file for every size
CLOSE = 1e-4  # of the largest logit, or of 1 if that is smaller
OPSET = 20
SCOPES = "pkg.torch.onnx.name_scopes"  # under which torch.onnx says where in the tree a node comes from


def export_program(bundle: Bundle, to: str, out: str | Path, *, dynamic: bool = False) -> Path:
    """Write `bundle` for a runtime: `onnx`, `openvino` (.xml and .bin) or `pt2` (AOTInductor), and a model card beside.

    The file takes uint8 (N, size, size, 3), N free, or if `dynamic` (N, H, W, 3), all free; it holds class names and
    preprocessing.  Raises WeightsError X2 if it does not compute what the bundle does, ConfigError L2 for another
    suffix or a network that is bound to its size, ResourceError if a library is missing; then `out` is untouched.
    """
    out = named_for(to, out)
    WRITERS[to](bundle, out, dynamic)
    files.write_text(out.with_name(f"{out.name}.md"), card(bundle, to, out.name))
    return out


def named_for(to: str, out: str | Path) -> Path:
    """`out`.  Raises ConfigError L2 if its suffix is not that of the format."""
    if Path(out).suffix != SUFFIXES[to]:
        raise ConfigError("L2", f"--out {out} for {to}", f"give a name that ends in {SUFFIXES[to]}")
    return Path(out)


def at_size(bundle: Bundle, size: int) -> Bundle:
    """The bundle for images of another size, in pixels.  Raises ConfigError L2 if the network cannot take them."""
    try:
        cost(bundle.spec.skeleton(), size, bundle.spec.in_channels)
    except ValueError as error:
        what = f"{bundle.spec.name} cannot take {size}x{size} images: {error}"
        raise ConfigError("L2", what, "choose another --size, or leave it out") from None
    return replace(bundle, preprocess=bundle.preprocess.for_size(size))


def record_of(bundle: Bundle) -> str:
    """What an exported file says of itself, as JSON."""
    return json.dumps({
        "convatlas": __version__,
        "network": bundle.spec.name,
        "weights_sha256": bundle.digest(),
        "classes": list(bundle.classes),
        "preprocess": bundle.preprocess.to_dict(),
        "source": bundle.source,
        "licence": bundle.licence,
    })  # fmt: skip


def to_onnx(bundle: Bundle, runtime: str = "onnxruntime", *, dynamic: bool = False) -> bytes:
    """The bytes of an .onnx file without external data, in the form that `runtime` runs fastest, checked by onnx."""
    onnx = library("onnx", "export")
    library("onnxscript", "export")
    pixels = example(bundle, 2)  # a batch of 1 would be taken for a constant
    with quiet("torch.onnx"), bound_to_its_size(bundle, dynamic):
        program = torch.onnx.export(
            for_inference(bundle, runtime), (pixels,), opset_version=OPSET, input_names=["pixels"],
            output_names=["logits"], dynamic_shapes=(free(dynamic),), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    name_by_layer(model.graph.node)
    graph = model.graph
    for message in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del message.metadata_props[:]  # the exporter's notes, with paths of this machine
    model.producer_name, model.producer_version = "convatlas", __version__
    onnx.checker.check_model(model)
    return seal_onnx(model, record_of(bundle))


def free(dynamic: bool) -> dict[int, Any]:
    """The dimensions of the pixels that an exported file leaves open."""
    batch, height, width = (torch.export.Dim(name, min=1, max=4096) for name in ("batch", "height", "width"))
    return {0: batch, 1: height, 2: width} if dynamic else {0: batch}


@contextmanager
def bound_to_its_size(bundle: Bundle, dynamic: bool) -> Iterator[None]:
    """Within it, the refusal to trace or run a network at every size is a ConfigError L2."""
    try:
        with quiet("torch.fx.experimental.symbolic_shapes"):
            yield
    except Exception as error:  # whatever the libraries wrap it in
        if not dynamic:
            raise
        what = f"{bundle.spec.name} cannot be exported for every size: its layers are bound to one"
        raise ConfigError("L2", what, "give --size a number of pixels, or leave it out") from error


@contextmanager
def quiet(logger: str | None = None) -> Iterator[None]:
    """Without the warnings, and the logger's lines below errors, that a library has for its own developers."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def name_by_layer(nodes: Iterable[Any]) -> None:
    """Call each node as the layer that it comes from, with a number where a layer has several."""
    used: Counter[str] = Counter()
    for node in nodes:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        path = [name for name in ast.literal_eval(scopes)[:-1] if name.startswith("net.")]
        name = path[-1].removeprefix("net.") if path else node.op_type.lower()
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}:{used[name]}"


def example(bundle: Bundle, count: int, more: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Images of noise on colours of their own, uint8 (count, size, size, 3), always the same; `more` pixels a side."""
    random, (height, width) = np.random.RandomState(0), (bundle.preprocess.size + m for m in more)
    colours = random.randint(0, 256, (count, 1, 1, 3))
    noise = random.randint(-60, 61, (count, height, width, 3))
    return torch.from_numpy((colours + noise).clip(0, 255).astype(np.uint8))


@torch.inference_mode()
def check(engine: Engine, bundle: Bundle, dynamic: bool = False) -> float:
    """The largest difference of the engine's logits from the bundle's, on fixed images, if `dynamic` also larger ones.

    Raises WeightsError X2 if it is more than rounding.
    """
    net, images = bundle.build(), list(example(bundle, IMAGES).split(BATCH))
    if dynamic:
        images.append(example(bundle, 2, OTHER))
    wanted = torch.cat([net(bundle.preprocess.normalize(x.permute(0, 3, 1, 2))) for x in images]).numpy()
    with bound_to_its_size(bundle, dynamic):
        found = np.concatenate([engine.run(x.numpy()) for x in images])
    difference, largest = float(np.abs(found - wanted).max()), float(np.abs(wanted).max())
    if not difference <= CLOSE * max(1.0, largest):
        what = f"{engine.name} computes other logits than the bundle: by up to {difference:.2g} of {largest:.2g}"
        raise WeightsError("X2", what, "nothing was written; please report it with the network's name")
    return difference


def _write_onnx(bundle: Bundle, out: Path, dynamic: bool) -> None:
    content = to_onnx(bundle, dynamic=dynamic)
    check(in_onnxruntime(content, out.name, torch.get_num_threads()), bundle, dynamic)
    files.write_bytes(out, content)


def _write_openvino(bundle: Bundle, out: Path, dynamic: bool) -> None:
    ov = library("openvino", "openvino")
    model = ov.Core().read_model(to_onnx(bundle, "openvino", dynamic=dynamic))
    model.set_rt_info(record_of(bundle), [RECORD])
    model.set_rt_info(UNSUMMED.decode(), [SUM])
    with tempfile.TemporaryDirectory() as folder:
        xml, bin = Path(folder, "model.xml"), Path(folder, "model.bin")
        try:
            ov.save_model(model, xml, compress_to_fp16=False)
            structure, weights = xml.read_bytes(), bin.read_bytes()
        except Exception as error:  # of a full disk OpenVINO says this and that
            why = " ".join(str(error).split())[:200]
            raise ResourceError("C2", f"cannot write {folder} ({why})", "free space, or set TMPDIR") from error
    structure = structure.replace(UNSUMMED, openvino_sum(structure, weights).hexdigest().encode(), 1)
    check(in_openvino(structure, weights, out.name, torch.get_num_threads()), bundle, dynamic)
    _write_pair(out, structure, weights)


def _write_pair(out: Path, structure: bytes, weights: bytes) -> None:
    """Two files cannot change at once: what may fail comes first, and the .xml tells any other .bin by its checksum."""
    staged = out.with_name(f".{out.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        files.write_bytes(staged, structure)
        files.write_bytes(out.with_suffix(".bin"), weights)
        staged.replace(out)
    finally:
        staged.unlink(missing_ok=True)


def _write_package(bundle: Bundle, out: Path, dynamic: bool) -> None:
    from torch._inductor import aoti_compile_and_package

    with bound_to_its_size(bundle, dynamic):
        net, pixels = for_inference(bundle, "compile"), example(bundle, 2)
        program = torch.export.export(net, (pixels,), dynamic_shapes=(free(dynamic),))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / out.name
        try:
            settings = {"aot_inductor.metadata": {RECORD: record_of(bundle)}}
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            raise ResourceError("L5", f"PyTorch could not compile it ({why})", "install a C++ compiler") from error
        check(open_engine(path, "pt2"), bundle, dynamic)
        files.write_bytes(out, path.read_bytes())


SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
WRITERS: dict[str, Callable[[Bundle, Path, bool], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "pt2": _write_package,
}
