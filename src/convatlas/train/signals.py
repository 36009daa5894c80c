"""Ctrl-C and SIGTERM: the first one asks for a stop after the step, the second one stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Which signal has asked for a stop, if any."""

    signal: int | None = None


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within it the first SIGINT or SIGTERM is noted in the Stop; a second one ends the process, 128 + its number."""
    stop = Stop()

    def note(number: int, frame: object) -> None:
        if stop.signal is not None:
            os._exit(128 + number)  # the artefact writer leaves no torn file, whenever this comes
        stop.signal = number

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
