"""Trains a sweep: every combination of the axes given, as a few compiled programs.

Example: double descent on the embedded digits, ten widths, some minutes on two cores.

    python experiments/train_sweep.py --workdir=runs/demo --preset=digits

A comma list makes a flag an axis, and axes multiply: --width=1,2,4 --seed=0,1 trains six members. A table of members
(--members=FILE.csv, a column a field) ties values to each other. The same command on the same directory goes on where
it stopped. --dry_run says what would be done.
"""

import sys

from absl import flags

import spectral_dd as sdd
from spectral_dd import cli, presets, provenance
from spectral_dd.config import needs_x64
from spectral_dd.errors import InputError
from spectral_dd.planning.hardware import CHIPS, parse_target

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("workdir", None, "directory that the sweep is written to", required=True, **own)
flags.DEFINE_string(
    "preset",
    presets.AUTO,
    "values that flags override; auto: digits, unless another data set or model is given; none; or one of "
    f"{', '.join(presets.PRESETS)}",
    **own,
)
flags.DEFINE_string("members", None, "table of members: a CSV file with a column a field; flags fill the rest", **own)
flags.DEFINE_bool(
    "extend", False, "add members, or epochs, to the sweep that is there; what is trained is kept as it is", **own
)
flags.DEFINE_bool("dry_run", False, "check everything, print packs, size and work, and stop", **own)
flags.DEFINE_string(
    "target", None,
    f"with --dry_run: compile for hardware that is not here: {', '.join(CHIPS)}; h100:8 for eight, v5e:2x2 for a slice",
    **own,
)  # fmt: skip
flags.DEFINE_string("data_dir", None, "where TFDS data sets are prepared", **own)
cli.define_task(FLAGS)
flags.DEFINE_integer(
    "min_packs", 1, "cut a new sweep into at least so many packs, so that as many tasks find work", lower_bound=1, **own
)
flags.DEFINE_float("save_minutes", 5.0, "longest time between checkpoints", lower_bound=0, **own)
flags.DEFINE_enum(
    "tune", "auto", ["auto", "off"], "time what is fastest before a long sweep, or use the usual choices", **own
)
cli.define_fields(FLAGS)


def main() -> None:
    chosen = {"preset": FLAGS.preset, "members": FLAGS.members, **cli.given(FLAGS)}
    configs = sdd.sweep(**chosen)
    sources = cli.sources(**chosen)
    if FLAGS.target and not FLAGS.dry_run:
        raise InputError(f"--target={FLAGS.target}: compiles and plans only; give --dry_run too")
    if FLAGS.dry_run:
        plan(configs, sources)
        return
    sdd.train(
        FLAGS.workdir,
        configs,
        data_dir=FLAGS.data_dir,
        task_index=FLAGS.task_index,
        task_count=FLAGS.task_count,
        save_minutes=FLAGS.save_minutes,
        min_packs=FLAGS.min_packs,
        tune=FLAGS.tune == "auto",
        extend=FLAGS.extend,
        about=sources,
    )
    print(
        f"results are in {FLAGS.workdir}; next: {provenance.command('report', workdir=FLAGS.workdir)}", file=sys.stderr
    )


def plan(configs: list[sdd.Config], sources: list[str]) -> None:
    """Checks the sweep and prints what would be done, here or on hardware that is not here."""
    target = parse_target(FLAGS.target) if FLAGS.target else None
    # Here, so that what is wrong with a flag is answered before JAX is imported.
    from spectral_dd import devices, progress
    from spectral_dd.planning import dry_run, elsewhere
    from spectral_dd.planning.prepare import prepare

    if target:
        devices.plan_only()
    devices.set_up()
    with devices.numerics(needs_x64(configs)):
        prepared = prepare(configs, FLAGS.data_dir)
        arguments, sources = (FLAGS.workdir, prepared, FLAGS.min_packs), [*sources, *prepared.described()]
        if target:
            print(*sources, sep="\n")
            for line in elsewhere.describe(*arguments, target, tasks=FLAGS.task_count or 1, extend=FLAGS.extend):
                print(line, flush=True)
            return
        with progress.going_on(lambda: "planning the packs"):
            said = dry_run.describe(*arguments, extend=FLAGS.extend)
        print(*sources, said, sep="\n")


if __name__ == "__main__":
    cli.main()
