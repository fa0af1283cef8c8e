"""Jobs on a real Slurm of two nodes; skipped where it is not installed."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import submitit  # noqa: F401 (here, because it closes the streams of logging, which in a test are those of capsys)

import slurm as local_slurm
import spectral_dd as sdd
from helpers import assert_identical, everything
from spectral_dd import cli
from spectral_dd.members import expand
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import prepare
from spectral_dd.sweeps import write_sweep

pytestmark = pytest.mark.skipif(bool(local_slurm.missing()), reason=local_slurm.missing())

SCRIPTS = pathlib.Path(__file__).parent.parent / "experiments"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with local_slurm.Slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def many_steps():
    """Two members whose training takes seconds, with as few records as will do: it runs ahead of what is saved."""
    return {
        "model": "mlp",
        "width": 2,
        "seed": [0, 1],
        "train_size": 480,
        "batch_size": 2,
        "epochs": 1000,
        "label_noise": 0.2,
        "records_per_decade": 6,
        "spectrum_examples": 0,
    }


def flags_of(axes):
    return [f"--{name}={','.join(map(str, np.atleast_1d(axis)))}" for name, axis in axes.items()]


def submit(capsys, workdir, *arguments):
    """Submits; returns the jobs by name."""
    capsys.readouterr()
    status = cli.run_script([str(SCRIPTS / "submit.py"), f"--workdir={workdir}", "--tune=off", *arguments])
    output, errors = capsys.readouterr()
    assert status == 0, errors
    return dict(line.split(": job ") for line in output.splitlines() if ": job " in line)


def newest(workdir, pack=0):
    return max((int(p.name) for p in workdir.glob(f"packs/{pack:03d}/records/*") if p.name.isdecimal()), default=-1)


def logs(workdir):
    return "\n".join(path.read_text() for path in sorted(workdir.glob("jobs/*.*")) if path.suffix in (".out", ".log"))


def release(slurm, job):
    """A requeued job need not wait as long as credentials live, but past the second in which the one of its last run
    was revoked: in that one its node refuses it."""
    slurm.wait_for(lambda: slurm.state(job) == "PENDING", 100)
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now+3")


@contextlib.contextmanager
def held(slurm, run, epoch):
    """Training of the first pack stands still from some record after this epoch on, until a signal comes. So it is not
    over before Slurm acts, which looks at time limits twice a minute."""
    slurm.wait_for(lambda: newest(run) > epoch, 200)
    process = trainer(run)
    os.kill(process, signal.SIGSTOP)
    yield
    slurm.wait_for(lambda: has_signal(process), 100)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGCONT)


def trainer(run):
    """The process that trains the first pack."""
    return int((run / "packs" / "000" / "lock").read_text().split()[1])


def has_signal(process):
    """Whether a signal waits for a process that stands still, or has ended it."""
    try:
        status = pathlib.Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return int(re.search(r"^ShdPnd:\s*(\w+)", status, flags=re.M)[1], 16) != 0


def come_near_the_time_limit(slurm, job):
    """Gives a job a time limit that is so near that it is told."""
    elapsed = slurm.ask("squeue", "-h", "-j", job, "-o", "%M").split(":")  # minutes and seconds
    slurm.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={int(elapsed[-2]) + 2}")


@pytest.fixture(scope="module")
def failing(slurm, many_steps, tmp_path_factory):
    """A sweep of two packs, of which one cannot be written, and the array that tries to train it beside all else."""
    axes, run = many_steps | {"epochs": 5}, tmp_path_factory.mktemp("failing") / "run"
    prepared = prepare(expand(axes))
    write_sweep(run, plan_sweep(prepared, Cost(prepared.configs, prepared.datasets), min_packs=2))
    (run / "packs").mkdir()
    (run / "packs" / "001").touch()
    arguments = [f"--workdir={run}", "--tasks=2", "--then=", "--tune=off", *flags_of(axes)]
    submitted = [sys.executable, str(SCRIPTS / "submit.py"), *arguments]
    output = subprocess.run(submitted, check=True, capture_output=True, text=True).stdout
    return run, re.search(r"train: job (\d+)", output)[1]


@pytest.mark.usefixtures("slurm")
def test_what_slurm_refuses_is_answered_in_its_words(small_axes, tmp_path, capsys):
    arguments = [f"--workdir={tmp_path}/a/run", "--partition=gpus", *flags_of(small_axes)]
    assert cli.run_script([str(SCRIPTS / "submit.py"), *arguments]) == 2
    *_, line = capsys.readouterr().err.splitlines()  # after how far planning is, where that takes long
    assert line.startswith("submit.py: train: sbatch: error: invalid partition specified: gpus")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("failing")
def test_an_array_trains_then_evaluates_task_by_task_then_reports(slurm, small_axes, tmp_path, capsys):
    evaluate = "--evaluate=--name=long --spectrum_points=16"
    jobs = submit(capsys, tmp_path / "run", "--tasks=2", evaluate, *flags_of(small_axes))
    assert list(jobs) == ["train", "evaluate-long", "report"]
    slurm.wait_for(lambda: slurm.state(jobs["report"]) == "COMPLETED", 300)
    assert slurm.ask("squeue", "-h", "-t", "all", "-j", jobs["report"], "-o", "%j") == "report"
    assert "task 1 of 2 (--task_index): 1 of 2 packs" in logs(tmp_path / "run")
    assert sdd.load_results(tmp_path / "run").test_error.notnull().all()
    assert sdd.load_results(tmp_path / "run", "long").energy.notnull().all()
    assert (tmp_path / "run" / "report.html").exists()
    status = sdd.status(tmp_path / "run")
    assert status.members == {"done": 4, "running": 0, "waiting": 0, "failed": 0}
    assert status.spectra == {"long": 2} and status.problems == []


def test_the_array_of_the_documentation_evaluates_a_sweep_that_is_there(slurm, small, tmp_path):
    run = shutil.copytree(small, tmp_path / "run")
    (line,) = re.findall(r"^    (sbatch (?:.*\\\n)*.*)$", (SCRIPTS.parent / "docs" / "clusters.md").read_text(), re.M)
    for words, here in (
        ("0-63", "0-1"),
        ("/shared/runs/big", str(run)),
        ("=512", "=16"),
        ("experiments", str(SCRIPTS)),
        ("srun python", f"srun {sys.executable}"),
    ):
        assert words in line
        line = line.replace(words, here)
    said = subprocess.run(line, shell=True, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    job = said.split()[-1]
    slurm.wait_for(lambda: {slurm.state(f"{job}_{i}") for i in range(2)} <= {"COMPLETED", "FAILED"}, 200)
    said = "".join((tmp_path / f"slurm-{job}_{i}.out").read_text() for i in range(2))
    assert "task 0 of 2 (SLURM_ARRAY_TASK_ID=0, SLURM_PROCID=0): 1 of 1 pack" in said
    assert "task 1 of 2 (SLURM_ARRAY_TASK_ID=1, SLURM_PROCID=0): none of 1 pack" in said
    assert sdd.load_results(run, "fine").energy.notnull().all()


def test_a_job_requeued_at_its_time_limit_and_without_its_node_ends_bit_identical(slurm, many_steps, tmp_path, capsys):
    many_steps = many_steps | {"seed": 0, "epochs": 2000}
    sdd.train(tmp_path / "undisturbed", sdd.sweep(**many_steps), tune=False)
    run = tmp_path / "run"
    job = submit(capsys, run, "--then=", "--save_seconds=119", *flags_of(many_steps))["train"]
    with held(slurm, run, 10):
        slurm.ask("scontrol", "requeue", job)
    release(slurm, job)
    stopped_at = newest(run)
    assert 10 < stopped_at < many_steps["epochs"]
    with held(slurm, run, stopped_at):
        come_near_the_time_limit(slurm, job)
    release(slurm, job)
    slurm.ask("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    stopped_at = newest(run)
    assert stopped_at < many_steps["epochs"] and "SIGUSR2: saved" in logs(run)
    with held(slurm, run, stopped_at):
        node = slurm.ask("squeue", "-h", "-j", job, "-o", "%N")
        slurm.lose(node, job)
    release(slurm, job)
    assert newest(run) < many_steps["epochs"]
    slurm.wait_for(lambda: slurm.state(job) == "COMPLETED", 200)
    slurm.bring_back(node)
    assert_identical(everything(run), everything(tmp_path / "undisturbed"))


def test_processes_of_one_step_share_a_sweep_and_what_is_killed_or_cancelled_is_finished_later(
    slurm, many_steps, tmp_path, capsys
):
    run, last = tmp_path / "run", many_steps["epochs"]
    train = [sys.executable, str(SCRIPTS / "train_sweep.py"), f"--workdir={run}", "--tune=off", "--min_packs=2"]
    train += flags_of(many_steps)
    step = subprocess.Popen(["srun", "-N2", *train], stderr=subprocess.PIPE, text=True)
    slurm.wait_for(lambda: newest(run) > 10, 200)
    os.kill(trainer(run), signal.SIGKILL)
    _, errors = step.communicate(timeout=200)
    assert step.returncode != 0
    assert "task 0 of 2 (SLURM_PROCID=0): 1 of 2 packs" in errors and "task 1 of 2" in errors
    assert newest(run, 0) < last == newest(run, 1)

    job = submit(capsys, run, "--then=", "--min_packs=2", *flags_of(many_steps))["train"]
    with held(slurm, run, newest(run)):
        slurm.ask("scancel", job)
    slurm.wait_for(lambda: slurm.state(job) == "CANCELLED" and not slurm.processes(job), 100)
    assert newest(run) < last
    status = sdd.status(run)
    assert status.members == {"done": 1, "running": 0, "waiting": 1, "failed": 0} and status.problems == []

    assert subprocess.run(["srun", "-N1", *train], capture_output=True).returncode == 0
    assert sdd.load_results(run).test_error.sel(epoch=last).notnull().all()


def test_a_task_that_fails_three_times_is_reported_and_the_others_go_on(slurm, failing):
    run, job = failing
    slurm.wait_for(lambda: slurm.state(f"{job}_1") == "FAILED" and slurm.state(f"{job}_0") == "COMPLETED", 300)
    assert newest(run, 0) == 5
    (problem,) = sdd.status(run).problems
    assert problem.startswith(f"job {job}_1: failed 3 times, last with status 1 on ")
