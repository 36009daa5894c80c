"""MobileNet v1 and v2 elsewhere."""

import re

from ...zoo import Arch
from .peer import HWIO, TF, Layout, Peer, Rules, Unlike, convolution, identity, of_keras, pair

WIDTHS = ("0_35", "0_5", "0_75", "1_4")


def numbers(spec: Arch) -> dict[str, int]:
    """The units of all stages, numbered through from 0."""
    stages = [(name, m) for name, m in spec.skeleton().named_children() if name.startswith("stage")]
    units = [f"{name}.{i}" for name, stage in stages for i, _ in enumerate(stage.children())]
    return {unit: number for number, unit in enumerate(units)}


def pytorchcv_v1(spec: Arch) -> Rules:
    """Pytorchcv counts units from 1."""

    def layer(m: re.Match[str]) -> str:
        return f"features.stage{m[1]}.unit{int(m[2]) + 1}.{'dw' if m[3] == 'depth' else 'pw'}_conv"

    return (
        *pair("stem", "features.init_block"),
        *pair(r"stage(\d)\.(\d)\.(depth|point)wise", layer),
        (r"head\.fc", "output"),
    )


def keras_v1(spec: Arch) -> Rules:
    """Keras numbers the units from 1."""
    number = numbers(spec)

    def layer(m: re.Match[str]) -> str:
        kind = "dw" if m[2] == "depth" else "pw"
        return f"conv_{kind}_{number[m[1]] + 1}{'_bn' if m[3] == 'norm' else ''}"

    return (
        (r"stem\.conv", "conv1"),
        (r"stem\.norm", "conv1_bn"),
        (r"(stage\d\.\d)\.(depth|point)wise\.(conv|norm)", layer),
        (r"head\.fc", "conv_preds"),
    )


def torchvision_v2(spec: Arch) -> Rules:
    """Torchvision numbers the units from 1, and their layers from 0; the stem is unit 0, the last convolution 18."""
    number = numbers(spec)

    def layer(m: re.Match[str]) -> str:
        unit, name, kind = m.groups()
        expands = int(number[unit] > 0)
        norm = int(kind == "norm")
        inner = {"expand": f"0.{norm}", "depthwise": f"{expands}.{norm}", "project": str(1 + expands + norm)}[name]
        return f"features.{number[unit] + 1}.conv.{inner}"

    return (
        (r"stem\.conv", "features.0.0"),
        (r"stem\.norm", "features.0.1"),
        (r"(stage\d\.\d)\.body\.(\w+)\.(conv|norm)", layer),
        (r"conv\.conv", "features.18.0"),
        (r"conv\.norm", "features.18.1"),
        (r"head\.fc", "classifier.1"),
    )


def timm_v2(spec: Arch) -> Rules:
    """Timm counts stages from 0; the first unit has no expansion, so its layers have other names."""

    def layer(m: re.Match[str]) -> str:
        stage, unit, name, kind = m.groups()
        expands = int(stage != "1")
        position = {"expand": 1, "depthwise": 1 + expands, "project": 2 + expands}[name]
        conv = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl" if expands else "conv_pw"}[name]
        return f"blocks.{int(stage) - 1}.{unit}.{conv if kind == 'conv' else f'bn{position}'}"

    return (
        (r"stem\.conv", "conv_stem"),
        (r"stem\.norm", "bn1"),
        (r"stage(\d)\.(\d)\.body\.(\w+)\.(conv|norm)", layer),
        (r"conv\.conv", "conv_head"),
        (r"conv\.norm", "bn2"),
        (r"head\.fc", "classifier"),
    )


