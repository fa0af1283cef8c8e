"""Jobs on a real Slurm of two nodes; skipped where it is not installed."""

import pathlib

import numpy as np
import pytest
import submitit  # noqa: F401 (here, because it closes the streams of logging, which in a test are those of capsys)

import slurm as local_slurm
import spectral_dd as sdd
from helpers import assert_identical, everything
from spectral_dd import cli

pytestmark = pytest.mark.skipif(bool(local_slurm.missing()), reason=local_slurm.missing())

SCRIPTS = pathlib.Path(__file__).parent.parent / "experiments"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with local_slurm.Slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def many_records():
    """Two members, and so many records that training is at one at almost any time."""
    return {
        "model": "mlp",
        "width": 2,
        "seed": [0, 1],
        "train_size": 96,
        "batch_size": 32,
        "epochs": 3000,
        "label_noise": 0.2,
        "records_per_decade": 60,
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
    """A requeued job need not wait as long as credentials live."""
    slurm.wait_for(lambda: slurm.state(job) == "PENDING", 100)
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")


def test_an_array_trains_then_evaluates_task_by_task_then_reports(slurm, small_axes, tmp_path, capsys):
    evaluate = "--evaluate=--name=long --spectrum_points=16"
    jobs = submit(capsys, tmp_path / "run", "--tasks=4", evaluate, *flags_of(small_axes))
    assert list(jobs) == ["train", "evaluate-long", "report"]
    slurm.wait_for(lambda: slurm.state(jobs["report"]) == "COMPLETED", 300)
    assert "task 3 of 4 (--task_index): 1 of 4 packs" in logs(tmp_path / "run")
    assert sdd.load_results(tmp_path / "run").test_error.notnull().all()
    assert sdd.load_results(tmp_path / "run", "long").energy.notnull().all()
    assert (tmp_path / "run" / "report.html").exists()
    status = sdd.status(tmp_path / "run")
    assert status.members == {"done": 4, "running": 0, "waiting": 0, "failed": 0}
    assert status.spectra == {"long": 4} and status.problems == []


def test_a_job_that_is_requeued_and_loses_its_node_ends_bit_identical(slurm, many_records, tmp_path, capsys):
    sdd.train(tmp_path / "undisturbed", sdd.sweep(**many_records), tune=False)
    run = tmp_path / "run"
    job = submit(capsys, run, "--then=", *flags_of(many_records))["train"]
    slurm.wait_for(lambda: newest(run) > 10, 200)
    slurm.ask("scontrol", "requeue", job)
    release(slurm, job)
    stopped_at = newest(run)
    assert 10 < stopped_at < many_records["epochs"]
    slurm.wait_for(lambda: newest(run) > stopped_at, 200)
    node = slurm.ask("squeue", "-h", "-j", job, "-o", "%N")
    slurm.lose(node, job)
    release(slurm, job)
    assert newest(run) < many_records["epochs"]
    slurm.wait_for(lambda: slurm.state(job) == "COMPLETED", 200)
    slurm.bring_back(node)
    assert_identical(everything(run), everything(tmp_path / "undisturbed"))
