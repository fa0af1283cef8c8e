"""Work in threads, while the main one answers signals, which it could not while it compiles a program."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from spectral_dd import devices


def on_free_devices(
    train_one: Callable[[int, Any], None], packs: Sequence[int], groups: Sequence[Any], x64: bool
) -> None:
    """Calls `train_one(pack, devices)` for each pack in the order given, as soon as a group of devices is free.

    Packs that are under way when one fails go on to their end; those that have not begun do not begin.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for pack in packs:
        waiting.put(pack)
    failed = threading.Event()

    def train_here(group: Any) -> None:
        with devices.numerics(x64), contextlib.suppress(queue.Empty):  # of this thread
            while not failed.is_set():
                pack = waiting.get_nowait()
                try:
                    train_one(pack, group)
                except BaseException:
                    failed.set()
                    raise

    beside_signals([functools.partial(train_here, group) for group in groups])


def beside_signals(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """What functions return that run side by side in threads, while this one answers signals.

    Raises:
      BaseException: the first of theirs, when all have ended.
    """
    results: list[Any] = [None] * len(functions)
    failures: list[BaseException] = []

    def run(i: int) -> None:
        try:
            results[i] = functions[i]()
        except BaseException as failure:
            failures.append(failure)

    # Daemons, so that a second Ctrl-C ends the process without them.
    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=0.2)
    if failures:
        raise failures[0]
    return results
