"""Engines: what computes logits from pixels, whichever library does the work."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data import Preprocess
from ..data.decode import shown
from ..errors import ConfigError, WeightsError, library
from ..weights import Bundle
from ..weights.bundle import model_file
from ..weights.store import read_bytes
from .inference import for_inference
from .sealed import damaged, onnx_record, openvino_record, package_record, read_record

Run = Callable[[np.ndarray], np.ndarray]
UNWANTED = ["WeightBiasQuantization"]  # ONNX Runtime's own int8, with a scale a tensor, for layers kept in float32


@dataclass(frozen=True)
class Engine:
    """A classifier: `run` takes uint8 (N, size, size, 3) and gives float32 logits (N, classes)."""

    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    run: Run

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Images, resized and cropped, uint8 (N, size, size, 3) -> logits, float32 (N, classes).

        Raises ConfigError L2 for anything else: OpenVINO would take it, and answer.
        """
        size = self.preprocess.size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
            what = f"pixels are {pixels.dtype} {pixels.shape}, not uint8 (N, {size}, {size}, 3)"
            raise ConfigError("L2", what, "resize and crop the images as the engine's preprocessing says")
        return self.run(pixels)


def open_engine(path: str | Path, kind: str | None = None, threads: int | None = None) -> Engine:
    """The engine for a bundle, a run's folder, or an exported .onnx, .xml (OpenVINO) or .pt2.

    `kind`: torch or compile for a bundle, onnxruntime or openvino for .onnx; the first is the default.  A .pt2 is
    opened only if asked for as `pt2`: its machine code is run.  `threads` also become those of this process's PyTorch.
    Raises ConfigError for a kind that cannot open the file, ResourceError for a library that is not installed, and
    WeightsError X3 or X4 for a file that is not one of ours or asks for other files.
    """
    path = Path(path)
    suffix = path.suffix if path.suffix in OPENERS else ".safetensors"
    openers = OPENERS[suffix]
    if suffix == ".pt2" and kind is None:
        what = f"{shown(path)} holds machine code, which opening it runs"
        raise WeightsError("X3", what, "if you made it or trust who did, open it with --engine pt2")
    kind = kind or next(iter(openers))
    if kind not in openers:
        what = f"{kind!r} does not run {shown(path)}"
        raise ConfigError("L2", what, f"use --engine {' or '.join(openers)}, or export the model to another format")
    if threads:
        torch.set_num_threads(threads)
    return openers[kind](path, torch.get_num_threads())


def of_bundle(bundle: Bundle, *, compiled: bool = False) -> Engine:
    """PyTorch itself, or its compiler."""
    net = for_inference(bundle, "compile" if compiled else "torch")
    call = torch.compile(net, dynamic=False) if compiled else net

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        return call(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()

    return Engine("compile" if compiled else "torch", bundle.classes, bundle.preprocess, run)


def in_onnxruntime(content: bytes, where: str, threads: int) -> Engine:
    """ONNX Runtime on the bytes of an .onnx file."""
    ort = library("onnxruntime", "export")
    classes, preprocess = read_record(onnx_record(content, where), where)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        session = ort.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], disabled_optimizers=UNWANTED
        )
    except Exception as error:
        raise damaged(where, error) from error
    name = session.get_inputs()[0].name
    return Engine("onnxruntime", classes, preprocess, lambda pixels: session.run(None, {name: pixels})[0])


def in_openvino(content: bytes, weights: bytes, where: str, threads: int) -> Engine:
    """OpenVINO on the bytes of an .xml file and its .bin, or of an .onnx file and nothing."""
    ov = library("openvino", "openvino")
    record = openvino_record(content, weights, where) if weights else onnx_record(content, where)
    classes, preprocess = read_record(record, where)
    core = ov.Core()
    try:
        model = core.read_model(content, weights) if weights else core.read_model(content)
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    except Exception as error:
        raise damaged(where, error) from error
    return Engine("openvino", classes, preprocess, lambda pixels: request.infer({0: pixels})[0].copy())


def _openvino_pair(path: Path, threads: int) -> Engine:
    return in_openvino(read_bytes(path), read_bytes(path.with_suffix(".bin")), shown(path), threads)


def _package(path: Path, threads: int) -> Engine:
    """A package of AOTInductor.  Our record is read without running anything; the rest is machine code."""
    from torch._inductor import aoti_load_package

    classes, preprocess = read_record(package_record(read_bytes(path), shown(path)), shown(path))
    try:
        program = aoti_load_package(str(path))
    except Exception as error:
        raise damaged(shown(path), error) from error
    return Engine("pt2", classes, preprocess, lambda pixels: program(torch.from_numpy(pixels)).numpy())


def _bundle(path: Path) -> Bundle:
    return Bundle.load(model_file(path))


OPENERS: dict[str, dict[str, Callable[[Path, int], Engine]]] = {
    ".safetensors": {
        "torch": lambda path, threads: of_bundle(_bundle(path)),
        "compile": lambda path, threads: of_bundle(_bundle(path), compiled=True),
    },
    ".onnx": {
        "onnxruntime": lambda path, threads: in_onnxruntime(read_bytes(path), shown(path), threads),
        "openvino": lambda path, threads: in_openvino(read_bytes(path), b"", shown(path), threads),
    },
    ".xml": {"openvino": _openvino_pair},
    ".pt2": {"pt2": _package},
}
