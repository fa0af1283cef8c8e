import configparser
import io
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import spectral_dd as sdd
from spectral_dd import cli, provenance
from spectral_dd.__main__ import main
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


def test_dry_run_and_help_train_nothing(tmp_path, capsys):
    assert run_script("train_sweep.py", f"--workdir={tmp_path}/new", "--width=1,2", "--dry_run") == 0
    assert "2 members in 1 pack" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert run_script("train_sweep.py", "--help") == 0
    output = capsys.readouterr().out
    assert "double descent on the embedded digits" in output
    for name in (*FIELDS, "preset", "workdir", "members"):
        assert f"--{name}" in output or f"--[no]{name}" in output


def test_the_dry_run_says_where_each_value_comes_from(tmp_path, capsys):
    (tmp_path / "members.csv").write_text("width,learning_rate\n2,0.01\n3,0.001\n")
    arguments = ["--dry_run", f"--members={tmp_path}/members.csv", "--seed=0-3,7", "--flip"]
    assert run_script("train_sweep.py", f"--workdir={tmp_path}/new", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["flags: seed=0,1,2,3,7 flip=True", "table of members: width learning_rate"]
    assert lines[2].startswith("preset digits: model=cnn5 dataset=digits train_size=600 label_noise=0.15")
    assert lines[3].startswith("defaults: data_seed=-1 ") and "train_size" not in lines[3]


def test_a_terminal_of_ascii_gets_what_it_can_show(tmp_path, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert run_script("train_sweep.py", f"--workdir={tmp_path}/é", "--width=1", "--dry_run") == 0
    assert rb"new sweep in" in written.getvalue() and rb"\xe9" in written.getvalue()


def test_the_verbs_of_spectral_dd_are_the_scripts(tmp_path, monkeypatch, capsys):
    def spectral_dd(*arguments):
        monkeypatch.setattr(sys, "argv", ["/bin/spectral-dd", *arguments])
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        try:
            status = main()
        except SystemExit as end:  # of a script
            status = end.code
        finally:
            signal.signal(signal.SIGINT, on_ctrl_c)
        return status, *capsys.readouterr()

    assert spectral_dd("report", f"--workdir={tmp_path}")[::2] == (
        2, f"report.py: --workdir={tmp_path}: holds no sweep (no sweep.json); spectral-dd train_sweep makes one\n"
    )  # fmt: skip
    assert provenance.command("report", workdir="a b") == "spectral-dd report '--workdir=a b'"
    status, out, _ = spectral_dd()
    assert status == 0 and "train_sweep " in out and "results " not in out
    status, out, err = spectral_dd("trainsweep")
    assert (status, out) == (2, "") and err.endswith("Did you mean 'train_sweep'?\n")
    status, out, _ = spectral_dd("--version")
    assert status == 0 and f"jax {jax.__version__}" in out and "devices: 4 x cpu" in out


def test_a_wheel_holds_every_package_and_the_scripts():
    setup = configparser.ConfigParser()
    setup.read(SCRIPTS.parent / "setup.cfg")
    package = pathlib.Path(sdd.__file__).parent
    rooms = {f"spectral_dd.{path.parent.name}" for path in package.glob("*/__init__.py")}
    listed = setup["options"]["packages"].split()
    assert listed == sorted({"spectral_dd", "spectral_dd.experiments", *rooms})


@pytest.mark.usefixtures("fast_compile")
def test_a_table_of_members_trains_as_a_sweep_and_says_what_comes_next(tmp_path, small_axes, capsys):
    (tmp_path / "members.csv").write_text("width,learning_rate\n2,0.01\n3,0.001\n")
    axes = {name: values for name, values in small_axes.items() if name != "width"} | {"seed": 0, "epochs": 1}
    arguments = [f"--workdir={tmp_path}/run", f"--members={tmp_path}/members.csv", *flags_of(axes)]
    assert run_script("train_sweep.py", *arguments) == 0
    assert f"results are in {tmp_path}/run; next: " in capsys.readouterr().err
    ds = sdd.load_results(tmp_path / "run")
    assert list(zip(ds.width.values, ds.learning_rate.values, strict=True)) == [(2, 0.01), (3, 0.001)]
    assert ds.test_error.notnull().all()


@pytest.mark.usefixtures("fast_compile", "coarse")
def test_the_scripts_evaluate_spectra_draw_a_report_and_answer(small, tmp_path, capsys):
    shutil.copytree(small, tmp_path / "run")
    workdir = f"--workdir={tmp_path / 'run'}"
    settings = ("--spectrum_points=16", "--spectrum_half_width=1,2")
    assert run_script("evaluate_spectrum.py", workdir, "--name=long", *settings) == 0
    np.testing.assert_allclose(sdd.load_results(tmp_path / "run", "long-h1").frequency, np.arange(9) / 2)
    assert run_script("report.py", workdir, "--spectrum=long-h2") == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "run" / "spectra" / "long-h2" / "report.html").read_text()
    assert "data:image/png;base64," in page and "run: spectra long-h2" in page
    assert not (tmp_path / "run" / "report.html").exists()
    assert run_script("indicate.py", workdir) == 0
    assert "Standard error of the mean energy" in capsys.readouterr().out


def test_a_reader_of_the_output_may_stop_reading(tmp_path):
    process = start("train_sweep.py", f"--workdir={tmp_path}/new", "--width=1,2", "--dry_run")
    process.stdout.close()
    assert process.wait(timeout=300) == 128 + signal.SIGPIPE
    assert all("planning: " in line for line in process.stderr)  # on a slow machine


def test_tasks_that_start_at_the_same_time_share_a_new_directory(small, small_axes, tmp_path, capsys):
    arguments = [f"--workdir={tmp_path / 'run'}", "--task_count=3", "--min_packs=2", *flags_of(small_axes)]
    tasks = [start("train_sweep.py", *arguments, f"--task_index={i}") for i in range(2)]
    errors = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], errors
    assert len(read_sweep(tmp_path / "run").packs) == 2
    assert run_script("train_sweep.py", *arguments, "--task_index=2") == 0
    assert "task 2 of 3 (--task_index): none of 2 packs\n" in capsys.readouterr().err
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


def test_the_command_answers_what_is_wrong_with_a_flag_before_jax_is_imported():
    """So does Ctrl-C, which in the middle of an import would be a traceback."""
    said = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True)
    assert said.stderr.splitlines() == ["train_sweep.py: --width=0: must be a whole number of at least 1"]
    assert said.stdout.split() == ["2", "False"]


EARLY = """
import sys
from spectral_dd.__main__ import main
sys.argv = ["spectral-dd", "train_sweep", "--workdir=x", "--width=0"]
try:
    main()
except SystemExit as ended:
    print(ended.code, "jax" in sys.modules)
"""
