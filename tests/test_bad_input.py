"""What cannot work is answered by one line and status 2, and nothing is written."""

import numpy as np
import pytest

from spectral_dd import progress
from test_cli import run_script

TRAIN, EVALUATE, REPORT, INDICATE = "train_sweep.py", "evaluate_spectrum.py", "report.py", "indicate.py"

# Script, what it is told, and what its line says. {new}: a directory that does not exist, {here}: files that cannot
# work, {run}: a sweep. Where no --workdir is named, it is {new}.
BAD_INPUT = [
    # Flags.
    (TRAIN, "--workdir=", "--workdir=: must name a directory"),
    (TRAIN, "--workdir --dry_run", "--workdir: has no value"),
    (TRAIN, "--widht=3", "--widht: is no flag; --help lists them. Did you mean 'width'?"),
    (TRAIN, "width=3", "width=3: not a flag; flags are written --name=value"),
    (TRAIN, "--width=2 --width=4", "--width: is given 2 times; give it once"),
    (TRAIN, "--preset=digits --preset=none", "--preset: is given 2 times; give it once"),
    (TRAIN, "--flip --noflip", "--flip: is given 2 times; give it once"),
    (TRAIN, "--dry_run=perhaps", "--dry_run"),
    (TRAIN, "--noflip=true", "--noflip=true does not take an argument"),
    (TRAIN, "--save_minutes=x", "--save_minutes=x: could not convert"),
    (TRAIN, "--task_index=0", "--task_index=0: is one task's number; --task_count says how many there are"),
    (TRAIN, "--flagfile={here}/none", "Unable to open flagfile"),
    (REPORT, "somewhere", "somewhere: not a flag; flags are written --name=value"),
    (REPORT, "--workdir={here},{here}", "must be different; "),
    (REPORT, "--workdir={here}/unequal.npz", "holds no sweep (no sweep.json)"),
    (TRAIN, "--task_index=2 --task_count=2", "--task_index=2: must be a whole number from 0 to --task_count - 1"),
    (TRAIN, "--task_count=0", "--task_count=0"),
    (TRAIN, "--save_minutes=-1", "--save_minutes=-1"),
    (TRAIN, "--tune=on", "--tune=on"),
    (EVALUATE, "--workdir={here}", "--name: must be given"),
    (REPORT, "--workdir={here} --normalisation=phase", "--normalisation=phase"),
    # Values of fields.
    (TRAIN, "--width=0", "--width=0: must be a whole number of at least 1"),
    (TRAIN, "--width=", "--width=: must be a whole number of at least 1"),
    (TRAIN, "--width=2,x", "--width=x: must be a whole number of at least 1"),
    (TRAIN, "--width=2,4,2", "--width=2,4,2: must be one or more different values"),
    (TRAIN, "--width=1-9999999", "--width=1-9999999: a range is written 0-4"),
    (TRAIN, "--seed=0:5", "--seed=0:5: a range is written 0-4, for 0,1,2,3,4"),
    (TRAIN, "--seed=4-0", "--seed=4-0: a range is written 0-4"),
    (TRAIN, "--seed=1.5", "--seed=1.5: must be a whole number from 0 to 2147483647"),
    (TRAIN, "--seed=-1", "--seed=-1: must be a whole number from 0 to 2147483647"),
    (TRAIN, "--data_seed=-2", "--data_seed=-2: must be a whole number from -1 to 2147483647"),
    (TRAIN, "--flip=perhaps", "--flip=perhaps: must be true or false"),
    (TRAIN, "--learning_rate=inf", "--learning_rate=inf: must be a number of at least 0"),
    (TRAIN, "--momentum=2", "--momentum=2: must be a number from 0 to 1"),
    (TRAIN, "--epochs=0", "--epochs=0: must be a whole number of at least 1"),
    (TRAIN, "--optimizer=adm", "--optimizer=adm: must be one of adam, adamw, sgd. Did you mean 'adam'?"),
    (TRAIN, "--schedule=linear", "--schedule=linear: must be one of constant, inverse_sqrt, cosine"),
    (TRAIN, "--noise_kind=permuted", "Did you mean 'permute'?"),
    (TRAIN, "--dtype=float16", "--dtype=float16: must be one of float32, bfloat16, float64"),
    (TRAIN, "--label_noise=1.5", "--label_noise=1.5: must be a number from 0 to 1"),
    (TRAIN, "--spectrum_points=31", "--spectrum_points=31: must be even"),
    (TRAIN, "--spectrum_half_width=0", "--spectrum_half_width=0: must be a number from 1e-06 to 1000000.0"),
    (TRAIN, "--spectrum_half_width=1e39", "--spectrum_half_width=1e39: must be a number from 1e-06 to"),
    (TRAIN, "--spectrum_half_width=1e-50", "--spectrum_half_width=1e-50: must be a number from 1e-06 to"),
    (TRAIN, "--spectrum_half_width=0.5,0.50", "--spectrum_half_width=0.5,0.5: must be one or more different values"),
    (TRAIN, "--spectrum_direction=adversarial --spectrum_directions=2", "--spectrum_directions=2: must be 1"),
    (TRAIN, "--spectrum_budget=2", "--spectrum_budget=2: must be a number from 0 to 1"),
    # Presets, models, data sets and tables.
    (TRAIN, "--preset=digit", "--preset=digit: must be one of auto, none, digits, "),
    (TRAIN, "--model=cnn", "Did you mean 'cnn5'?"),
    (TRAIN, "--model=vgg11", "images are 8x8 with 1 channel; --model=vgg11 needs 32x32 at least"),
    (TRAIN, "--model={here}/none.py:Net", "--model={here}/none.py:Net: "),
    (TRAIN, "--model={here}/own.py:Net", "--model={here}/own.py:Net: "),
    (TRAIN, "--model={here}/own.py:Narrow", "--model={here}/own.py:Narrow: "),
    (TRAIN, "--model={here}/broken.py:Net", "--model={here}/broken.py:Net: "),
    (TRAIN, "--model=~no-such-user/own.py:Net", "~no-such-user/own.py: '~' stands for no home directory here"),
    (TRAIN, "--dataset=diggits", "--dataset=diggits"),
    (TRAIN, "--dataset=", "--dataset=: must be digits, mnist1d, FILE.npz, hf:NAME or"),
    (TRAIN, "--dataset=hf:", "--dataset=hf:: must be hf:NAME of the hub or hf:FOLDER"),
    (TRAIN, "--dataset=hf:{here}/own.py", "--dataset=hf:{here}/own.py: must be hf:NAME of the hub or hf:FOLDER"),
    (TRAIN, "--dataset=hf:{here}/none", "--dataset=hf:{here}/none: must be hf:NAME of the hub or hf:FOLDER"),
    (TRAIN, "--dataset=hf:{here}/damaged", "--dataset=hf:{here}/damaged: cannot be read by Hugging Face's datasets: "),
    (TRAIN, "--dataset={here}/channels.npz", "which np.moveaxis(images, 1, -1) mends"),
    (TRAIN, "--model=mlp --epochs=1000000000", "--epochs=1000000000: are "),
    (TRAIN, "--dataset=mnist", "download_and_prepare()"),
    (TRAIN, "--dataset={here}/none.npz", "--dataset={here}/none.npz: "),
    (TRAIN, "--dataset={here}/unequal.npz", "--dataset={here}/unequal.npz: "),
    (TRAIN, "--channels=3", "images are 8x8 with 1 channel; --channels=3: must be 1, or 0 for any"),
    (TRAIN, "--shift=8", "--shift=8: must be below 8"),
    (TRAIN, "--train_size=5000", "--train_size=5000: digits has 1000 training examples"),
    (TRAIN, "--batch_size=700", "--batch_size=700: larger than the training set (--train_size=600)"),
    (TRAIN, "--train_size=0,1000", "--train_size=0: means all of the data, which the sweep names already"),
    (TRAIN, "--members={here}/none.csv", "--members={here}/none.csv: cannot be read: No such file or directory"),
    (TRAIN, "--members={here}", "--members={here}: cannot be read: Is a directory"),
    (TRAIN, "--members={here}/members.csv", "--members={here}/members.csv: line 2, column width: is empty"),
    (TRAIN, "--members={here}/column.csv", "line 1, column 'wdth': is no field of a member. Did you mean 'width'?"),
    (TRAIN, "--members={here}/range.csv", "line 2, column seed: --seed=0-4: must be a whole number"),
    (TRAIN, "--members={here}/table.csv --seed=1", "--seed: is a column of the table of members too"),
    # Directories.
    (TRAIN, "", "--workdir: must be given"),
    (TRAIN, "--workdir={here}", "--workdir={here}: has files but no sweep.json"),
    (TRAIN, "--workdir={here}/own.py/run", "own.py is not a directory"),
    (TRAIN, "--workdir={here}/run[1]", "run[1]: must be without [ ]"),
    (REPORT, "--workdir={here}", "holds no sweep"),
    (INDICATE, "--workdir={here}", "holds no sweep"),
    (EVALUATE, "--workdir={here} --name=fine", "holds no sweep"),
    # A sweep that is there.
    (TRAIN, "--workdir={run}", "holds a different sweep"),
    (REPORT, "--workdir={run} --spectrum=nope", "--spectrum=nope: "),
    (INDICATE, "--workdir={run} --spectrum=nope", "--spectrum=nope: "),
    (INDICATE, "--workdir={run} --spectrum=..", "--spectrum=..: must be letters"),
    (INDICATE, "--workdir={run} --first_bin=5", "--first_bin=5: must be from 1 to 4"),
    (EVALUATE, "--workdir={run} --name=a/b", "--name=a/b: must be letters"),
    (EVALUATE, "--workdir={run} --name=a --spectrum_points=8,16", "--spectrum_points=8,16: must be one value"),
    (EVALUATE, "--workdir={run} --name=a --spectrum_half_width=1,1.0", "--spectrum_half_width=1.0,1.0: must be diff"),
    (EVALUATE, "--workdir={run} --name=a --spectrum_examples=0", "--spectrum_examples=0: must be at least 1"),
]

