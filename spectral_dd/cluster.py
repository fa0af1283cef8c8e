"""A sweep as jobs: the scripts of experiments/ as arrays of tasks, and as jobs that depend on them.

Slurm schedules, queues and requeues, and submitit speaks to it; what is said here is which job runs what, and when a
job goes back into the queue: before its time is up or when it is preempted, always; when it fails, `ATTEMPTS` times in
all. A job that goes on finds what it saved, so its tasks are the usual commands.
"""

import contextlib
import dataclasses
import importlib.util
import io
import math
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from spectral_dd import cli, files
from spectral_dd.errors import InputError, Interrupted

CLUSTERS = ("slurm", "local", "debug")
ATTEMPTS = 3
# What the tasks are told to save by; `progress.stop_signals` knows it.
SIGNAL = signal.SIGUSR2
# What a script ends with that was told to stop.
STOPPED = [128 + number for number in (signal.SIGINT, signal.SIGTERM)]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Commands that are run one after another, by each task of an array or by one job.

    Args:
      name: of the job.
      commands: script and arguments of each.
      tasks: of the array; 0: a single job that takes no share.
      each_after: places of the stages of as many tasks, whose task of the same number must have succeeded.
      after: places of the stages that must have ended, well or not.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    tasks: int = 0
    each_after: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def dependency(self, job_ids: Sequence[str]) -> str:
        """In sbatch's words, from the ids of the stages before."""
        parts = [("aftercorr", self.each_after), ("afterany", self.after)]
        return ",".join(":".join((kind, *(job_ids[i] for i in places))) for kind, places in parts if places)


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a job gets. Options of sbatch by their names; True: one without a value.

    Args:
      time: limit, as sbatch takes it.
      processes: of each job, which share its work.
      gpus: of each process; 0: as the partition has it.
      options: further ones.
      save_seconds: before the time limit, for saving.
    """

    time: str = "1-00:00:00"
    processes: int = 1
    gpus: int = 0
    options: dict[str, str | bool] = dataclasses.field(default_factory=dict)
    save_seconds: int = 120

    def sbatch(self, stage: Stage) -> dict[str, str | bool]:
        """All options of a stage's job, but where its log goes."""
        return {
            "job-name": stage.name,
            "time": self.time,
            "ntasks": str(self.processes if stage.tasks else 1),
            **({"gpus-per-task": str(self.gpus)} if self.gpus else {}),
            "requeue": True,
            "open-mode": "append",
            "signal": f"{SIGNAL.name.removeprefix('SIG')}@{self.save_seconds}",
            "kill-on-invalid-dep": "yes",
            **self.options,
        }


