"""Trains a sweep: every combination of the axes given, as a few compiled programs.

Example: double descent on the embedded digits, ten widths, some minutes on two cores.

    python experiments/train_sweep.py --workdir=runs/demo --preset=digits

A comma list makes a flag an axis, and axes multiply: --width=1,2,4 --seed=0,1 trains six members. The same
command on the same directory goes on where it stopped. --dry_run says what would be done.
"""

import sys
from collections.abc import Sequence

from absl import flags

from spectral_dd import run, sweep

WORKDIR = flags.DEFINE_string("workdir", None, "directory that the sweep is written to", required=True)
PRESET = flags.DEFINE_string("preset", "digits", f"axes that flags override: {', '.join(sweep.PRESETS)}")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "check everything, print packs, size and work, and stop")
DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS data sets are prepared")
TASK_INDEX = flags.DEFINE_integer("task_index", 0, "train this share of the packs", lower_bound=0)
TASK_COUNT = flags.DEFINE_integer("task_count", 1, "number of shares, one process or job each", lower_bound=1)
SAVE_MINUTES = flags.DEFINE_float("save_minutes", 5.0, "longest time between checkpoints", lower_bound=0)
TUNE = flags.DEFINE_enum(
    "tune", "auto", ["auto", "off"], "measure what is fastest before a long sweep, or use the usual choices"
)
sweep.define_flags()
flags.adopt_module_key_flags(sweep)


def main(argv: Sequence[str]) -> int:
    configs = sweep.expand(sweep.axes_from_flags(PRESET.value))
    run.set_up_jax(x64=any(c.dtype == "float64" for c in configs))
    if DRY_RUN.value:
        print(run.describe(WORKDIR.value, configs, DATA_DIR.value, TASK_COUNT.value))
        return 0
    try:
        run.run_sweep(
            WORKDIR.value,
            configs,
            DATA_DIR.value,
            task_index=TASK_INDEX.value,
            task_count=TASK_COUNT.value,
            save_minutes=SAVE_MINUTES.value,
            measure=TUNE.value == "auto",
        )
    except run.Interrupted as interrupted:
        print(f"{interrupted}: saved in {WORKDIR.value}; the same command goes on from there", file=sys.stderr)
        return 128 + interrupted.signal_number
    return 0


if __name__ == "__main__":
    sweep.run_script(main)
