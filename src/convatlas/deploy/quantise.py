"""Int8: an ONNX file whose convolutions compute with 8-bit integers, behind a gate that measures what that costs."""

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..data import Images, Preprocess
from ..errors import WeightsError, library
from ..weights import Bundle
from .card import card
from .engine import UNWANTED, Engine, in_onnxruntime
from .export import named_for, quiet, to_onnx
from .predict import pixels_of
from .sealed import RECORD, seal_onnx

CALIBRATION = 256  # images from which the ranges of activations are taken
PERCENTILES = (99.999, 99.99, 99.9)  # of the activations that a range holds; those beyond are clipped
PROBES = 32  # images by which the layers are ranked
LAYERS = ("Conv", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")  # in float32 themselves, every map would go there and back for them


@dataclass(frozen=True)
class Quantised:
    """An .onnx file in int8, its accuracy beside that of float32 on the same images, and the layers left in float."""

    content: bytes
    float32: float
    int8: float
    kept: tuple[str, ...]

    @property
    def drop(self) -> float:
        """Loss of accuracy, in points."""
        return 100 * (self.float32 - self.int8)


def quantise(
    bundle: Bundle,
    calibration: Images,
    validation: Images,
    *,
    max_drop: float = 0.5,
    threads: int = 1,
    progress: Callable[[str], object] = lambda line: None,
) -> Quantised:
    """The bundle in int8 by ONNX Runtime's quantiser: weights per channel, ranges from `calibration` images.

    Rare great activations cost all others resolution, and clipping costs those: of PERCENTILES the one is taken whose
    answers to the calibration images are nearest those of float32 (by divergence of the probabilities, without labels).
    If that costs more than `max_drop` points of accuracy on the `validation` images, the layers whose int8 form moves
    the logits most stay in float32: one, two, four, up to half of them.  Raises WeightsError X5 if it still does.
    """
    plain = to_onnx(bundle)
    base = in_onnxruntime(plain, "float32", threads)
    wanted = accuracy(base, validation)
    few = sample(calibration, bundle.preprocess, CALIBRATION)
    layers = layers_of(plain)
    percentile, content = best_ranges(plain, base, few, threads)
    ranked: list[str] = []
    keep = 0
    while True:
        found = accuracy(in_onnxruntime(content, "int8", threads), validation)
        result = Quantised(content, wanted, found, tuple(ranked[:keep]))
        progress(f"int8 with {keep} of {len(layers)} layers in float32: {found:.2%}, float32 {wanted:.2%}")
        if result.drop <= max_drop:
            return result
        if 2 * keep >= len(layers):
            worst = ", ".join(ranked[:3])
            what = f"int8 loses {result.drop:.2f} points of accuracy, most of it in {worst}"
            raise WeightsError("X5", what, f"export it in float32, or raise --max-drop (={max_drop:g})")
        ranked = ranked or by_harm(plain, base, few, layers, percentile, threads)
        keep = max(1, 2 * keep)
        content = in_int8(plain, few, percentile, exclude=ranked[:keep])


def export_int8(bundle: Bundle, calibration: Images, validation: Images, out: str | Path, **how: Any) -> Quantised:
    """Write what `quantise` makes, and a model card beside it.  Raises what that raises, and ConfigError L2."""
    out = named_for("onnx", out)
    made = quantise(bundle, calibration, validation, **how)
    files.write_bytes(out, made.content)
    text = card(bundle, "onnx", out.name)
    text += f"\nInt8: {made.int8:.2%} of the validation images are right, {made.float32:.2%} in float32.\n"
    if made.kept:
        text += f"In float32: {', '.join(made.kept)}. So that ONNX Runtime leaves them so, open the file with\n"
        text += f"`InferenceSession(..., disabled_optimizers={UNWANTED})`.\n"
    files.write_text(out.with_name(f"{out.name}.md"), text)
    return made


def best_ranges(model: bytes, base: Engine, pixels: np.ndarray, threads: int) -> tuple[float, bytes]:
    """The percentile whose int8 file diverges least from float32 on the images, and that file."""
    made = {percentile: in_int8(model, pixels, percentile) for percentile in PERCENTILES}
    wanted = log_probabilities(base, pixels)

    def divergence(percentile: float) -> float:
        found = log_probabilities(in_onnxruntime(made[percentile], "int8", threads), pixels)
        return float((np.exp(wanted) * (wanted - found)).sum(1).mean())

    best = min(made, key=divergence)
    return best, made[best]


def log_probabilities(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    """Of the classes, for each image: float64 (N, classes)."""
    logits = np.concatenate([engine.predict(batch) for batch in batches(pixels)]).astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def batches(pixels: np.ndarray) -> list[np.ndarray]:
    """The images in parts of about 8."""
    return np.array_split(pixels, max(1, len(pixels) // 8))


def in_int8(
    model: bytes,
    pixels: np.ndarray,
    percentile: float = PERCENTILES[0],
    *,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
) -> bytes:
    """The .onnx file with its layers in int8, but those in `exclude`, or with those in `only` alone.

    A range holds that percentile of a map's values for the images.
    """
    onnx = library("onnx", "export")
    library("onnxruntime", "export")
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches: Iterator[np.ndarray] = iter(batches(pixels))

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {"pixels": batch}

    source = onnx.ModelProto.FromString(model)
    with tempfile.TemporaryDirectory() as folder, quiet(), redirect_stdout(io.StringIO()):
        out = Path(folder) / "int8.onnx"
        quantize_static(
            source, out, Reader(), QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=[*LAYERS, *ACTIVATIONS, "Add"],
            nodes_to_exclude=with_activations(source, exclude), nodes_to_quantize=list(only),
            calibrate_method=CalibrationMethod.Percentile, extra_options={"CalibPercentile": percentile},
        )  # fmt: skip
        made = onnx.load(out)
    return seal_onnx(made, next(entry.value for entry in source.metadata_props if entry.key == RECORD))


def with_activations(model: Any, layers: Sequence[str]) -> list[str]:
    """The layers, and the names of the activations behind them."""
    outputs = {output for node in model.graph.node if node.name in layers for output in node.output}
    behind = (node for node in model.graph.node if node.op_type in ACTIVATIONS and outputs & set(node.input))
    return [*layers, *(node.name for node in behind)]


def layers_of(model: bytes) -> list[str]:
    """The names of the layers that may be quantised, in their order."""
    graph = library("onnx", "export").ModelProto.FromString(model).graph
    return [node.name for node in graph.node if node.op_type in LAYERS]


def by_harm(
    model: bytes, base: Engine, pixels: np.ndarray, layers: Sequence[str], percentile: float, threads: int
) -> list[str]:
    """The layers, from the one whose int8 form alone moves the logits most."""
    few = pixels[:PROBES]
    logits = base.predict(few)

    def harm(layer: str) -> float:
        engine = in_onnxruntime(in_int8(model, few, percentile, only=[layer]), layer, threads)
        return float(np.square(engine.predict(few) - logits).mean())

    return sorted(layers, key=harm, reverse=True)


def sample(images: Images, preprocess: Preprocess, most: int) -> np.ndarray:
    """At most so many images, evenly spread over all, as an engine takes them: uint8 (N, size, size, 3)."""
    places = np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)
    return np.stack([pixels_of(images.read(int(i)), preprocess) for i in places])


def accuracy(engine: Engine, images: Images, batch: int = 64) -> float:
    """Share of the images whose most probable class is the right one."""
    right = 0
    for start in range(0, len(images), batch):
        group = range(start, min(start + batch, len(images)))
        pixels = np.stack([pixels_of(images.read(i), engine.preprocess) for i in group])
        right += int((engine.predict(pixels).argmax(1) == images.labels[group.start : group.stop].numpy()).sum())
    return right / len(images)
