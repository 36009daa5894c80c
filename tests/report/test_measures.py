"""What is counted from the rows of the test images."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from convatlas.report.measures import calibration, class_scores, confusion, confusions, wilson
from convatlas.train.evaluate import Predictions

CLASSES = ("a", "b", "c", "d")


def rows(labels, predicted, confidence=0.5):
    return [
        {"label": CLASSES[i], "predicted": CLASSES[j], "confidence": confidence}
        for i, j in zip(labels, predicted, strict=True)
    ]


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)],
)
def test_wilson(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "n"), [(83, 100), (355, 359), (1, 7)])
def test_wilson_bounds_are_where_the_score_test_just_rejects(right, n):
    for bound in wilson(right, n):
        assert abs(right / n - bound) / (bound * (1 - bound) / n) ** 0.5 == pytest.approx(1.959964)


def test_confusion_and_class_scores_are_those_of_scikit_learn():
    labels, predicted = np.random.default_rng(0).integers(0, 4, (2, 300))
    counts = confusion(CLASSES, rows(labels, predicted))
    assert (counts == confusion_matrix(labels, predicted)).all()
    expected = zip(*precision_recall_fscore_support(labels, predicted), strict=True)
    for score, numbers in zip(class_scores(CLASSES, counts), expected, strict=True):
        assert (score.precision, score.recall, score.f1, score.support) == pytest.approx(numbers)


def test_scores_that_do_not_exist_are_none():
    counts = confusion(CLASSES, rows([0, 0, 1], [0, 2, 0]))
    a, b, c, d = class_scores(CLASSES, counts)
    assert (a.precision, a.recall, a.f1) == (0.5, 0.5, 0.5)
    assert (b.precision, b.recall, b.f1) == (None, 0.0, 0.0)
    assert (c.precision, c.recall, c.f1) == (0.0, None, 0.0)
    assert (d.precision, d.recall, d.f1) == (None, None, None)


def test_confusions_are_the_largest_first_and_no_more_than_there_are():
    counts = confusion(CLASSES, rows([0, 0, 0, 0, 1, 2, 2], [0, 1, 1, 2, 1, 3, 2]))
    found = [(c.label, c.predicted, c.count, c.share) for c in confusions(CLASSES, counts, 10)]
    assert found == [("a", "b", 2, 0.5), ("a", "c", 1, 0.25), ("c", "d", 1, 0.5)]
    assert len(confusions(CLASSES, counts, 2)) == 2
    assert confusions(CLASSES, np.diag([1, 2, 3, 4]), 10) == []


def test_calibration_is_that_of_the_predictions():
    torch.manual_seed(0)
    logits, labels = 2 * torch.randn(500, 4), torch.randint(4, (500,))
    predictions = Predictions(CLASSES, tuple(map(str, range(500))), labels, logits)
    confidence, predicted = predictions.probabilities.max(1)
    made = [row | {"confidence": sure} for row, sure in zip(rows(labels, predicted), confidence.tolist(), strict=True)]
    bins = calibration(made)
    assert sum(b.images for b in bins) == 500
    assert all(b.low <= b.confidence < b.high for b in bins)
    error = sum(b.images * abs(b.confidence - b.accuracy) for b in bins) / 500
    assert error == pytest.approx(predictions.calibration_error())


def test_full_confidence_is_in_the_last_bin():
    (last,) = calibration(rows([0], [0], confidence=1.0))
    assert (last.high, last.confidence, last.accuracy) == (1.0, 1.0, 1.0)
