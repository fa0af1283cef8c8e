"""Checks every file of a run against its seal, and names what is damaged, missing or foreign; status 1 if anything is.

Reads all of it: about a second for the demo. The sweep may be running.

    python experiments/verify.py --workdir=runs/demo
    python experiments/verify.py --workdir=runs/demo --repair            # sets aside what is damaged
    python experiments/verify.py --workdir=runs/demo --prune_states=0    # a finished run needs no states to go on from
"""

import collections

from absl import flags

from spectral_dd import cli

FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
flags.DEFINE_string("workdir", None, "directory of the sweep", required=True, **own)
flags.DEFINE_bool("repair", False, "set aside what is damaged or foreign, and say which command makes it anew", **own)
flags.DEFINE_integer(
    "prune_states", None, "keep so many states for resuming of each finished pack", lower_bound=0, upper_bound=2, **own
)


def main() -> int:
    # Here, so that what is wrong with a flag is answered before JAX is imported.
    from spectral_dd import verify

    found, commands = collections.Counter[str](), dict[str, None]()
    for finding in verify.check_run(FLAGS.workdir):
        print(finding, flush=True)
        found[finding.kind] += finding.kind != "set aside"
        commands |= {finding.command: None} if finding.command else {}
        if FLAGS.repair:
            verify.repair(finding)
    wrong = ", ".join(f"{count} {kind}" for kind, count in found.items() if count)
    print(f"{FLAGS.workdir}: {wrong or 'nothing is damaged, missing or foreign'}")
    if not FLAGS.repair and found["damaged"] + found["foreign"]:
        print("--repair sets aside what is damaged or foreign" + "; then" * bool(commands))
    for command in commands:
        print(f"  {command}\nmakes it anew")
    if FLAGS.prune_states is not None and not wrong:
        count, size = verify.prune_states(FLAGS.workdir, FLAGS.prune_states)
        print(f"{count} states deleted, {size / 1e6:.1f} MB")
    return int(bool(wrong))


if __name__ == "__main__":
    cli.main()
