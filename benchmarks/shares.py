"""Where ONNX Runtime's time goes, by its own profile."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

CALLS, WARM = 20, 5
KINDS = {  # everything else that it names moves or converts the maps, or is small
    "MaxPool": "pooling",
    "AveragePool": "pooling",
    "Concat": "concatenation",
    "Gather": "shuffle",
    "ReorderInput": "layout",
    "ReorderOutput": "layout",
    "Transpose": "layout",
}


def shares(content: bytes, pixels: np.ndarray) -> dict[str, float]:
    """The share of each kind of operation in the time of all, with one thread, from the greatest; 0.01 at least."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(content, options)
        name = session.get_inputs()[0].name
        for _ in range(CALLS):
            session.run(None, {name: pixels})
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("kernel_time")]
    spent: Counter[str] = Counter()
    for event in kernels[len(kernels) * WARM // CALLS :]:
        spent[kind(event["args"])] += event["dur"]
    total = sum(spent.values())
    return {name: round(time / total, 3) for name, time in spent.most_common() if time >= 0.01 * total}


def kind(about: dict) -> str:
    """`convolution 3x3`, `depthwise 3x3`, `pooling`, ..."""
    if "Conv" not in about["op_name"]:
        return KINDS.get(about["op_name"], "other")
    shapes = [next(iter(shape.values())) for shape in about["input_type_shape"]]
    out, of_a_group, height, width = next(shape for shape in shapes[1:] if len(shape) == 4)
    return f"{'depthwise' if of_a_group == 1 and out > 1 else 'convolution'} {height}x{width}"
