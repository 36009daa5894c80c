"""Times that a noisy machine does not spoil: the contestants take turns, so that all see the same neighbours."""

import time
from collections.abc import Callable, Mapping


def turns(
    runs: Mapping[str, Callable[[], object]],
    seconds: float,
    *,
    least: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of a call of each, by `clock`, turn by turn for about so many seconds in all and `least` turns.

    With one thread `time.process_time` is the better clock: it counts what the processor worked, not what it waited.
    """
    for run in runs.values():  # the first call allocates
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    end, turn = time.perf_counter() + seconds, 0
    while turn < least or time.perf_counter() < end:
        for name, run in runs.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
        turn += 1
    return taken
