"""What a sweep says that it was made by."""

import pathlib
import sys

import pytest

from spectral_dd.provenance import arguments, call, command, shell


@pytest.mark.parametrize(
    ("recorded", "again"),
    [
        (
            "experiments/train_sweep.py --workdir='a b' --flip",
            "python experiments/train_sweep.py '--workdir=a b' --flip",
        ),
        ("/opt/bin/spectral-dd train_sweep --seed 1 --flip", "spectral-dd train_sweep --seed=1 --flip"),
        ("/opt/spectral_dd/__main__.py train_sweep", "python -m spectral_dd train_sweep"),
    ],
)
def test_a_shell_runs_it_again(recorded, again):
    assert shell(call(recorded), arguments(recorded)) == again


@pytest.mark.parametrize("recorded", ["/opt/ipykernel_launcher.py -f kernel.json", "", "no 'quote"])
def test_a_notebook_is_no_command(recorded):
    assert call(recorded) == []


def test_another_script_is_called_as_the_one_beside_it():
    assert call("experiments/train_sweep.py --seed=1", "report") == ["python", "experiments/report.py"]


SCRIPTS = pathlib.Path(__file__).parent.parent / "experiments"


@pytest.mark.parametrize(
    ("running", "line"),
    [
        (f"{SCRIPTS}/verify.py", f"python {SCRIPTS}/report.py --workdir=a"),
        ("/opt/bin/spectral-dd", "spectral-dd report --workdir=a"),
        ("/opt/spectral_dd/__main__.py", "python -m spectral_dd report --workdir=a"),
        ("/opt/ipykernel_launcher.py", "spectral-dd report --workdir=a"),
    ],
)
def test_what_is_to_be_called_next_is_called_as_what_runs_now(monkeypatch, running, line):
    monkeypatch.setattr(sys, "argv", [running, "--flag"])
    assert command("report", workdir="a") == line
