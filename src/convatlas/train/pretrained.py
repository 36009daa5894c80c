"""Starting from weights that are there already: what is kept of them, what is new, what stays fixed."""

from pathlib import Path

from ..errors import ConfigError, WeightsError
from ..tree import Net
from ..tree.transform import freeze, matching, replace_head, select_classes
from ..weights import Bundle, import_weights
from ..weights.bundle import model_file
from .task import Task


def open_pretrained(source: str, network: str | None = None) -> Bundle:
    """A bundle of ours, that of a run, or weights by others: a file or a name of a hub, see `import_weights`.

    Raises WeightsError if they are damaged or of another network than `network`, ResourceError if they can't be had.
    """
    path = Path(source).expanduser()
    if path.is_dir() or (path.suffix == ".safetensors" and _is_ours(path)):
        bundle = Bundle.load(model_file(path))
        if network not in (None, bundle.spec.name):
            what = f"{source} holds {bundle.spec.name}, not {network}"
            raise WeightsError("C8", what, f"leave --network away, or give weights of {network}")
        return bundle
    return import_weights(str(path) if path.exists() else source, network)


def start(task: Task) -> Net:
    """The network to train: freshly initialised, or the pretrained one with a head for the data's classes.

    If the pretrained head knows all of the classes by name, those outputs of it are kept; else it is replaced.
    Raises ConfigError if the recipe freezes what has not been trained, or modules that the network has not.
    """
    bundle, patterns = task.pretrained, task.recipe.freeze.split()
    if bundle is None:
        if patterns:
            what = f"the recipe freezes {task.recipe.freeze}, which nothing has trained"
            raise ConfigError("L4", what, "give --pretrained, or --freeze ''")
        return task.arch.build()
    net, classes = bundle.build().train(), task.splits.classes
    if keeps_head(bundle, classes):
        select_classes(net, [bundle.classes.index(name) for name in classes])
    else:
        replace_head(net, len(classes))
    return freeze(net, *(name for pattern in patterns for name in matching(net, pattern)))


def keeps_head(bundle: Bundle, classes: tuple[str, ...]) -> bool:
    """Whether the bundle knows all of the classes by name."""
    return set(classes) <= set(bundle.classes)


def _is_ours(path: Path) -> bool:
    """Whether a file says that convatlas wrote it; a damaged one of ours is not taken for one by others."""
    try:
        with path.open("rb") as file:
            return b'"convatlas":' in file.read(1 << 12)
    except OSError:
        return False
