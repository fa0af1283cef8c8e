"""What a sweep says that it was made by."""

import pytest

from spectral_dd.provenance import shell_command


@pytest.mark.parametrize(
    ("recorded", "again"),
    [
        ("experiments/train_sweep.py --workdir='a b'", ["python", "experiments/train_sweep.py", "--workdir=a b"]),
        ("/opt/bin/spectral-dd train_sweep --seed=1", ["/opt/bin/spectral-dd", "train_sweep", "--seed=1"]),
        ("/opt/spectral_dd/__main__.py train_sweep", ["python", "-m", "spectral_dd", "train_sweep"]),
        ("/opt/ipykernel_launcher.py -f kernel.json", []),
        ("", []),
    ],
)
def test_a_shell_runs_it_again_unless_it_was_a_notebook(recorded, again):
    assert shell_command(recorded) == again
