"""The lab: claims of the papers as experiments that can turn out against them.  One experiment a file."""

import difflib
import importlib
import importlib.util
import pkgutil
from pathlib import Path

from ..data.decode import shown
from ..errors import ConfigError
from . import claims
from .experiment import Experiment as Experiment
from .trials import Lab as Lab


def experiments() -> dict[str, Experiment]:
    """All experiments of the lab by name, in the order of their numbers: every file in `claims`."""
    names = (module.name for module in pkgutil.iter_modules(claims.__path__, f"{claims.__name__}."))
    found = (importlib.import_module(name).EXPERIMENT for name in names)
    return {experiment.name: experiment for experiment in sorted(found, key=lambda e: e.number)}


def experiment(name: str) -> Experiment:
    """An experiment by name or number, or that of a Python file, which is run: its `EXPERIMENT`.

    Raises ConfigError L2 for an unknown name, L7 for a file that is no experiment.
    """
    if name.endswith(".py"):
        return _of_file(Path(name))
    known = experiments()
    by_number = {str(e.number): e for e in known.values()}
    found = known.get(name) or by_number.get(name.lstrip("0"))
    if found is None:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else "see `convatlas lab`"
        raise ConfigError("L2", f"no experiment is called {name!r}", remedy)
    return found


def _of_file(path: Path) -> Experiment:
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or module_spec is None or module_spec.loader is None:
        raise ConfigError("L7", f"there is no file {shown(path)}", "check the path")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    found = getattr(module, "EXPERIMENT", None)
    if not isinstance(found, Experiment):
        raise ConfigError("L7", f"{shown(path)} has no EXPERIMENT", "see docs/lab.md for how one is written")
    return found
