"""Using trained networks."""

from .choice import Choice, auto
from .engine import Engine, of_bundle, open_engine
from .export import export_program
from .predict import Prediction, predict_files

__all__ = ["Choice", "Engine", "Prediction", "auto", "export_program", "of_bundle", "open_engine", "predict_files"]