def minutes(limit: str) -> int:
    """Of a time limit: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes[:seconds].

    Raises:
      InputError: it is none of them.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if not match:
        raise InputError(f"--time={limit}: must be minutes, hours:minutes:seconds or days-hours:minutes:seconds")
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is None and len(numbers) < 3:
        numbers.insert(0, 0)
    hours, mins, seconds = [*numbers, 0, 0][:3]
    return max(1, math.ceil(int(days or 0) * 1440 + hours * 60 + mins + seconds / 60))


def parse_options(text: str) -> dict[str, str | bool]:
    """'--qos=high --exclusive' -> options of sbatch.

    Raises:
      InputError: a part does not begin with --.
    """
    options: dict[str, str | bool] = {}
    for part in shlex.split(text):
        name, equals, value = part.removeprefix("--").partition("=")
        if not part.startswith("--") or not name:
            raise InputError(f"--sbatch={text}: {part}: must be --option=value or --option, as sbatch has them")
        options[name] = value if equals else True
    return options


def _before() -> list[str]:
    """Lines of bash before what a job runs."""
    return ["trap : TERM  # The processes get the signal as well, and save."]


def _after(jobs: pathlib.Path) -> list[str]:
    return [
        "status=$?",
        f'failures={shlex.quote(str(jobs))}/"${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}_${{SLURM_ARRAY_TASK_ID:-0}}.failures"',
        "case $status in",
        '    0) rm -f "$failures" ;;',
        f'    {128 + SIGNAL}) scontrol requeue "$SLURM_JOB_ID" ;;  # saved before the time limit',
        f"    {128 + signal.SIGTERM}|255) ;;  # stopped by Slurm, which requeues what was not cancelled",
        '    *) echo "with status $status on $(hostname -s), $(date "+%F %T")" >> "$failures"',
        f'       if [ $status != 2 ] && [ "$(wc -l < "$failures")" -lt {ATTEMPTS} ]; then',
        '           scontrol requeue "$SLURM_JOB_ID"  # maybe to another node',
        "       fi ;;",
        "esac",
        "exit $status",
    ]


def script(stage: Stage, resources: Resources, workdir: str | os.PathLike[str], dependency: str = "") -> str:
    """A script for sbatch that runs a stage without submitit. The tasks of an array find their share themselves."""
    jobs = files.jobs_directory(workdir)
    options = resources.sbatch(stage) | {"output": f"{jobs}/%A_%a.log" if stage.tasks else f"{jobs}/%j.log"}
    if stage.tasks:
        options["array"] = f"0-{stage.tasks - 1}"
    lines = [f"#SBATCH --{name}" + ("" if value is True else f"={value}") for name, value in options.items()]
    commands = " &&\n".join(shlex.join(["srun", sys.executable, *command]) for command in stage.commands)
    return "\n".join(["#!/bin/bash", *lines, *_before(), commands, *_after(jobs), ""])


def script_of_all(stages: Sequence[Stage], resources: Resources, workdir: str | os.PathLike[str]) -> str:
    """A bash script that submits all stages with their dependencies, and needs nothing but sbatch."""
    jobs = files.jobs_directory(workdir)
    lines = ["#!/bin/bash", "# Submits the jobs: bash THIS_FILE", "set -eu", f"mkdir -p {shlex.quote(str(jobs))}"]
    ids = [f"$job{number}" for number in range(len(stages))]
    for number, stage in enumerate(stages):
        dependency = stage.dependency(ids)
        how = f' --dependency="{dependency}"' if dependency else ""
        lines += [f"job{number}=$(sbatch --parsable{how} <<'END'", script(stage, resources, workdir) + "END", ")"]
        lines.append(f'echo "{stage.name}: job $job{number}"')
    return "\n".join([*lines, ""])


class Job:
    """One job of a stage, as submitit runs it: it may be stopped, and started again on another host.

    Args:
      stage: whose commands it runs.
      index: of the task.
      visible: $CUDA_VISIBLE_DEVICES of each of its processes, None: without it; empty: as the cluster has it.
    """

    def __init__(self, stage: Stage, index: int, visible: Sequence[str | None] = ()):
        self._stage, self._index, self._visible = stage, index, visible

    def __call__(self) -> None:
        """Raises SystemExit with the status of a command that fails, which is what the job ends with."""
        import submitit

        here = submitit.JobEnvironment()
        if here.cluster == "local":  # Who submitted has blocked the one, and sends the other to stop it.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, cli.end_at_once)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            threading.Thread(target=_end_with, args=(int(here.job_id),), daemon=True).start()
        if self._visible:  # JAX looks at it when it first computes; submitit has left none.
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if (devices := self._visible[here.local_rank]) is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = devices
        share = []
        if self._stage.tasks:
            index, count = self._index * here.num_tasks + here.global_rank, self._stage.tasks * here.num_tasks
            share = [f"--task_index={index}", f"--task_count={count}"]
        for command in self._stage.commands:
            # What is recorded as the command of a sweep is this, not how a job was started.
            sys.argv = [*command, *share]
            status = cli.run_script(sys.argv)
            if status == 128 + SIGNAL:
                os.kill(os.getpid(), SIGNAL)  # All is saved: this time it is for submitit, which requeues the job.
            if status:
                raise SystemExit(status)

    def checkpoint(self) -> Any:
        """What submitit runs when the job comes back."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _end_with(parent: int) -> None:
    """Ends this process soon after the one that started it was killed."""
    while os.getppid() == parent:
        time.sleep(0.1)
    cli.end_at_once(signal.SIGKILL)


