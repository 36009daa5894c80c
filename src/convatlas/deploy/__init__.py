"""Using trained networks."""

from .predict import Prediction, predict_files

__all__ = ["Prediction", "predict_files"]
