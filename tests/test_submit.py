"""Jobs without Slurm: what is submitted, run here, and refused."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import submitit  # noqa: F401 (here, because it closes the streams of logging, which in a test are those of capsys)

import spectral_dd as sdd
from spectral_dd import cli, cluster, monitor
from spectral_dd.errors import InputError
from spectral_dd.members import expand
from spectral_dd.planning import hardware
from spectral_dd.planning.cost import Cost
from spectral_dd.planning.plan import plan_sweep
from spectral_dd.planning.prepare import prepare
from spectral_dd.sweeps import write_sweep

SCRIPTS = pathlib.Path(__file__).parent.parent / "experiments"


def run_script(script, *arguments):
    return cli.run_script([str(SCRIPTS / script), *map(str, arguments)])


def flags_of(axes):
    return [f"--{name}={','.join(map(str, np.atleast_1d(axis)))}" for name, axis in axes.items()]


@pytest.mark.usefixtures("fast_compile", "coarse")
def test_debug_runs_all_stages_here(small_axes, tmp_path, capsys):
    axes = small_axes | {"width": 2}
    evaluate = "--evaluate=--name=long --spectrum_points=16"
    arguments = [f"--workdir={tmp_path}/run", "--cluster=debug", "--tasks=2", "--tune=off", evaluate]
    assert run_script("submit.py", *arguments, *flags_of(axes)) == 0
    output, errors = capsys.readouterr()
    assert "train: done\nevaluate-long: done\nreport: done\n" in output
    assert "task 1 of 2 (--task_index): 1 of 2 packs" in errors
    assert sdd.load_results(tmp_path / "run", "long").energy.notnull().all()
    assert (tmp_path / "run" / "report.html").exists()
    assert "--task_index=0" in json.loads((tmp_path / "run" / "sweep.json").read_text())["provenance"]["command"]
    assert str(sdd.status(tmp_path / "run")).splitlines()[1:] == ["packs: 2 done", "spectra long: 2 of 2 packs"]


def test_local_runs_processes_here_and_again_those_that_fail(small_axes, tmp_path, capsys):
    """The costlier pack, which is that of task 0, cannot be written; the other is trained."""
    run = tmp_path / "run"
    prepared = prepare(expand(small_axes))
    write_sweep(run, plan_sweep(prepared, Cost(prepared.configs, prepared.datasets), min_packs=2))
    (run / "packs").mkdir()
    (run / "packs" / "001").touch()
    arguments = [f"--workdir={run}", "--cluster=local", "--tasks=2", "--tune=off", "--then=", *flags_of(small_axes)]
    assert run_script("submit.py", *arguments) == 1
    assert f"train: tasks 0 failed 3 times; logs: {run}/jobs\n" in capsys.readouterr().out
    logs = [path.read_text() for path in run.glob("jobs/*.out")]
    assert sum("task 1 of 2 (--task_index): 1 of 2 packs" in log for log in logs) == 1
    assert sum("Not a directory" in log for log in logs) == 3
    assert sdd.load_results(run).test_error.sel(epoch=12).notnull().sum() == 2


@pytest.mark.parametrize(
    ("here", "place", "processes", "gpus", "visible"),
    [
        (None, 1, 1, 0, [None]),
        ("2,3", 1, 2, 0, ["2,3", "2,3"]),
        (None, 1, 2, 1, ["2", "3"]),
        ("GPU-a,GPU-b,GPU-c", 1, 1, 2, ["GPU-c,GPU-a"]),
    ],
)
def test_processes_on_this_host_share_out_the_devices_that_are_visible(
    monkeypatch, here, place, processes, gpus, visible
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if here is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", here)
    assert cluster.visible_devices(place, processes, gpus) == visible


def test_the_script_is_one_of_bash_with_every_option_and_dependency(tmp_path, capsys):
    arguments = ["--tasks=4", "--partition=gpu", "--gpus=1", "--memory=32G", "--sbatch=--qos=high --exclusive"]
    arguments += ["--evaluate=--name=fine --spectrum_points=64", f"--workdir={tmp_path}/run", "--then=report,indicate"]
    assert run_script("submit.py", "--print_script", *arguments) == 0
    script = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for option in ("partition=gpu", "gpus-per-task=1", "mem=32G", "qos=high", "exclusive", "array=0-3", "requeue"):
        assert f"#SBATCH --{option}\n" in script
    assert '--dependency="aftercorr:$job0"' in script and '--dependency="afterany:$job0:$job1"' in script
    assert "--min_packs=4" in script
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "minutes"), [("90", 90), ("30:30", 31), ("2:00:00", 120), ("1-12", 2160), ("1-00:30:00", 1470)]
)
def test_a_time_limit_is_read_as_sbatch_reads_it(limit, minutes):
    assert cluster.minutes(limit) == minutes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time=soon"], "--time=soon: must be minutes, hours:minutes:seconds or days-hours:minutes:seconds"),
        (["--sbatch=qos"], "--sbatch=qos: qos: must be --option=value or --option"),
        (["--then=rapport"], "--then=rapport: must be among report, indicate"),
        (["--evaluate=--spectrum_points=16"], "--evaluate=--spectrum_points=16: --name: must be given"),
        (
            ["--evaluate=--name=x --spectrum_points=15"],
            "--evaluate=--name=x --spectrum_points=15: --spectrum_points=15",
        ),
        (["--evaluate=--name=x", "--evaluate=--name=x"], "--evaluate=--name=x: --name=x is given twice"),
        (["--width=0"], "--width=0: must be a whole number of at least 1"),
        (["--cluster=slum"], "slum"),
    ],
)
def test_what_cannot_be_submitted_is_answered_in_one_line(tmp_path, capsys, arguments, message):
    assert run_script("submit.py", f"--workdir={tmp_path}/run", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_other_gpus_than_a_process_has_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "_is_installed", lambda package: True)
    assert run_script("submit.py", f"--workdir={tmp_path}/run", "--gpus=2", "--target=h100", "--dry_run") == 2
    assert (
        "--target=h100: must be of as many GPUs as a process has, --gpus=2: --target=h100:2" in capsys.readouterr().err
    )


def test_without_slurm_the_answer_says_what_else_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="there is no sbatch on this host; --cluster=local runs the tasks here"):
        cluster.submit([], cluster.Resources(), tmp_path, "slurm")


def test_status_says_what_is_done_running_lost_and_failed(small, tmp_path, capsys):
    run = shutil.copytree(small, tmp_path / "run")
    (note,) = run.glob("packs/*/status.json")
    assert sdd.status(run).members == {"done": 4, "running": 0, "waiting": 0, "failed": 0}
    for record in run.glob("packs/*/records/12"):
        shutil.rmtree(record)
    facts = json.loads(note.read_text()) | {"state": "running", "time": time.time(), "seconds_left": 3700.0}
    facts |= {"diverged": 1, "examples_per_second": 1234.5, "bytes": 5_000_000}
    note.write_text(json.dumps(facts))
    assert sdd.status(run).line() == (
        "0 of 4 members done, 4 running, 1 diverged, 1,234 examples/s, 1:01:40 left, 5.0 MB on disk"
    )
    note.write_text(json.dumps(facts | {"time": time.time() - 2 * monitor.LOST_SECONDS}))
    assert "waiting" in sdd.status(run).line() and "ended 4 min ago" in sdd.status(run).problems[0]
    note.write_text(json.dumps(facts | {"state": "failed", "error": "disk full"}))
    (run / "jobs").mkdir()
    (run / "jobs" / "17_3.failures").write_text("with status 1 on n1, today\n" * 3)
    assert run_script("status.py", f"--runs={tmp_path}") == 0
    output = capsys.readouterr().out
    assert "pack 0: failed: disk full" in output
    assert "job 17_3: failed 3 times, last with status 1 on n1, today" in output
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sweep.json").write_text("{}")  # one that cannot be read hides no other
    assert run_script("status.py", f"--runs={tmp_path}") == 0
    output = capsys.readouterr().out
    assert f"{tmp_path}/other:\n    {tmp_path}/other/sweep.json: cannot be read" in output and "disk full" in output


def test_status_of_no_sweep_is_answered_in_one_line(tmp_path, capsys):
    assert run_script("status.py", f"--workdir={tmp_path}") == 2
    assert "holds no sweep" in capsys.readouterr().err
    assert run_script("status.py", f"--runs={tmp_path}") == 2
    assert f"--runs={tmp_path}: no sweep is below it" in capsys.readouterr().err


def test_a_refused_job_leaves_nothing_behind(small_axes, tmp_path, monkeypatch, capsys):
    programs, run = tmp_path / "bin", tmp_path / "run"
    for folder in (programs, run):
        folder.mkdir()
    for program in ("sbatch", "srun"):
        (programs / program).write_text("#!/bin/sh\necho 'sbatch: error: no controller answers' >&2\nexit 1\n")
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    arguments = [f"--workdir={run}", "--evaluate=--name=long --spectrum_points=16", *flags_of(small_axes)]
    assert run_script("submit.py", *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "submit.py: train: sbatch: error: no controller answers"
    assert list(run.iterdir()) == []
    (run / "jobs").mkdir()
    (run / "jobs" / "17_0.failures").write_text("of the jobs before\n")
    assert run_script("submit.py", *arguments) == 2
    assert [path.name for path in (run / "jobs").iterdir()] == ["17_0.failures"]


def test_ctrl_c_lets_the_tasks_here_save(small_axes, tmp_path):
    """As a terminal sends it: to submit.py, to what submitit starts and to the tasks, all at once."""
    run = tmp_path / "run"
    axes = small_axes | {"epochs": 100_000, "records_per_decade": 4, "seed": 0, "width": 2}
    command = [sys.executable, str(SCRIPTS / "submit.py"), f"--workdir={run}", "--cluster=local", "--then="]
    here = subprocess.Popen(
        [*command, "--tune=off", *flags_of(axes)], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while not [*run.glob("packs/000/records/10*")]:
        assert here.poll() is None
        time.sleep(0.1)
    os.killpg(here.pid, signal.SIGINT)
    _, errors = here.communicate(timeout=120)
    assert here.returncode == 128 + signal.SIGINT
    assert "SIGINT: passed on to the tasks; stopping as soon as the epoch is saved" in errors
    assert errors.splitlines()[-1] == (
        f"submit.py: train: its tasks have stopped; the same command goes on; logs: {run}/jobs"
    )
    (log,) = run.glob("jobs/*.out")
    assert f"saved in {run}" in log.read_text()
    with pytest.raises(ProcessLookupError):  # None is left of them.
        os.killpg(here.pid, 0)


def test_a_second_ctrl_c_ends_all_at_once(small_axes, tmp_path):
    """In the midst of an epoch of seconds; the second signal comes to submit.py alone."""
    run = tmp_path / "run"
    axes = small_axes | {"model": "mlp", "width": 1000, "batch_size": 1, "seed": 0, "spectrum_examples": 0}
    axes["train_size"] = 1000
    command = [sys.executable, str(SCRIPTS / "submit.py"), f"--workdir={run}", "--cluster=local", "--then="]
    here = subprocess.Popen(
        [*command, "--tune=off", *flags_of(axes)], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while not (run / "packs/000/records/0").exists():
        assert here.poll() is None
        time.sleep(0.1)
    os.killpg(here.pid, signal.SIGINT)
    for line in here.stderr:
        if "SIGINT: passed on to the tasks" in line:
            break
    os.kill(here.pid, signal.SIGINT)
    _, errors = here.communicate(timeout=120)
    assert here.returncode == 128 + signal.SIGINT
    assert errors.splitlines()[-1] == "submit.py: interrupted"
    with pytest.raises(ProcessLookupError):
        while True:  # until none is left of them
            os.killpg(here.pid, 0)
            time.sleep(0.1)
    (log,) = run.glob("jobs/*.out")
    assert "saved in" not in log.read_text() and log.read_text().endswith("train_sweep.py: interrupted\n")
    assert sdd.load_results(run).epoch.to_numpy().tolist() == [0]