def submit(
    stages: Sequence[Stage], resources: Resources, workdir: str | os.PathLike[str], cluster: str
) -> tuple[list[str], int]:
    """Submits the stages. On `local` and `debug` it runs them here, and returns when all have ended.

    Returns:
      A line a stage, and the number of tasks that failed.

    Raises:
      InputError: there is no submitit or no Slurm here, or Slurm refuses; its own words are passed on.
    """
    if importlib.util.find_spec("submitit") is None:
        raise InputError(
            f"--cluster={cluster}: needs submitit: pip install 'spectral_dd[cluster]'; --print_script needs none"
        )
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise InputError(
            "--cluster=slurm: there is no sbatch on this host; --cluster=local runs the tasks here, --print_script "
            "writes a script for another host"
        )
    jobs = files.jobs_directory(workdir)
    if cluster != "slurm":
        jobs.mkdir(parents=True, exist_ok=True)
        _forget_failures(jobs)
        return _run_here(stages, resources, jobs, cluster)
    job_ids: list[str] = []
    for stage in stages:
        try:
            with _nothing_left(jobs), contextlib.redirect_stderr(io.StringIO()):  # of submitit, which says it twice
                job_ids.append(_sbatch(stage, resources, jobs, stage.dependency(job_ids)))
        except RuntimeError as error:  # submitit's, of what sbatch said, or that there is no srun
            said = " ".join(line.strip() for line in str(error).splitlines() if line.startswith("sbatch:"))
            before = f"; submitted before it, scancel removes them: {' '.join(job_ids)}" if job_ids else ""
            raise InputError(f"{stage.name}: {said or ' '.join(str(error).split())}{before}") from None
    _forget_failures(jobs, but=job_ids)
    return [f"{stage.name}: job {job_id}" for stage, job_id in zip(stages, job_ids, strict=True)], 0


def _forget_failures(jobs: pathlib.Path, but: Sequence[str] = ()) -> None:
    for old in jobs.glob("*.failures"):
        if old.name.partition("_")[0] not in but:
            old.unlink()


@contextlib.contextmanager
def _nothing_left(jobs: pathlib.Path) -> Iterator[None]:
    """Makes a directory if it is not there; if what is done within fails, both it and the files of a job that was not
    submitted are as before."""
    made = [path for path in (jobs, *jobs.parents) if not path.exists()]
    jobs.mkdir(parents=True, exist_ok=True)
    there = {*jobs.iterdir()}
    try:
        yield
    except BaseException:
        # What has been submitted is named by its job's number, and an underscore.
        unsubmitted = [path for path in jobs.glob("*.pkl") if "_" not in path.name]
        for path in {*unsubmitted, *jobs.glob(".submission_file_*.sh")} - there:
            path.unlink()
        for path in made:
            path.rmdir()
        raise


def _sbatch(stage: Stage, resources: Resources, jobs: pathlib.Path, dependency: str) -> str:
    """Submits one stage; returns its job's id."""
    import submitit

    options = resources.sbatch(stage) | ({"dependency": dependency} if dependency else {})
    executor = submitit.SlurmExecutor(jobs, max_num_timeout=10**6)  # as often as the time limit comes
    executor.update_parameters(
        job_name=options.pop("job-name"),
        time=minutes(resources.time),  # from which submitit tells a time limit from a preemption
        additional_parameters=options,
        array_parallelism=max(1, stage.tasks),
        wckey=None,
        stderr_to_stdout=True,
        setup=_before(),
        teardown=_after(jobs),
    )
    with executor.batch():
        submitted = [executor.submit(Job(stage, index)) for index in range(max(1, stage.tasks))]
    return submitted[0].job_id.partition("_")[0]


