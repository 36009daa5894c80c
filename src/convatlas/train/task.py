"""What is trained, and on what machine."""

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from ..data import Preprocess
from ..data.splits import Splits
from ..weights import Bundle
from ..zoo import Arch
from .distributed import ALONE, World
from .loss import balanced
from .recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that decides the result: network, images, preprocessing, recipe, seed, and the weights to start from."""

    arch: Arch
    splits: Splits
    pre: Preprocess
    recipe: Recipe
    seed: int = 0
    pretrained: Bundle | None = None

    @cached_property
    def class_weights(self) -> Tensor | None:
        """(classes,), if the recipe asks for them."""
        if self.recipe.class_weights == "none":
            return None
        return balanced(self.splits.train.labels, len(self.splits.classes))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All that does not: where it runs, how many processes read images, how often the state is saved (seconds).

    After `max_bad_steps` in a row whose loss or gradient is not finite, training has diverged.
    `recompute` names the modules that are computed again instead of kept, see `convatlas.recompute`.
    """

    device: str = "cpu"
    workers: int = 0
    save_every: float = 300
    read_timeout: float = 120
    max_bad_steps: int = 3
    recompute: str = ""
    world: World = field(default=ALONE)
