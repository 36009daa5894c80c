"""How a network is trained: a value, and a YAML or TOML file with the same fields."""

import difflib
import math
import re
import reprlib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from ..errors import ConfigError, explain
from .builtin import builtin

MAX_BYTES = 1 << 13  # of a recipe file; the parsers' time may grow with the square
DEEPEST = 8  # brackets within brackets


def _option(default: Any, help: str, *, choices: tuple[str, ...] = (), low: float = 0, high: float = math.inf) -> Any:
    """A field with its help text and the values that it allows: one of `choices`, or low <= value <= high."""
    return field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the result of training besides network, data and seed.  Raises ConfigError on bad values.

    Fractions of an epoch are allowed where epochs are meant.
    """

    epochs: int = _option(30, "passes over the training images", low=1)
    batch: int = _option(128, "images per update", low=1)
    accumulate: int = _option(1, "parts a batch is computed in, one after the other, to save memory", low=1)
    optimizer: str = _option(
        "sgd",
        "the update rule; in sgd_caffe the rate is inside the momentum",
        choices=("sgd", "sgd_caffe", "adamw", "rmsprop_tf"),
    )
    lr: float = _option(0.1, "peak learning rate")
    momentum: float = _option(0.9, "of the update rule; of adamw it is beta1", high=0.9999)
    nesterov: bool = _option(True, "Nesterov's form of momentum (sgd)")
    rho: float = _option(0.9, "rmsprop_tf: decay of the mean square", high=0.9999)
    eps: float = _option(1.0, "rmsprop_tf: epsilon, inside the root")
    weight_decay: float = _option(5e-4, "of the weights; coupled, but decoupled in adamw")
    decay_norm: bool = _option(False, "decay biases and normalisation parameters too")
    decay_depthwise: bool = _option(True, "decay depthwise filters too [arXiv:1704.04861, Sec. 3.2]")
    schedule: str = _option(
        "cosine", "how the rate falls", choices=("cosine", "linear", "step", "exponential", "plateau")
    )
    warmup: float = _option(1.0, "epochs at the start in which the rate rises linearly")
    warmup_lr: float = _option(0.0, "the rate during the warm-up; 0: it rises")
    milestones: tuple[float, ...] = _option((0.5, 0.75), "step: at these fractions of the epochs", high=1)
    gamma: float = _option(0.1, "step, exponential, plateau: the factor at each fall", high=1)
    every: float = _option(1.0, "exponential: epochs from fall to fall", low=0.01)
    patience: int = _option(5, "plateau: epochs without a better validation accuracy before a fall", low=1)
    label_smoothing: float = _option(0.0, "weight spread over all classes [arXiv:1512.00567, Sec. 7]", high=0.999)
    class_weights: str = _option("none", "balanced: rare classes count more", choices=("none", "balanced"))
    aux_weight: float = _option(0.3, "of each auxiliary head's loss [arXiv:1409.4842, Sec. 5]")
    ema: float = _option(0.0, "decay of the averaged weights that are evaluated; 0: none", high=0.99999)
    polyak: float = _option(0.0, "average the weights of this last fraction of the steps equally; 0: none", high=1)
    clip: float = _option(0.0, "largest norm of the gradient; 0: any")
    freeze: str = _option("", "shell patterns of the modules that stay as they are, with spaces between; empty: none")
    backbone_lr: float = _option(1.0, "factor of the rate outside a new head")
    augment: str = _option(
        "none",
        "what is done to training images",
        choices=("none", "digits", "small", "photo", "alexnet", "vgg", "resnet", "inception", "crop"),
    )
    policy: str = _option("none", "what is done to them after that", choices=("none", "trivialaugment", "randaugment"))
    erasing: float = _option(0.0, "probability that a rectangle is filled with the mean [arXiv:1708.04896]", high=1)
    mixup: float = _option(0.0, "alpha of mixup [arXiv:1710.09412]; 0: none")
    cutmix: float = _option(0.0, "alpha of CutMix [arXiv:1905.04899]; 0: none")
    precision: str = _option("auto", "auto: bf16 or fp16 on a GPU", choices=("auto", "fp32", "bf16", "fp16"))

    def __post_init__(self):
        for f in fields(self):
            problem = _problem(f, getattr(self, f.name))
            if problem:
                raise ConfigError("L2", f"{f.name} = {reprlib.repr(getattr(self, f.name))} {problem[0]}", problem[1])
        if self.ema and self.polyak:
            raise ConfigError("L4", f"ema = {self.ema} and polyak = {self.polyak} both average the weights", "set one")
        if self.accumulate > self.batch:
            what = f"a batch of {self.batch} cannot be computed in {self.accumulate} parts"
            raise ConfigError("L4", what, f"set accumulate to at most {self.batch}")

    @staticmethod
    def load(path: str | Path) -> "Recipe":
        """Read a `.yaml`, `.yml` or `.toml` file, or a recipe that comes with convatlas, by its name.

        Raises ConfigError that names file, line and key for what is unknown, doubled, of a wrong type or out of range.
        """
        file = builtin().get(str(path)) or Path(path)
        text = _read(file, path)
        values = _parse(file, text, path)
        for key, value in values.items():
            place = f"{path}:{_line(text, key)}"
            if key not in NAMES:
                near = difflib.get_close_matches(str(key).lower(), NAMES, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(NAMES)}"
                raise ConfigError("L1", f"{place}: unknown key {reprlib.repr(key)}", remedy)
            if isinstance(value, list):
                values[key] = value = tuple(value)
            problem = _problem(NAMES[key], value)
            if problem:
                raise ConfigError("L2", f"{place}: {key} = {reprlib.repr(value)} {problem[0]}", problem[1])
        return Recipe(**values)

    def replaced(self, **values: Any) -> "Recipe":
        """With some fields replaced."""
        return replace(self, **values)


NAMES = {f.name: f for f in fields(Recipe)}


def scaled(recipe: Recipe, overrides: Mapping[str, Any]) -> tuple[Recipe, str | None]:
    """The recipe with some fields replaced.  A batch that comes without a rate scales the rate linearly, warm-up's too.

    Also a phrase that says so, if it does [arXiv:1706.02677, Sec. 2.1].
    """
    changed = recipe.replaced(**overrides)
    factor = changed.batch / recipe.batch
    if "lr" in overrides or factor == 1:
        return changed, None
    rates = {name: getattr(recipe, name) * factor for name in ("lr", "warmup_lr") if name not in overrides}
    return changed.replaced(**rates), f"{recipe.lr:g} at batch {recipe.batch}, scaled linearly"


def _problem(f: Any, value: Any) -> tuple[str, str] | None:
    """What is wrong with a value of a field, and the remedy."""
    kinds = get_args(f.type)
    if not kinds:
        return _item_problem(f, f.type, value)
    if not isinstance(value, tuple):
        return "is not a list", f"give numbers as in {list(f.default)}"
    return next((problem for item in value if (problem := _item_problem(f, kinds[0], item))), None)


def _item_problem(f: Any, kind: type, value: Any) -> tuple[str, str] | None:
    if kind is bool:
        return None if isinstance(value, bool) else ("is neither true nor false", "give true or false")
    if kind is str:
        choices = f.metadata["choices"]
        if not choices:
            return None if isinstance(value, str) else ("is not a text", "give a text")
        return None if value in choices else ("is unknown", f"one of {', '.join(choices)}")
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        hint = " (in YAML, 1e-3 is a text; write 1.0e-3)" if isinstance(value, str) else ""
        return f"is not a {'number' if kind is float else 'whole number'}", f"give one as in {f.default}{hint}"
    low, high = f.metadata["low"], f.metadata["high"]
    if low <= value <= high and value <= sys.float_info.max:  # neither infinity nor an endless integer
        return None
    return "is out of range", f"at least {low}" + (f", at most {high}" if math.isfinite(high) else "")


def _read(file: Path, path: str | Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        names = ", ".join(builtin())
        remedy = f"give a .yaml or .toml file, or one of {names}"
        raise ConfigError("L7", f"cannot read the recipe {path}: {explain(error)}", remedy) from None
    if len(content) > MAX_BYTES:
        raise ConfigError("L3", f"{path} has more than {MAX_BYTES:,} bytes, too many for a recipe", "give a recipe")
    return content.decode("utf-8", "replace")


class _PlainLoader(yaml.SafeLoader):
    """YAML of plain keys and values: no anchors, aliases and tags, no key twice, no deep nesting, which takes long."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - PyYAML's name
        if self.flow_level >= DEEPEST:
            raise yaml.MarkedYAMLError(problem="brackets are nested too deep", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            problem = "YAML anchors, aliases and tags are not allowed"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
        return mapping


def _parse(file: Path, text: str, path: str | Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(text) if file.suffix == ".toml" else yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of impossible dates and huge integers
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        reason = getattr(error, "problem", None) or " ".join(str(error).split())[:200]
        raise ConfigError("L3", f"{where} is not valid: {reason}", "write `key: value`, one a line") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError("L3", f"{path} is not a list of keys and values", "write `key: value`, one a line")
    return values


def _line(text: str, key: object) -> int:
    found = re.search(rf"^\s*['\"]?{re.escape(str(key))}['\"]?\s*[:=]", text, re.M)
    return text.count("\n", 0, found.end()) + 1 if found else 1