def _run_here(stages: Sequence[Stage], resources: Resources, jobs: pathlib.Path, cluster: str) -> tuple[list[str], int]:
    lines: list[str] = []
    failed: list[list[int]] = []  # of each stage
    for stage in stages:
        left = list(range(max(1, stage.tasks)))
        skipped = [index for index in left if any(index in failed[i] for i in stage.each_after)]
        left = [index for index in left if index not in skipped]
        attempts = 1 if cluster == "debug" else ATTEMPTS
        for _ in range(attempts):
            left = _in_this_process(stage, jobs, left) if cluster == "debug" else _beside(stage, resources, jobs, left)
        failed.append([*left, *skipped])
        how = f"tasks {', '.join(map(str, left))} failed {attempts} times; logs: {jobs}" if left else "done"
        how += f"; tasks {', '.join(map(str, skipped))} had nothing to follow" if skipped else ""
        lines.append(f"{stage.name}: {how}")
    return lines, sum(map(len, failed))


def _in_this_process(stage: Stage, jobs: pathlib.Path, tasks: Sequence[int]) -> list[int]:
    """Runs tasks of a stage one after another; returns those that failed."""
    import submitit

    failed = []
    for index in tasks:
        try:
            submitit.DebugExecutor(jobs).submit(Job(stage, index)).results()
        except SystemExit as end:
            if end.code in STOPPED:
                raise
            failed.append(index)
        except submitit.core.utils.UncompletedJobError:
            failed.append(index)
    return failed


def _beside(stage: Stage, resources: Resources, jobs: pathlib.Path, tasks: Sequence[int]) -> list[int]:
    """Runs tasks of a stage at the same time, each in processes of its own; returns those that failed. A signal is
    passed on to all of them, which save; a SIGINT after it ends them.

    Raises:
      Interrupted: there was a signal, and all have ended.
    """
    import submitit

    from spectral_dd import progress  # here, because it imports JAX

    submitted: dict[int, Any] = {}
    processes = resources.processes if stage.tasks else 1

    def kill() -> None:
        for job in submitted.values():
            if not job.done():
                os.kill(int(job.job_id), signal.SIGKILL)  # of submitit; its tasks see that it has gone

    with progress.stop_signals(lambda: "passed on to the tasks", kill) as stop_signal:
        for place, index in enumerate(tasks):
            executor = submitit.LocalExecutor(jobs)
            executor.update_parameters(timeout_min=365 * 24 * 60, tasks_per_node=processes, stderr_to_stdout=True)
            task = Job(stage, index, visible_devices(place, processes, resources.gpus))
            # The Ctrl-C of a terminal is for all its processes. That of submitit, which gives its tasks a second to end
            # when it gets one, and they themselves begin with what is blocked here; see `Job`.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                submitted[index] = executor.submit(task)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        told = False
        while running := [job for job in submitted.values() if not job.done()]:
            if stop_signal() and not told:
                told = True
                for job in running:
                    os.kill(int(job.job_id), signal.SIGTERM)  # submitit passes it on
            time.sleep(0.1)
        if number := stop_signal():
            raise Interrupted(f"{stage.name}: its tasks have stopped; the same command goes on; logs: {jobs}", number)
    failed = []
    for index, job in submitted.items():
        try:
            job.results()
        except submitit.core.utils.UncompletedJobError:
            failed.append(index)
    return failed


def visible_devices(place: int, processes: int, gpus: int) -> list[str | None]:
    """$CUDA_VISIBLE_DEVICES of each process of a job here: so many GPUs each, in turn, of those that the variable
    has; 0: all. The place is that of the job among those that run at the same time."""
    here = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not gpus:
        return [here] * processes
    chosen = [part.strip() for part in (here or "").split(",") if part.strip()]
    firsts = range(place * processes * gpus, (place + 1) * processes * gpus, gpus)
    wanted = [range(first, first + gpus) for first in firsts]
    return [",".join(chosen[i % len(chosen)] if chosen else str(i) for i in some) for some in wanted]
