"""A measure of one's own: recorded at the examples of the others, described in the results, drawn in the report."""

import numpy as np
import pytest

import spectral_dd as sdd
from helpers import fast_programs
from spectral_dd import own_measures
from spectral_dd.errors import InputError
from spectral_dd.planning.prepare import prepare
from spectral_dd.report.figures import pictures
from test_cli import flags_of, run_script

SOURCE = '''
import jax.numpy as jnp
import spectral_dd as sdd


@sdd.measure(units="logit", long_name="size of the logits")
def size(f, examples, directions):
    """L2 norm over classes at the example."""
    return jnp.linalg.norm(f(examples), axis=-1)


def moved(f, examples, directions):
    """Change of the largest logit over a tenth along the first direction."""
    return f(examples + 0.1 * directions[:, 0]).max(axis=-1) - f(examples).max(axis=-1)


def twice(f, examples, directions):
    return 2 * moved(f, examples, directions)


def total(f, examples, directions):
    return f(examples).sum()


def loss(f, examples, directions):
    return f(examples).sum(axis=-1)


def python(f, examples, directions):
    return [float(x) for x in f(examples).sum(axis=-1)]


number = 3
unnamed = lambda f, examples, directions: f(examples).max(axis=-1)
'''


@pytest.fixture(scope="module", autouse=True)
def fast():
    with fast_programs():
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("measures") / "own.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def measured(file, small_axes):
    """A sweep that was trained by the command with a measure of one's own."""
    run = file.parent / "run"
    axes = small_axes | {"seed": 0, "epochs": 2, "spectrum_measures": 3}
    flags = flags_of(axes)
    assert run_script("train_sweep.py", f"--workdir={run}", *flags, f"--measure={file}:size") == 0
    return run


def test_it_is_recorded_beside_the_others_with_its_unit_and_name(measured):
    ds = sdd.load_results(measured)
    np.testing.assert_allclose(ds["size"], ds.logit_norm, rtol=1e-5)
    assert ds["size"].notnull().sum("example").values.max() == 3
    assert ds["size"].attrs == {
        "units": "logit", "long_name": "size of the logits", "description": "L2 norm over classes at the example.",
    }  # fmt: skip
    (picture,) = [p for p in pictures(ds) if p.name == "size"]
    assert "Size of the logits, mean over examples" in picture.caption
    assert [ax.get_title() for ax in picture.figure.axes[:3]] == ["training set", "relabelled examples", "test set"]


def test_another_is_evaluated_later_along_the_directions_of_the_spectra(measured, file, capsys):
    asked = (f"--workdir={measured}", "--name=own", f"--measure={file}:moved+twice")
    assert run_script("evaluate_spectrum.py", *asked) == 0
    said = "optimization_variance needs the optimiser's state"
    assert f"--name=own: {said}" in capsys.readouterr().err
    ds = sdd.load_results(measured, "own")
    np.testing.assert_allclose(ds.twice, 2 * ds.moved, rtol=1e-5)
    assert "optimization_variance" not in ds and ds.attrs["left_out"].startswith(said)
    assert "size" not in ds and ds.moved.attrs["long_name"] == "moved"
    assert 0 < float(abs(ds.moved).max()) < float(ds.jacobian_norm.max())
    file.write_text(SOURCE + "# changed\n")
    own_measures._registered.clear()  # as in another process
    with pytest.raises(InputError, match=r"own\.py has changed since the sweep was begun .* or none with --measure="):
        sdd.evaluate_spectra(measured, "same", {})
    sdd.evaluate_spectra(measured, "without", {"measure": ""})
    assert "size" not in sdd.load_results(measured, "without")
    file.write_text(SOURCE)


def test_in_python_it_is_a_function(small_axes, tmp_path):
    def double(f, examples, directions):
        return 2 * f(examples)[:, 0]

    def half(f, examples, directions):
        return 0.5 * f(examples)[:, 0]

    sweep = sdd.sweep(None, **small_axes | {"seed": 0, "width": 2, "epochs": 1, "spectrum_measures": 3})
    sdd.train(tmp_path / "run", sweep, measure=[double, half])
    ds = sdd.load_results(tmp_path / "run")
    assert ds.double.notnull().any()
    np.testing.assert_allclose(ds.double, 4 * ds.half, rtol=1e-6)
    with pytest.raises(InputError, match="double\\+norm: must be one or more functions of one module"):
        sdd.train(tmp_path / "other", sweep, measure=[double, np.linalg.norm])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py:f", "there is no file none.py"),
        ("f", "must be FILE.py:FUNCTION or package.module:FUNCTION"),
        ("{file}:sizes", "has no function sizes"),
        ("{file}:number", "must be a function of (f, examples, directions)"),
        ("{file}:loss", "loss is the name of a variable already; give it another"),
        ("{file}:size+moved+size", "must be functions of different names"),
        ("{file}:size+sizes", "has no function sizes"),
        ("{file}:unnamed", "must be a function with a name (def)"),
        ("{file}:size+total", "total must return a number for each of 3 examples, (3,); it returned ()"),
        ("{file}:python", "python cannot be traced by JAX: "),
    ],
)
def test_what_cannot_be_one_is_refused_in_one_line_before_anything_is_computed(file, name, message):
    name = name.format(file=file)
    with pytest.raises(InputError) as error:
        prepare(sdd.sweep(None, model="mlp", train_size=200, measure=name))
    one = name.replace("size+sizes", "sizes")  # which of them is not there
    assert str(error.value).startswith(f"--measure={one}: {message}") and "\n" not in str(error.value)


def test_it_needs_examples_that_are_measured(file):
    with pytest.raises(InputError, match="needs --spectrum_examples and --spectrum_measures above 0"):
        prepare(sdd.sweep(None, model="mlp", measure=f"{file}:size", spectrum_measures=0))
