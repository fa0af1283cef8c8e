import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd import spectrum


def plain_numpy(f, x, v, num_points, half_width):
    """The formula written as loops, in float64."""
    energy = np.zeros((len(x), num_points // 2 + 1))
    amplitude = np.zeros_like(energy)
    for e in range(len(x)):
        for d in range(v.shape[1]):
            t = [-half_width + 2 * half_width * n / num_points for n in range(num_points)]
            outputs = np.array([np.asarray(f(x[None, e] + s * v[None, e, d]))[0] for s in t])
            for k in range(num_points // 2 + 1):
                wave = np.exp(-2j * np.pi * k * np.arange(num_points) / num_points)
                F = (outputs * wave[:, None]).sum(axis=0)
                energy[e, k] += np.mean(np.abs(F) ** 2) / v.shape[1]
                amplitude[e, k] += np.mean(np.abs(F)) / v.shape[1]
    return energy, amplitude


def some_inputs(examples=3, directions=2, shape=(4, 3, 1)):
    """NumPy's: nothing to compile."""
    rng = np.random.default_rng(0)
    x, v = rng.random((examples, *shape)), rng.standard_normal((examples, directions, *shape))
    v /= np.sqrt(np.sum(v**2, axis=(2, 3, 4), keepdims=True))
    return x.astype(jnp.result_type(float)), v.astype(jnp.result_type(float))


def network(inputs):
    w = np.random.default_rng(2).standard_normal((12, 5)).astype(inputs.dtype)
    return jnp.sin(3 * inputs.reshape(len(inputs), -1) @ w) + 2


def line_spectra(f, x, v, *, jit=fast_jit, **settings):
    """As one program, and its results on the host."""
    return jax.device_get(jit(functools.partial(spectrum.line_spectra, f, **settings))(x, v))


def over_all_bins(energy):
    """The sum over the N bins of a complex transform, of which a real one keeps 0..N/2."""
    return 2 * energy.sum(axis=-1) - energy[..., 0] - energy[..., -1]


@pytest.mark.parametrize("max_batch", [1, 20, 1000])
def test_equals_the_formula_in_plain_numpy(max_batch, x64):
    x, v = some_inputs()
    settings = {"num_points": 8, "half_width": 0.7}
    found = line_spectra(network, x, v, max_batch=max_batch, **settings)
    for ours, theirs in zip(found[:2], plain_numpy(network, x, v, **settings), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_float32_is_good_to_a_millionth_of_the_largest_energy():
    x, v = some_inputs()
    settings = {"num_points": 32, "half_width": 0.5}
    energy, amplitude, *_ = line_spectra(network, x, v, jit=jax.jit, **settings)
    expected_energy, expected_amplitude = plain_numpy(network, x, v, **settings)
    np.testing.assert_allclose(energy, expected_energy, atol=1e-6 * expected_energy.max())
    np.testing.assert_allclose(amplitude, expected_amplitude, atol=1e-6 * expected_amplitude.max())


def test_a_wave_along_the_segment_has_its_energy_in_its_own_bin(x64):
    x, v = some_inputs(examples=1, directions=1)
    N, h, k = 16, 0.5, 3
    frequency = spectrum.frequencies(N, h)[k]

    def wave(inputs):
        t = jnp.sum((inputs - x) * v[:, 0], axis=(1, 2, 3))
        return jnp.cos(2 * jnp.pi * frequency * t)[:, None]

    energy, amplitude, *_ = line_spectra(wave, x, v, num_points=N, half_width=h)
    expected = np.zeros(N // 2 + 1)
    expected[k] = (N / 2) ** 2
    np.testing.assert_allclose(energy[0], expected, atol=1e-9)
    np.testing.assert_allclose(amplitude[0], np.sqrt(expected), atol=1e-6)


def test_a_ramp_leaks_as_one_over_sine_squared(x64):
    x, v = some_inputs(examples=1, directions=1)
    energy, *_ = line_spectra(
        lambda inputs: jnp.sum(inputs * v[:, 0], axis=(1, 2, 3))[:, None], x, v, num_points=128, half_width=0.5
    )
    k = np.arange(1, 65)
    np.testing.assert_allclose(energy[0, 1:] / energy[0, 1], (np.sin(np.pi / 128) / np.sin(np.pi * k / 128)) ** 2)
    assert energy[0, 16] / energy[0, 1] == pytest.approx(0.004113, abs=1e-6)


def test_energies_satisfy_parseval(x64):
    x, v = some_inputs(examples=2, directions=1)
    N, h = 16, 0.5
    energy, *_ = line_spectra(network, x, v, num_points=N, half_width=h)
    t = np.asarray(spectrum.offsets(N, h))
    for e in range(2):
        outputs = np.asarray(network(x[e : e + 1] + t[:, None, None, None] * v[e]))
        assert over_all_bins(energy[e]) == pytest.approx(N * np.mean(np.sum(outputs**2, axis=0)))


def test_directions_have_norm_one_and_belong_to_their_example():
    x, _ = some_inputs(examples=5)
    v = np.asarray(spectrum.random_directions(jax.random.key(1), 3, x))
    np.testing.assert_allclose(np.sum(v**2, axis=(2, 3, 4)), 1, rtol=1e-5)
    fewer = spectrum.random_directions(jax.random.key(1), 3, x[:2])
    np.testing.assert_array_equal(fewer, v[:2])
    assert len(np.unique(v[..., 0, 0, 0])) == 15


def on_the_segment(x, v, f):
    """A function of the place t on the segment through the only example."""
    return lambda inputs: f(jnp.sum((inputs - x) * v[:, 0], axis=(1, 2, 3)))[:, None]


@pytest.mark.parametrize("window", ["none", "hann", "sine"])
def test_windows_keep_the_energy_of_white_noise_and_the_sine_tapers_are_orthogonal(window):
    tapers = spectrum.windows(window, 32)
    np.testing.assert_allclose(tapers @ tapers.T / 32, np.eye(len(tapers)), atol=1e-12)


@pytest.mark.parametrize("window", ["none", "hann", "sine"])
def test_the_residual_satisfies_parseval_with_its_window(window, x64):
    x, v = some_inputs(examples=2, directions=1)
    N, h = 16, 0.5
    found = line_spectra(network, x, v, num_points=N, half_width=h, window=window)
    n, t = np.arange(N), np.asarray(spectrum.offsets(N, h))
    for e in range(2):
        outputs = np.asarray(network(x[e : e + 1] + t[:, None, None, None] * v[e]))
        residual = outputs - np.stack([np.polyval(np.polyfit(n, o, 1), n) for o in outputs.T], axis=1)
        windowed = [np.mean(np.sum((w[:, None] * residual) ** 2, axis=0)) for w in spectrum.windows(window, N)]
        assert over_all_bins(found.residual_energy[e]) == pytest.approx(N * np.mean(windowed))


def test_mean_slope_and_residual_share_the_energy_among_them(x64):
    x, v = some_inputs()
    found = line_spectra(network, x, v, num_points=16, half_width=0.5)
    parts = found.energy[:, 0] + found.slope_energy + over_all_bins(found.residual_energy)
    np.testing.assert_allclose(parts, over_all_bins(found.energy))


def test_a_parabola_is_mean_slope_and_curvature_and_a_ramp_is_slope_alone(x64):
    x, v = some_inputs(examples=1, directions=1)
    parabola = line_spectra(on_the_segment(x, v, lambda t: 1 + 2 * t + 3 * t**2), x, v, num_points=16, half_width=0.5)
    np.testing.assert_allclose(parabola.curvature_energy, over_all_bins(parabola.residual_energy))
    ramp = line_spectra(on_the_segment(x, v, lambda t: 2 * t), x, v, num_points=16, half_width=0.5)
    t = np.asarray(spectrum.offsets(16, 0.5))
    np.testing.assert_allclose(ramp.slope_energy, 16 * np.sum((2 * t - np.mean(2 * t)) ** 2))
    np.testing.assert_allclose([ramp.curvature_energy, *ramp.residual_energy.T], 0, atol=1e-20)
    expected = ramp.slope_energy[0] * spectrum.slope_spectrum(16)
    np.testing.assert_allclose(ramp.energy[0, 1:], expected[1:])


@pytest.mark.parametrize("window", ["hann", "sine"])
def test_a_window_confines_a_wave_between_two_bins(window, x64):
    """Far from a wave at 4.5 there is less than a tenth of what leaks without a window."""
    x, v = some_inputs(examples=1, directions=1)
    wave = on_the_segment(x, v, lambda t: jnp.cos(2 * jnp.pi * 4.5 * t))
    far = {
        kind: line_spectra(wave, x, v, num_points=64, half_width=0.5, window=kind).residual_energy[0, 20:]
        for kind in ("none", window)
    }
    assert np.all(far[window] < 1e-1 * far["none"])


def test_adversarial_directions_are_the_gradient_of_the_cross_entropy_even_where_it_underflows(x64):
    x, _ = some_inputs()

    def cross_entropy(x):
        logits = network(x)
        return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(len(x)), jnp.argmax(logits, axis=1)])

    def adversarial_directions(f):
        return np.asarray(fast_jit(functools.partial(spectrum.adversarial_directions, f))(x))

    gradient = np.asarray(fast_jit(jax.grad(cross_entropy))(x))
    expected = gradient / np.sqrt(np.sum(gradient**2, axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(adversarial_directions(network)[:, 0], expected, rtol=1e-9)
    w = np.random.default_rng(3).standard_normal((12, 2))
    confident = adversarial_directions(lambda x: 1e4 * x.reshape(len(x), -1) @ w)
    np.testing.assert_allclose(np.sum(confident**2, axis=(2, 3, 4)), 1)


def test_directions_towards_others_have_norm_one_and_end_there(x64):
    x, v = some_inputs()
    towards = spectrum.directions_towards(x, x[:, None] + 3 * v)
    np.testing.assert_allclose(towards, v)
    assert np.isnan(spectrum.directions_towards(x, x[:, None])).all()


def changes(f, half_width=0.5):
    """Label changes along the first axis of the plane."""
    x, v = jnp.zeros((1, 2)), jnp.array([[[1.0, 0]]])
    return spectrum.line_spectra(f, x, v, num_points=128, half_width=half_width).label_changes


def test_label_changes_of_two_classes_that_a_line_divides():
    """None or one for a linear network, 2k for each unit of length where the logits cross as sin(2 pi k t) does."""

    @fast_jit
    def of_a_linear_network(at):
        return changes(lambda x: jnp.stack([x[:, 0] - at, at - x[:, 0]], axis=1))

    @fast_jit
    def of_a_wave(k, half_width):
        return changes(lambda x: jnp.stack([jnp.sin(2 * jnp.pi * k * x[:, 0] + 2), 0 * x[:, 0]], axis=1), half_width)

    assert (of_a_linear_network(0.1), of_a_linear_network(0.7)) == (1, 0)
    for k in (1, 3, 10):
        for half_width in (0.5, 1.0):
            assert of_a_wave(k, half_width) == 2 * k * 2 * half_width


def test_label_changes_of_a_diverged_network_are_nan():
    assert jnp.isnan(changes(lambda x: x * jnp.nan))
