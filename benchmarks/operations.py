"""Which operations of XLA take the time of training and of spectra, from its profiler.

A minute on one core.

    python benchmarks/operations.py
"""

import collections
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import jax
from absl import app
from contest import STEPS_PER_EPOCH, Setting, print_heading, print_row, print_section
from jax_contestants import Ours, OurSpectra

METHOD = """
One `cnn5` on one device: the operations that take most of the time of {steps} steps of training, or of one spectrum as
measured above. In the names of the operations, `dot` is a product of matrices and `ynn` one or a sum;
`dynamic-update-slice` fills patches or stores results, `concatenate` transforms the rows of images, `pad` is what comes
between two convolutions, and `broadcast` fills arrays with zeros (for the first of the steps in fresh memory).
"""

SHOWN = 10
# From this level on the profiler records single operations.
TRACER_LEVEL = 3


def seconds_of_kinds(work: Callable[[], None]) -> collections.Counter:
    """Time of the operations of XLA of a name, without that of the operations inside them."""
    options = jax.profiler.ProfileOptions()
    options.host_tracer_level, options.python_tracer_level = TRACER_LEVEL, 0
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory, profiler_options=options):
            work()
        (path,) = pathlib.Path(directory).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
    threads = [
        line for plane in profile.planes for line in plane.lines if "XLAEigen" in line.name or "PjRt" in line.name
    ]
    kinds: collections.Counter = collections.Counter()
    for name, seconds in (item for thread in threads for item in own_seconds(thread).items()):
        if not name.startswith("ThunkExecutor"):  # waits for the others
            kinds[name.split(".")[0]] += seconds
    return kinds


def own_seconds(thread) -> collections.Counter:
    """Time of the events of a thread, without that of the events inside them."""
    seconds: collections.Counter = collections.Counter()
    around: list[tuple[float, str]] = []  # when the events end that the next one is in, and their names
    # An event comes before those inside it.
    for start, negative, name in sorted((e.start_ns, -e.duration_ns, e.name) for e in thread.events):
        while around and around[-1][0] <= start:
            around.pop()
        if around:
            seconds[around[-1][1]] += negative / 1e9
        seconds[name] -= negative / 1e9
        around.append((start - negative, name))
    return seconds


def main(argv: Sequence[str]) -> None:
    print_section("Operations", METHOD.format(steps=STEPS_PER_EPOCH))
    for contestant, what, size, width in (
        (Ours, "training", 32, 16),
        (OurSpectra, "spectra", 32, 8),
        (OurSpectra, "spectra", 8, 8),
    ):
        working = contestant(Setting("cnn5", [width], size))
        working.work(1)
        seconds = seconds_of_kinds(lambda working=working: working.work(1))
        print_heading([f"{what} at {size}x{size}, width {width}"], ["of the time"])
        for name, value in seconds.most_common(SHOWN):
            print_row(f"`{name}`", f"{value / seconds.total():.0%}")
        print()


if __name__ == "__main__":
    app.run(main)