def keras_v2(spec: Arch) -> Rules:
    """Keras calls the first unit `expanded_conv` and numbers the others from 1."""
    number = numbers(spec)

    def layer(m: re.Match[str]) -> str:
        unit = f"block_{number[m[1]]}" if number[m[1]] else "expanded_conv"
        return f"{unit}_{m[2]}{'_BN' if m[3] == 'norm' else ''}"

    return (
        (r"stem\.conv", "Conv1"),
        (r"stem\.norm", "bn_Conv1"),
        (r"(stage\d\.\d)\.body\.(\w+)\.(conv|norm)", layer),
        (r"conv\.conv", "Conv_1"),
        (r"conv\.norm", "Conv_1_bn"),
        (r"head\.fc", "predictions"),
    )


def pytorchcv_v2(spec: Arch) -> Rules:
    """Pytorchcv has five stages as the map shrinks five times, and counts layers from the expansion."""
    number = numbers(spec)
    begins = (0, 1, 3, 6, 13, 17)  # the units with which its stages begin

    def layer(m: re.Match[str]) -> str:
        n = number[m[1]]
        stage = sum(begin <= n for begin in begins[:-1])
        position = ("expand", "depthwise", "project").index(m[2]) + 1
        return f"features.stage{stage}.unit{n - begins[stage - 1] + 1}.conv{position}"

    return (
        *pair("stem", "features.init_block"),
        *pair(r"(stage\d\.\d)\.body\.(\w+)", layer),
        *pair("conv", "features.final_block"),
        (r"head\.fc", "output"),
    )


CONV = convolution(1)
KERAS_CONV = Layout(lambda t: HWIO.there(CONV.there(t)), lambda t: CONV.back(HWIO.back(t)))
PEERS = (
    Peer("keras", {"mobilenet_v1.keras": "MobileNet"}, keras_v1, tensor=of_keras,
         layouts={"head.fc": KERAS_CONV}, preprocess=TF),
    Peer("pytorchcv",
         {"mobilenet_v1": "mobilenet_w1", "mobilenet_v1.x0_75": "mobilenet_w3d4", "mobilenet_v1.x0_5": "mobilenet_wd2",
          "mobilenet_v1.x0_25": "mobilenet_wd4"},
         pytorchcv_v1),
    Peer("torchvision", identity(["mobilenet_v2"]), torchvision_v2),
    Peer("timm",
         {"mobilenet_v2": "mobilenetv2_100", "mobilenet_v2.x0_35": "mobilenetv2_035",
          "mobilenet_v2.x0_5": "mobilenetv2_050", "mobilenet_v2.x0_75": "mobilenetv2_075",
          "mobilenet_v2.x1_4": "mobilenetv2_140"},
         timm_v2),
    Peer("keras", {"mobilenet_v2.keras": "MobileNetV2"}, keras_v2, tensor=of_keras, preprocess=TF),
    Peer("pytorchcv", {"mobilenet_v2": "mobilenetv2b_w1"}, pytorchcv_v2, layouts={"head.fc": CONV},
         lacks=("head.fc.bias",)),
)  # fmt: skip
UNLIKE = (
    Unlike("timm", "mobilenetv1_100", "mobilenet_v1", "It has ReLU6 where the paper has ReLU."),
    Unlike("keras", "MobileNet", "mobilenet_v1",
           "It has ReLU6 where the paper has ReLU, and TensorFlow's padding: see mobilenet_v1.keras."),
    Unlike("keras", "MobileNetV2", "mobilenet_v2", "It has TensorFlow's padding: see mobilenet_v2.keras."),
    Unlike("pytorchcv", "mobilenetb_w1", "mobilenet_v1", "It has no BatchNorm and ReLU behind depthwise convolutions."),
    Unlike("pytorchcv", "mobilenetv2_w1", "mobilenet_v2",
           "Its first unit has an expansion from 32 to 32 channels, which the paper's lacks (t = 1)."),
    *(Unlike("pytorchcv", f"mobilenetv2b_{theirs}", f"mobilenet_v2.{ours}",
             "Its scaled widths are not rounded to multiples of 8.")
      for ours, theirs in (("x0_75", "w3d4"), ("x0_5", "wd2"))),
)  # fmt: skip
