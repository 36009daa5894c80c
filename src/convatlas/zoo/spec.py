"""A network is a frozen value, its spec, that builds a tree of modules; here are the base class and the registry."""

import difflib
import fnmatch
import warnings
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError
from ..tree import SE, Net, cost, insert_se


@dataclass(frozen=True, kw_only=True)
class Arch:
    """What every network has.  A family adds the fields in which its registered networks differ, and `assemble`.

    `SE_AT` names the modules behind which the family has Squeeze-and-Excitation, where `se` says no other place.
    """

    SE_AT: ClassVar[str] = ""

    name: str
    paper: str  # "arXiv:1512.03385"
    use: str  # what it is for, one line
    classes: int = 1000
    size: int = 224  # side of the square image it was designed for, in pixels
    in_channels: int = 3
    se: SE | None = None

    def build(self) -> Net:
        """The network with freshly initialised weights, in training mode."""
        net = self.assemble()
        return insert_se(net, self.se.at or self.SE_AT, self.se) if self.se else net

    def assemble(self) -> Net:
        """The network of the family's paper, before Squeeze-and-Excitation is inserted."""
        raise NotImplementedError

    def skeleton(self) -> Net:
        """The network without memory for its weights, on the meta device: for its names, shapes and costs."""
        with torch.device("meta"), NoInitialisation():
            return self.build()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `Arch.from_dict` gives an equal spec back."""
        return {"family": type(self).__name__, **asdict(self)}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> "Arch":
        """The inverse of `to_dict`.  Raises ConfigError for an unknown family or field."""
        family = FAMILIES.get(record.get("family", ""))
        values = {key: _frozen(value) for key, value in record.items() if key != "family"}
        if family is None or {f.name for f in fields(family)} != set(values):
            raise ConfigError(
                "L2", f"not the spec of a known network: {record}", "load it with the convatlas version that wrote it"
            )
        if isinstance(values["se"], dict):
            values["se"] = SE(**values["se"])
        return family(**values)


class NoInitialisation(TorchFunctionMode):
    """Random fills do nothing.  The meta device has nothing to fill, but torch takes seconds to find that out."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


T = TypeVar("T", bound=Arch)
FAMILIES: dict[str, type[Arch]] = {}
REGISTRY: dict[str, Arch] = {}


def family(cls: type[T]) -> type[T]:
    """Class decorator: specs of this class can be read back from JSON."""
    FAMILIES[cls.__name__] = cls
    return cls


def register(*archs: Arch) -> None:
    """Add networks to the registry.  Raises ValueError if a name is taken."""
    for arch in archs:
        if arch.name in REGISTRY:
            raise ValueError(f"a network called {arch.name!r} is registered already")
        REGISTRY[arch.name] = arch


def spec(name: str, **overrides: Any) -> Arch:
    """The spec of a registered network, with some fields replaced.

    Raises ConfigError for an unknown name (with the nearest ones) or field.
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else "see `convatlas list`"
        raise ConfigError("L2", f"no network is called {name!r}", remedy)
    arch = REGISTRY[name]
    known = [f.name for f in fields(arch)]
    for key in overrides:
        if key not in known:
            raise ConfigError("L2", f"{name} has no field {key!r}", f"its fields are {', '.join(known)}")
    return replace(arch, **overrides)


def create(name: str, **overrides: Any) -> Net:
    """Build a registered network: `create("resnet50", classes=10)`.

    Warns if `size` is so small that the map before the head is a single pixel.  Raises ConfigError as `spec` does.
    """
    arch = spec(name, **overrides)
    net = arch.build()
    if arch.size != REGISTRY[name].size:
        warn_if_too_small(arch, net)
    return net


def warn_if_too_small(arch: Arch, net: Net) -> None:
    """Warn that a network throws a small image's geometry away, and name the networks made for that size."""
    last = cost(net, arch.size, arch.in_channels).last_map
    if (last.h, last.w) == (1, 1):
        better = [a.name for a in REGISTRY.values() if a.size <= 2 * arch.size and type(a) is type(arch)]
        better = better or [a.name for a in REGISTRY.values() if a.size <= 2 * arch.size]
        warnings.warn(
            f"{arch.name} shrinks a {arch.size}x{arch.size} image to a 1x1 map before its head; "
            f"networks made for small images: {', '.join(better[:4])}",
            stacklevel=3,
        )


def list_networks(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, in the order of their papers."""
    return [name for name in REGISTRY if fnmatch.fnmatchcase(name, pattern)]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
