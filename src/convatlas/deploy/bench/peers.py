"""Others' networks with the same weights, and the plain ways to run them."""

import io
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import ConfigError, library
from ...weights import Bundle
from ...weights.convert import to_theirs
from ...weights.peers import PEERS
from ..export import quiet

LIBRARIES = ("torchvision", "timm", "pytorchcv")
RUNTIMES = ("compile", "onnxruntime", "openvino")

Run = Callable[[np.ndarray], np.ndarray]
"""Float32 (N, 3, size, size), normalised -> logits (N, classes)."""


def network(bundle: Bundle, of: str) -> nn.Module | None:
    """The bundle's network as `of` builds it, with the bundle's weights, in eval mode; None if it has none such.

    Raises ResourceError if the library is not installed.
    """
    peer = next((p for p in PEERS if p.library == of and p.name_of(bundle.spec)), None)
    if peer is None:
        return None
    try:
        weights = to_theirs(peer, peer.fitted(bundle.spec), bundle.weights)
    except ConfigError:  # what the bundle has, theirs cannot hold
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = _build(of, peer.networks[bundle.spec.name], bundle.spec.classes)
    net.load_state_dict(weights)
    return net.eval()


def _build(of: str, name: str, classes: int) -> nn.Module:
    match of:
        case "torchvision":
            more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            return library("torchvision.models", "train").get_model(name, weights=None, num_classes=classes, **more)
        case "timm":
            return library("timm", "dev").create_model(name, num_classes=classes)
        case _:
            return library("pytorchcv.model_provider", "dev").get_model(name, num_classes=classes)


def eager(net: nn.Module) -> Run:
    """The network as its library gives it."""

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        out = net(torch.from_numpy(images))
        return (out if isinstance(out, Tensor) else out[0]).numpy()

    return run


def plain(net: nn.Module, runtime: str, images: np.ndarray, threads: int) -> Run:
    """The network compiled, or exported as PyTorch's documentation shows and opened with the runtime's defaults."""
    if runtime == "compile":
        return eager(torch.compile(net))  # type: ignore[arg-type]
    content = exported(net, images)
    if runtime == "onnxruntime":
        ort = library("onnxruntime", "export")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pixels: session.run(None, {name: pixels})[0]
    ov = library("openvino", "openvino")
    core = ov.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(io.BytesIO(content)), "CPU", settings).create_infer_request()
    return lambda pixels: request.infer({0: pixels})[0].copy()


def exported(net: nn.Module, images: np.ndarray) -> bytes:
    """As ONNX, the batch free."""
    two = torch.from_numpy(np.concatenate([images, images])[:2])
    with quiet("torch.onnx"):
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(
            net, (two,), dynamic_shapes=({0: batch},), dynamo=True, external_data=False, verbose=False
        )
    assert program is not None
    return program.model_proto.SerializeToString()
