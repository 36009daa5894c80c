"""The figures against scikit-learn and against hand computation; labels matched by name."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from convatlas.data import Images
from convatlas.errors import DataError
from convatlas.train.evaluate import BINS, Predictions, align, predict

from tiny import PRE, Tiny, images


def made_up(n=200, classes=7, seed=0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits = 2 * torch.randn(n, classes, generator=generator) + 1.5 * F.one_hot(labels, classes)
    return Predictions(tuple("abcdefg"[:classes]), tuple(map(str, range(n))), labels, logits)


def two(confidences, right) -> Predictions:
    """Two classes, class 0 predicted with these confidences."""
    p = torch.tensor(confidences, dtype=torch.float64)
    logits = torch.stack([p, 1 - p], 1).log()
    labels = torch.tensor([0 if r else 1 for r in right])
    return Predictions(("a", "b"), tuple(map(str, range(len(p)))), labels, logits)


# --- figures ---


def test_accuracy_top_k_and_loss_are_scikit_learns():
    p = made_up()
    labels, probabilities = p.labels.numpy(), p.logits.double().softmax(1).numpy()
    assert p.accuracy == pytest.approx(accuracy_score(labels, probabilities.argmax(1)), abs=1e-12)
    for k in range(1, 7):
        expected = top_k_accuracy_score(labels, probabilities, k=k, labels=range(7))
        assert p.top(k) == pytest.approx(expected, abs=1e-12)
    assert p.loss == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-5)
    assert 0.2 < p.accuracy < p.top(2) < 1


def test_more_than_all_classes_are_always_right():
    p = made_up(classes=3)
    assert p.top(3) == p.top(5) == p.metrics()["top5"] == 1


def test_calibration_bins_are_scikit_learns():
    p = two(np.random.default_rng(0).uniform(0.5, 1, 400), np.random.default_rng(1).random(400) < 0.8)
    right, confident = calibration_curve(p.labels == 0, p.probabilities[:, 0], n_bins=BINS)
    filled = [entry for entry in p.calibration() if entry[0]]
    assert [c for _, c, _ in filled] == pytest.approx(confident.tolist())
    assert [r for _, _, r in filled] == pytest.approx(right.tolist())
    assert sum(n for n, _, _ in p.calibration()) == 400


def test_calibration_error_by_hand():
    p = two([0.99, 0.99, 0.99, 0.99, 0.81, 0.83], [True, True, True, False, False, True])
    error = (4 * abs(0.99 - 3 / 4) + 2 * abs(0.82 - 1 / 2)) / 6
    assert p.calibration_error() == pytest.approx(error)
    assert len(p.calibration()) == BINS == 15
    assert p.calibration()[-1] == (4, pytest.approx(0.99), 0.75)


def test_full_confidence_belongs_to_the_last_bin():
    p = Predictions(("a", "b"), ("x",), torch.tensor([0]), torch.tensor([[1000.0, 0.0]]))
    assert p.calibration()[-1] == (1, 1.0, 1.0)
    assert p.calibration_error() == 0


def test_metrics_are_the_figures():
    p = made_up()
    assert p.metrics() == {
        "images": 200,
        "accuracy": p.accuracy,
        "top5": p.top(5),
        "loss": p.loss,
        "calibration_error": p.calibration_error(),
    }


# --- predicting ---


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_image_is_predicted_once_in_order_in_eval_mode(batch):
    torch.manual_seed(0)
    net, data, progress = Tiny(dropout=0.9).build(), images(23, 0), []
    expected = torch.cat([net.eval()(PRE(data.read(i))[None]) for i in range(23)]).detach()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    data.read.reads.clear()
    found = predict(net.train(), PRE, data, batch=batch, progress=lambda *done: progress.append(done))
    torch.testing.assert_close(found.logits, expected, rtol=1e-5, atol=1e-6)
    assert data.read.reads == list(range(23))
    assert progress[-1] == (23, 23)
    assert (found.names, found.classes) == (data.names, data.classes)
    assert torch.equal(found.labels, data.labels)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert not found.logits.requires_grad


# --- labels by name (D11) ---


def named(classes, labels) -> Images:
    return Images(tuple(classes), torch.tensor(labels), tuple(map(str, range(len(labels)))), images(9, 0).read)


def test_labels_follow_the_names_of_the_classes():
    aligned = align(named(["cat", "dog", "10", "2"], [0, 1, 2, 3, 0]), ("2", "10", "dog", "cat"))
    assert aligned.classes == ("2", "10", "dog", "cat")
    assert aligned.labels.tolist() == [3, 2, 1, 0, 3]


def test_some_of_the_classes_are_enough():
    aligned = align(named(["dog", "ant"], [1, 0, 1]), ("ant", "bee", "cat", "dog"))
    assert aligned.labels.tolist() == [0, 3, 0]
    assert len(aligned.classes) == 4


def test_aligning_changes_nothing_else():
    given = named(["b", "a"], [1, 0])
    aligned = align(given, ("a", "b"))
    assert aligned.names == given.names
    assert torch.equal(aligned.read(1), given.read(1))
    assert given.labels.tolist() == [1, 0]
    assert [aligned.classes[i] for i in aligned.labels] == [given.classes[i] for i in given.labels]


def test_an_unknown_class_is_refused_by_name():
    with pytest.raises(DataError) as caught:
        align(named(["ant", "wasp"], [0, 1]), ("ant", "bee"))
    assert caught.value.id == "D11"
    assert "extra ['wasp']" in str(caught.value)
    assert "missing ['bee']" in str(caught.value)
