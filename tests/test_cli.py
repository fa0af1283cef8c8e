import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import spectral_dd as sdd
from spectral_dd import cli
from spectral_dd.config import FIELDS
from spectral_dd.sweeps import read_sweep

SCRIPTS = pathlib.Path(__file__).parent.parent / "experiments"


def run_script(script, *arguments):
    return cli.run_script([str(SCRIPTS / script), *arguments])


def start(script, *arguments):
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def flags_of(axes):
    return [f"--{name}={','.join(map(str, np.atleast_1d(axis)))}" for name, axis in axes.items()]


OWN_MODEL = """
import flax.linen as nn

class Narrow(nn.Module):
    num_classes: int

class Broken(
"""
BAD_COMMANDS = {
    "--width=0": ": --width=0: must be a whole number of at least 1",
    "--width=2,x": ": --width=x: must be a whole number of at least 1",
    "--preset=digit": "Did you mean 'digits'?",
    "--model=cnn": "Did you mean 'cnn5'?",
    "--model=vgg11": "images are 8x8 with 1 channel; --model=vgg11 needs 32x32 at least",
    "--model={here}/none.py:Net": "--model={here}/none.py:Net: ",
    "--model={here}/own.py:Net": "--model={here}/own.py:Net: ",
    "--model={here}/own.py:Narrow": "--model={here}/own.py:Narrow: ",
    "--model={here}/broken.py:Net": "--model={here}/broken.py:Net: ",
    "--channels=3": "images are 8x8 with 1 channel; --channels=3: must be 1, or 0 for any",
    "--shift=8": "--shift=8: must be below 8",
    "--widht=3": "Unknown command line flag 'widht'. Did you mean: width ?",
    "--label_noise=1.5": "must be a number from 0 to 1",
    "--train_size=5000": "--train_size=5000",
    "--batch_size=700": "--batch_size=700: larger than the training set (--train_size=600)",
    "--dataset=diggits": "--dataset=diggits",
    "--dataset=mnist": "download_and_prepare()",
    "--dataset={here}/unequal.npz": "--dataset={here}/unequal.npz: ",
    "--members={here}/none.csv": "--members={here}/none.csv: cannot be read: No such file or directory",
    "--members={here}/members.csv": "--members={here}/members.csv: line 2, column width: is empty",
    "--task_index=2": "--task_index=2: must be a whole number from 0 to --task_count - 1",
    "--task_count=0": "--task_count=0",
    "width=3": "width=3: not a flag; flags are written --name=value",
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Files that cannot work."""
    here = tmp_path_factory.mktemp("files")
    narrow, broken = OWN_MODEL.split("class Broken")
    (here / "own.py").write_text(narrow)
    (here / "broken.py").write_text(narrow + "class Broken" + broken)
    (here / "members.csv").write_text("width,seed\n,1\n")
    images = np.zeros((10, 8, 8, 1), np.uint8)
    np.savez(here / "unequal.npz", train_images=images, train_labels=np.zeros(9, int), test_images=images,
             test_labels=np.zeros(10, int))  # fmt: skip
    return here


@pytest.mark.parametrize("bad", BAD_COMMANDS)
def test_bad_input_is_answered_by_one_line_status_2_and_nothing_written(tmp_path, capsys, here, bad):
    arguments = [f"--workdir={tmp_path}/new", f"--data_dir={tmp_path}/data", bad.format(here=here)]
    assert run_script("train_sweep.py", *arguments) == 2
    answered_in_one_line(capsys, BAD_COMMANDS[bad].format(here=here))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "flag", "message"),
    [
        ("train_sweep.py", "", "--workdir"),
        ("train_sweep.py", f"--workdir={__file__}/run", "is not a directory"),
        ("report.py", "--workdir={tmp_path}", "holds no sweep"),
        ("indicate.py", "--workdir={tmp_path}", "holds no sweep"),
        ("evaluate_spectrum.py", "--workdir={tmp_path}", "--name"),
    ],
)
def test_a_workdir_that_cannot_be_is_answered_likewise(tmp_path, capsys, script, flag, message):
    assert run_script(script, *filter(None, [flag.format(tmp_path=tmp_path)])) == 2
    answered_in_one_line(capsys, message)
    assert list(tmp_path.iterdir()) == []


def answered_in_one_line(capsys, message):
    output, errors = capsys.readouterr()
    (line,) = [line for line in errors.splitlines() if line]
    assert message in line and output == ""


def test_dry_run_and_help_train_nothing(tmp_path, capsys):
    assert run_script("train_sweep.py", f"--workdir={tmp_path}/new", "--width=1,2", "--dry_run") == 0
    assert "2 members in 1 packs" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert run_script("train_sweep.py", "--help") == 0
    output = capsys.readouterr().out
    assert "double descent on the embedded digits" in output
    for name in (*FIELDS, "preset", "workdir", "members"):
        assert f"--{name}" in output or f"--[no]{name}" in output


def test_a_table_of_members_trains_as_a_sweep(tmp_path, small_axes):
    (tmp_path / "members.csv").write_text("width,learning_rate\n2,0.01\n3,0.001\n")
    axes = {name: values for name, values in small_axes.items() if name != "width"} | {"seed": 0, "epochs": 1}
    arguments = [f"--workdir={tmp_path}/run", f"--members={tmp_path}/members.csv", *flags_of(axes)]
    assert run_script("train_sweep.py", *arguments) == 0
    ds = sdd.load_results(tmp_path / "run")
    assert list(zip(ds.width.values, ds.learning_rate.values, strict=True)) == [(2, 0.01), (3, 0.001)]
    assert ds.test_error.notnull().all()


def test_the_scripts_evaluate_spectra_draw_a_report_and_answer(small, tmp_path, capsys):
    shutil.copytree(small, tmp_path / "run")
    workdir = f"--workdir={tmp_path / 'run'}"
    settings = ("--spectrum_points=16", "--spectrum_half_width=1,2")
    assert run_script("evaluate_spectrum.py", workdir, "--name=long", *settings) == 0
    np.testing.assert_allclose(sdd.load_results(tmp_path / "run", "long-h1").frequency, np.arange(9) / 2)
    assert run_script("report.py", workdir, "--spectrum=long-h2") == 0
    assert "report.html" in capsys.readouterr().out
    assert "data:image/png;base64," in (tmp_path / "run" / "report.html").read_text()
    assert run_script("indicate.py", workdir) == 0
    assert "Standard error of the mean energy" in capsys.readouterr().out


def test_a_reader_of_the_output_may_stop_reading(tmp_path):
    process = start("train_sweep.py", f"--workdir={tmp_path}/new", "--width=1,2", "--dry_run")
    process.stdout.close()
    assert process.wait(timeout=300) == 128 + signal.SIGPIPE
    assert process.stderr.read() == ""


def test_tasks_that_start_at_the_same_time_share_a_new_directory(small, small_axes, tmp_path):
    arguments = [f"--workdir={tmp_path / 'run'}", "--task_count=3", "--min_packs=2", *flags_of(small_axes)]
    tasks = [start("train_sweep.py", *arguments, f"--task_index={i}") for i in range(3)]
    errors = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0], errors
    assert len(read_sweep(tmp_path / "run").packs) == 2
    assert errors[2] == "no pack is left for --task_index=2: the sweep has 2\n"
    ours, theirs = sdd.load_results(tmp_path / "run"), sdd.load_results(small)
    assert not ours.test_error.isnull().any()
    # Other packs, other padding: sums are rounded otherwise, which later epochs amplify.
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(ours[name].sel(epoch=[0, 1]), theirs[name].sel(epoch=[0, 1]), rtol=1e-3)
    np.testing.assert_allclose(ours.energy.sel(epoch=0), theirs.energy.sel(epoch=0), rtol=1e-3)


def test_ctrl_c_saves_says_how_to_go_on_and_the_same_command_does(small_axes, tmp_path):
    arguments = [f"--workdir={tmp_path / 'run'}", *flags_of(small_axes | {"epochs": 20000})]
    process = start("train_sweep.py", *arguments)
    while process.poll() is None and not list((tmp_path / "run").glob("packs/*/records/5")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"SIGINT: saved in {tmp_path / 'run'}; the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert sdd.load_results(tmp_path / "run").epoch[-1] < 20000
    assert run_script("train_sweep.py", *arguments) == 0
    assert not sdd.load_results(tmp_path / "run").test_error.isnull().any()
