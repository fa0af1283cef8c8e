"""Names of hardware, and small programs compiled for it where the compilers are installed."""

import numpy as np
import pytest

from spectral_dd.cli import run_script
from spectral_dd.config import Config
from spectral_dd.data import draw_all
from spectral_dd.errors import InputError
from spectral_dd.family import host_arrays
from spectral_dd.planning import elsewhere, hardware, target
from spectral_dd.sweeps import Lowering

SCRIPT = "experiments/train_sweep.py"


@pytest.fixture
def installed(monkeypatch):
    """All compilers, as far as names go."""
    monkeypatch.setattr(hardware, "_is_installed", lambda package: True)


@pytest.mark.parametrize(
    ("name", "platform", "num_devices"), [("h100", "gpu", 1), ("a100:8", "gpu", 8), ("v5e:4x4", "tpu", 16)]
)
def test_names_of_hardware(installed, name, platform, num_devices):
    found = hardware.parse_target(name)
    assert (found.name, found.platform, found.num_devices) == (name, platform, num_devices)
    assert 0 < found.memory <= found.chip.memory


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h10", r"--target=h10: must be one of .* Did you mean 'h100'\?"),
        ("h100:none", "--target=h100:none: must be h100, or h100:8"),
        ("h100:0", "--target=h100:0: must be h100, or h100:8"),
        ("v5e", "--target=v5e: must name a slice, such as v5e:2x2"),
        ("v5p:2x", "--target=v5p:2x: must name a slice, such as v5p:2x2x1"),
    ],
)
def test_names_that_are_none(installed, name, message):
    with pytest.raises(InputError, match=message):
        hardware.parse_target(name)


@pytest.mark.parametrize(("name", "extra"), [("h100", "cuda"), ("v5e:2x2", "tpu")])
def test_the_package_of_a_compiler_that_is_missing_is_named(monkeypatch, name, extra):
    monkeypatch.setattr(hardware, "_is_installed", lambda package: False)
    with pytest.raises(InputError, match=rf"--target={name}: .*: pip install --editable \"\.\[{extra}\]\""):
        hardware.parse_target(name)


def test_a_program_takes_as_long_as_its_products_its_bytes_or_its_kernels():
    chip = hardware.CHIPS["h100"]
    account = target.Account(1, 0, 0, 3.352e9, 989e9, 0.0, {}, 0, 0, 0.0)
    assert account.seconds(chip, Config.of(dtype="bfloat16")) == pytest.approx(1e-3)
    assert account._replace(bytes=2 * 3.352e9).seconds(chip, Config.of(dtype="bfloat16")) == pytest.approx(2e-3)
    tpu, cycles = hardware.CHIPS["v5e"], account._replace(flops=0, cycles=30e6, bytes=0.819e9)
    assert cycles.seconds(tpu, Config.of(dtype="bfloat16")) == pytest.approx(20e-3)
    assert cycles.bounds(tpu, Config.of())["bytes"] == pytest.approx(1e-3)
    exact, tf32 = (account.seconds(chip, Config.of(matmul_precision=p)) for p in ("float32", "tensorfloat32"))
    assert exact == pytest.approx(989 / 67 * 1e-3) and tf32 == pytest.approx(989 / 495 * 1e-3)


def test_of_many_packs_some_widths_are_compiled_and_a_power_law_between_them_is_met():
    widths = {number: number + 1 for number in range(64)}
    compiled = elsewhere.spread(widths)
    assert [widths[number] for number in compiled] == [1, 4, 16, 64]
    law = {number: 3.0 * width**1.5 for number, width in widths.items()}
    np.testing.assert_allclose(elsewhere.between(widths, {n: law[n] for n in compiled}), list(law.values()))
    # Of packs of one width, the first stands for all.
    few = {7: 4, 3: 16, 5: 4}
    assert elsewhere.spread(few) == [7, 3]
    assert elsewhere.between(few, {7: 1.0, 3: 2.0}) == pytest.approx([1, 2, 1])


def job_of(configs, dataset, num_devices=1):
    shapes = host_arrays(configs, dataset, draw_all(configs, {"digits": dataset}))[0].shapes()
    return target.Job(configs, dataset.num_classes, shapes, Lowering("packed", None), num_devices, ("training",))


def members(count, **values):
    return [Config.of(seed=i, train_size=256, spectrum_examples=0, **values) for i in range(count)]


def needs(package):
    return pytest.mark.skipif(not hardware._is_installed(package), reason=f"{package} is not installed")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param("h100:8", 8, marks=needs("jax_plugins.xla_cuda13")),
        pytest.param("v5e:4x4", 16, marks=needs("libtpu")),
    ],
)
def test_members_on_many_devices_need_no_collective_and_no_host(digits, name, count):
    (accounts,) = target.compile_for(
        hardware.parse_target(name), [job_of(members(2 * count, model="mlp", width=4), digits, count)]
    )
    step = accounts["training"]
    assert step.collectives == step.host_transfers == 0
    assert 0 < step.memory < 2**30 and step.at_once == 2
    # Two members on each device: products of 64, 4, 4 and 10 units, thrice, of 128 examples.
    products = 2 * 128 * (64 * 4 + 4 * 4 + 4 * 10)
    assert products * 3 * 0.7 <= step.flops / 2 <= products * 3


@needs("jax_plugins.xla_cuda13")
def test_what_does_not_fit_is_said_in_one_line(digits, tmp_path, capfd):
    arguments = ["--model=mlp", "--width=100000", "--dry_run", "--target=a100", f"--workdir={tmp_path / 'run'}"]
    assert run_script([SCRIPT, *arguments]) == 2
    err = capfd.readouterr().err.splitlines()
    assert err[-1].startswith("train_sweep.py: --target=a100: --width=100000: training of one mlp") and "GiB" in err[-1]
    assert not (tmp_path / "run").exists()


@needs("libtpu")
def test_a_slice_that_does_not_exist_is_said_in_one_line(digits):
    with pytest.raises(InputError, match="--target=v5e:3x5: there is no such slice"):
        list(target.compile_for(hardware.parse_target("v5e:3x5"), [job_of(members(1, model="mlp"), digits)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry_run", "--target=h100:8"], "--target=h100:8: has 8 devices for 1 member;"),
        (["--target=h100"], "--target=h100: compiles and plans only; give --dry_run too"),
    ],
)
def test_what_a_target_needs(installed, arguments, message, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert run_script([SCRIPT, f"--workdir={workdir}", "--model=mlp", "--width=4", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not workdir.exists()