OWN_MODEL = """
import flax.linen as nn

class Narrow(nn.Module):
    num_classes: int
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    here = tmp_path_factory.mktemp("files")
    (here / "own.py").write_text(OWN_MODEL)
    (here / "broken.py").write_text(OWN_MODEL + "class Broken(")
    (here / "members.csv").write_text("width,seed\n,1\n")
    (here / "column.csv").write_text("wdth\n1\n")
    (here / "table.csv").write_text("seed\n1\n")
    (here / "range.csv").write_text("seed\n0-4\n")
    images = np.zeros((10, 8, 8, 1), np.uint8)
    np.savez(here / "unequal.npz", train_images=images, train_labels=np.zeros(9, int), test_images=images,
             test_labels=np.zeros(10, int))  # fmt: skip
    (here / "damaged").mkdir()
    (here / "damaged" / "train.parquet").write_bytes(b"no")
    channels = np.zeros((10, 3, 8, 8), np.uint8)
    np.savez(here / "channels.npz", train_images=channels, train_labels=np.arange(10) % 2, test_images=channels,
             test_labels=np.zeros(10, int))  # fmt: skip
    return here


def files_below(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.mark.parametrize(("script", "told", "message"), BAD_INPUT)
def test_bad_input_is_answered_by_one_line_status_2_and_nothing_written(
    script, told, message, tmp_path, here, request, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "SILENCE_SECONDS", 600.0)  # a slow machine has more to say
    run = request.getfixturevalue("small") if "{run}" in told else tmp_path
    new = tmp_path / "new"
    arguments = told.format(new=new, here=here, run=run).split()
    if script == TRAIN and told and "--workdir" not in told:
        arguments = [f"--workdir={new}", f"--data_dir={tmp_path}/data", *arguments]
    capsys.readouterr()  # what training {run} said
    before = [files_below(directory) for directory in (tmp_path, here, run)]
    assert run_script(script, *arguments) == 2
    output, errors = capsys.readouterr()
    (line,) = [line for line in errors.splitlines() if line]
    assert message.format(here=here) in line and output == ""
    assert [files_below(directory) for directory in (tmp_path, here, run)] == before
