"""Trains a sweep as cluster jobs: the flags of train_sweep.py, and how it becomes an array of tasks.

Example: 64 jobs with a GPU each; when its task of the sweep is done, each goes on with other spectra; then the report.

    python experiments/submit.py --workdir=runs/big --preset=nakkiran_resnet18 --cluster=slurm --tasks=64 --gpus=1 \
        --partition=gpu --time=12:00:00 --memory=32G --evaluate="--name=fine --spectrum_points=512"

--dry_run prints the plan and the script and submits nothing; --print_script prints a script that submits the same jobs
without submitit. Jobs that Slurm stops before their time limit, or to make room, save and go on by themselves. The same
command again submits what is left, whatever --tasks is then. status.py says how far the jobs are.
"""

import pathlib

from absl import flags

from spectral_dd import cli, cluster
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.planning.hardware import Target, parse_target

HERE = pathlib.Path(__file__).resolve().parent
THEN = ("report", "indicate")

TRAIN = cli.load(HERE / "train_sweep.py").FLAGS
FLAGS = flags.FlagValues()
own = {"flag_values": FLAGS}
for name in TRAIN:
    if name not in ("dry_run", "task_index", "task_count"):  # A task has its share from here.
        flags.DEFINE_flag(TRAIN[name], FLAGS)
PASSED_ON = [name for name in FLAGS if name != "target"]
flags.DEFINE_enum("cluster", "slurm", cluster.CLUSTERS, "slurm; local: processes here; debug: in this process", **own)
flags.DEFINE_integer("tasks", 1, "jobs that share the sweep", lower_bound=1, **own)
flags.DEFINE_integer("processes", 1, "processes of each job, such as one a GPU", lower_bound=1, **own)
flags.DEFINE_integer("gpus", 0, "GPUs of each process; 0: as the partition has it", lower_bound=0, **own)
flags.DEFINE_string("partition", None, "partition of the jobs", **own)
flags.DEFINE_string("time", "1-00:00:00", "time limit of a job, after which it goes on in the next", **own)
flags.DEFINE_string("memory", None, "memory of a job's host, as sbatch's --mem takes it", **own)
flags.DEFINE_string("account", None, "account of the jobs", **own)
flags.DEFINE_multi_string("sbatch", [], "other options of sbatch, as '--qos=high --exclusive'", **own)
flags.DEFINE_integer("save_seconds", 120, "time for saving before the time limit", lower_bound=1, **own)
flags.DEFINE_multi_string("evaluate", [], "flags of evaluate_spectrum.py in quotes, as often as wanted", **own)
flags.DEFINE_list("then", ["report"], f"when all is done: {', '.join(THEN)}; empty: nothing", **own)
flags.DEFINE_bool("dry_run", False, "check everything, print the plan and the script, and submit nothing", **own)
flags.DEFINE_bool("print_script", False, "print a script that submits the jobs without submitit", **own)


def stages() -> list[cluster.Stage]:
    """Train; other spectra, each task after its own of training; then report and verdict."""
    workdir = f"--workdir={FLAGS.workdir}"
    if FLAGS["min_packs"].using_default_value:
        FLAGS.min_packs = FLAGS.tasks * FLAGS.processes
    train = (str(HERE / "train_sweep.py"), *cli.as_arguments(FLAGS, PASSED_ON))
    found = [cluster.Stage("train", (train,), FLAGS.tasks)]
    reports = [()]
    for text in FLAGS.evaluate:
        arguments, name = evaluate_arguments(text)
        if (f"--spectrum={name}",) in reports:
            raise InputError(f"--evaluate={text}: --name={name} is given twice; each needs a name of its own")
        command = (str(HERE / "evaluate_spectrum.py"), workdir, *arguments)
        found.append(cluster.Stage(f"evaluate-{name}", (command,), FLAGS.tasks, each_after=(0,)))
        reports.append((f"--spectrum={name}",))
    for then in FLAGS.then:
        if then not in THEN:
            raise InputError(f"--then={','.join(FLAGS.then)}: must be among {', '.join(THEN)}")
    last = [(str(HERE / f"{then}.py"), workdir, *spectrum) for then in FLAGS.then for spectrum in reports[::-1]]
    if last:
        found.append(cluster.Stage("-".join(FLAGS.then), tuple(last), after=tuple(range(len(found)))))
    return found


def evaluate_arguments(text: str) -> tuple[list[str], str]:
    """The arguments of evaluate_spectrum.py, checked, and the name of its spectra."""
    arguments = text.split()
    script = cli.load(HERE / "evaluate_spectrum.py")
    try:
        cli.parse(script, ["evaluate_spectrum.py", f"--workdir={FLAGS.workdir}", *arguments])
        settings = cli.given(script.FLAGS, script.SETTINGS)
        if several := [name for name, values in settings.items() if len(values) > 1]:
            raise InputError(f"must have one --{several[0]}; give --evaluate for each")
        Config.of(**{name: values[0] for name, values in settings.items()})
    except InputError as error:
        raise InputError(f"--evaluate={text}: {error}") from error
    return arguments, script.FLAGS.name


def resources() -> cluster.Resources:
    cluster.minutes(FLAGS.time)
    named = {"partition": FLAGS.partition, "mem": FLAGS.memory, "account": FLAGS.account}
    options = {name: value for name, value in named.items() if value is not None}
    options |= cluster.parse_options(" ".join(FLAGS.sbatch))
    return cluster.Resources(FLAGS.time, FLAGS.processes, FLAGS.gpus, options, FLAGS.save_seconds)


def check_gpus(target: Target) -> None:
    """The plan must be for as many GPUs as a process gets."""
    if target.chip.gpu and target.num_devices != FLAGS.gpus:
        kind = target.name.partition(":")[0]
        raise InputError(
            f"--target={target.name}: must be of as many GPUs as a process has, --gpus={FLAGS.gpus}: "
            f"--target={kind}:{FLAGS.gpus}"
        )


def main() -> int:
    jobs, wanted = stages(), resources()
    if FLAGS.print_script:
        print(cluster.script_of_all(jobs, wanted, FLAGS.workdir), end="")
        return 0
    # What train_sweep.py would refuse is refused here, before it waits in a queue.
    (train,) = jobs[0].commands
    if FLAGS.target and FLAGS.gpus:
        check_gpus(parse_target(FLAGS.target))
    target = cli.as_arguments(FLAGS, ["target"])
    if status := cli.run_script([*train, "--dry_run", *target, f"--task_count={FLAGS.tasks * FLAGS.processes}"]):
        return status
    if FLAGS.dry_run:
        limit = f"a job that has not ended after --time={FLAGS.time} saves and goes on in the next"
        print(cluster.script_of_all(jobs, wanted, FLAGS.workdir), count(jobs), limit, sep="\n")
        return 0
    lines, failed = cluster.submit(jobs, wanted, FLAGS.workdir, FLAGS.cluster)
    print(*lines, sep="\n")
    print(f"python experiments/status.py --workdir={FLAGS.workdir}  # how far they are")
    return 1 if failed else 0


def count(jobs: list[cluster.Stage]) -> str:
    numbers = [max(1, stage.tasks) for stage in jobs]
    return f"{sum(numbers)} jobs: " + ", ".join(f"{n} {stage.name}" for n, stage in zip(numbers, jobs, strict=True))


if __name__ == "__main__":
    cli.main()
