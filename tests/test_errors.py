"""One line, an exit code, and whole across a process border."""

import errno
import pickle

import pytest

from convatlas import errors
from convatlas.errors import ConvatlasError, StoppedError, explain

CODES = {"ConfigError": 2, "DataError": 3, "WeightsError": 4, "DivergedError": 5, "ResourceError": 6,
         "DistributedError": 7}  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_every_error_has_its_exit_code_and_says_what_and_how_on(name):
    error = getattr(errors, name)("C4", "x.pt: tensor 'a' fails", "get it again")
    assert isinstance(error, ConvatlasError)
    assert error.exit_code == CODES[name]
    assert str(error) == "error[C4]: x.pt: tensor 'a' fails. Remedy: get it again"
    assert (error.id, error.what, error.remedy) == ("C4", "x.pt: tensor 'a' fails", "get it again")


def test_a_hostile_path_stays_on_the_line():
    error = errors.DataError("D2", "a\nb\x1b[31m\udcff.png: empty file", "remove it")
    assert str(error) == r"error[D2]: a\nb\x1b[31m\udcff.png: empty file. Remedy: remove it"


@pytest.mark.parametrize("signal", [2, 15])
def test_a_signal_gives_the_shells_exit_code(signal):
    error = StoppedError(signal, "stopped at step 7", "run it again")
    assert error.exit_code == 128 + signal
    assert str(error) == "error[T2]: stopped at step 7. Remedy: run it again"


@pytest.mark.parametrize(
    "error", [getattr(errors, name)("X", "what", "remedy") for name in CODES] + [StoppedError(15, "what", "remedy")],
    ids=repr,
)  # fmt: skip
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_code == error.exit_code


def test_explain_leaves_the_path_to_the_caller():
    assert explain(OSError(errno.ENOSPC, "No space left on device", "/a/b")) == "No space left on device"
    assert explain(OSError("odd")) == "OSError"
