import os
import pathlib
import signal
import subprocess
import sys

import pytest

from spectral_dd import sweep
from spectral_dd.config import Config
from spectral_dd.errors import InputError

SCRIPTS = pathlib.Path(__file__).parent.parent / "experiments"


def test_axes_multiply_in_the_order_of_the_fields():
    configs = sweep.expand({"seed": [0, 1], "width": [2, 4], "epochs": [3]})
    assert [(c.width, c.seed) for c in configs] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    assert {c.epochs for c in configs} == {3}


@pytest.mark.parametrize("axes", [{"width": [4, 4]}, {"width": []}, {"learning_rate": ["1e-3", 0.001]}])
def test_an_axis_names_each_value_once(axes):
    with pytest.raises(InputError, match="must be one or more different values"):
        sweep.expand(axes)


@pytest.mark.parametrize("name", sweep.PRESETS)
def test_every_preset_constructs(name):
    assert sweep.expand(sweep.PRESETS[name])


def make_sweep(configs):
    return sweep.Sweep(configs, [list(range(len(configs)))], [1.0], [{} for _ in configs], {}, {"command": "x"})


def test_sweep_json_round_trip(tmp_path):
    written = make_sweep(sweep.expand({"width": [1, 2], "learning_rate": [1 / 3]}))
    sweep.write_sweep(tmp_path / "new" / "run", written)
    assert sweep.read_sweep(tmp_path / "new" / "run") == written


def test_of_two_processes_that_start_a_sweep_one_wins_and_both_get_its_packs(tmp_path):
    configs = sweep.expand({"width": [1, 2]})
    first = sweep.write_sweep(tmp_path, make_sweep(configs))
    second = sweep.write_sweep(tmp_path, sweep.Sweep(configs, [[0], [1]], [1.0, 1.0], [{}, {}], {}, {"command": "y"}))
    assert second == first
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.json"]


def test_a_directory_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="has files but no sweep"):
        sweep.check_workdir(tmp_path, [Config()])


def test_a_damaged_sweep_json_is_named(tmp_path):
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a sweep"):
        sweep.read_sweep(tmp_path)


def start(script, *arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


BAD_COMMANDS = {
    "--width=0": ": --width=0: must be a whole number of at least 1",
    "--width=2,x": ": --width=x: must be a whole number of at least 1",
    "--preset=digit": "Did you mean 'digits'?",
    "--model=cnn": "Did you mean 'cnn5'?",
    "--model=vgg11": "images are 8x8 with 1 channel; --model=vgg11 needs 32x32 at least",
    "--channels=3": "images are 8x8 with 1 channel; --channels=3: must be 1, or 0 for any",
    "--shift=8": "--shift=8: must be below 8",
    "--widht=3": "Unknown command line flag 'widht'. Did you mean: width ?",
    "--label_noise=1.5": "must be a number from 0 to 1",
    "--train_size=5000": "--train_size=5000",
    "--batch_size=700": "--batch_size=700: larger than the training set (--train_size=600)",
    "--dataset=diggits": "--dataset=diggits",
    "--dataset=mnist": "download_and_prepare()",
    "--task_index=2": "--task_index=2: must be a whole number from 0 to --task_count - 1",
    "width=3": "width=3: not a flag; flags are written --name=value",
}


def test_bad_input_is_answered_by_one_line_status_2_and_nothing_written(tmp_path):
    arguments = [f"--workdir={tmp_path}/new", f"--data_dir={tmp_path}/data"]
    processes = {bad: start("train_sweep.py", *arguments, bad) for bad in BAD_COMMANDS}
    processes["no workdir"] = start("train_sweep.py")
    processes["under a file"] = start("train_sweep.py", f"--workdir={__file__}/run")
    processes["no sweep"] = start("report.py", f"--workdir={tmp_path}")
    expected = BAD_COMMANDS | {
        "no workdir": "--workdir",
        "under a file": "is not a directory",
        "no sweep": "holds no sweep",
    }
    for bad, process in processes.items():
        output, errors = process.communicate(timeout=300)
        lines = [line for line in errors.splitlines() if line]
        assert process.returncode == 2, (bad, errors)
        assert len(lines) == 1, (bad, errors)
        assert expected[bad] in lines[0]
        assert output == ""
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_the_output_may_stop_reading(tmp_path):
    process = start("train_sweep.py", f"--workdir={tmp_path}/new", "--width=1,2", "--dry_run")
    process.stdout.close()
    assert process.wait(timeout=300) == 128 + signal.SIGPIPE
    assert process.stderr.read() == ""


def test_dry_run_and_help_train_nothing(tmp_path):
    dry = start("train_sweep.py", f"--workdir={tmp_path}/new", "--width=1,2", "--dry_run")
    usage = start("train_sweep.py", "--help")
    output, errors = dry.communicate(timeout=300)
    assert dry.returncode == 0, errors
    assert "2 members in 1 packs" in output
    assert list(tmp_path.iterdir()) == []
    output, _ = usage.communicate(timeout=300)
    for name in (*sweep.FIELDS, "preset", "workdir"):
        assert f"--{name}" in output or f"--[no]{name}" in output
