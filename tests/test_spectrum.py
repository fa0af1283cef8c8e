import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    x = jax.random.uniform(jax.random.key(0), (examples, *shape), jnp.result_type(float))
    return x, spectrum.random_directions(jax.random.key(1), directions, x)


def network(inputs):
    w = jax.random.normal(jax.random.key(2), (12, 5), inputs.dtype)
    return jnp.sin(3 * inputs.reshape(len(inputs), -1) @ w) + 2


@pytest.mark.parametrize("max_batch", [1, 20, 1000])
def test_equals_the_formula_in_plain_numpy(max_batch, x64):
    x, v = some_inputs()
    settings = {"num_points": 8, "half_width": 0.7}
    found = jax.jit(lambda x, v: spectrum.line_spectra(network, x, v, max_batch=max_batch, **settings))(x, v)
    for ours, theirs in zip(found, plain_numpy(network, x, v, **settings), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_float32_is_good_to_a_millionth_of_the_largest_energy():
    x, v = some_inputs()
    settings = {"num_points": 32, "half_width": 0.5}
    energy, amplitude = spectrum.line_spectra(network, x, v, **settings)
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

    energy, amplitude = spectrum.line_spectra(wave, x, v, num_points=N, half_width=h)
    expected = np.zeros(N // 2 + 1)
    expected[k] = (N / 2) ** 2
    np.testing.assert_allclose(energy[0], expected, atol=1e-9)
    np.testing.assert_allclose(amplitude[0], np.sqrt(expected), atol=1e-6)


def test_a_ramp_leaks_as_one_over_sine_squared(x64):
    x, v = some_inputs(examples=1, directions=1)
    energy, _ = spectrum.line_spectra(
        lambda inputs: jnp.sum(inputs * v[:, 0], axis=(1, 2, 3))[:, None], x, v, num_points=128, half_width=0.5
    )
    k = np.arange(1, 65)
    np.testing.assert_allclose(energy[0, 1:] / energy[0, 1], (np.sin(np.pi / 128) / np.sin(np.pi * k / 128)) ** 2)
    assert energy[0, 16] / energy[0, 1] == pytest.approx(0.004113, abs=1e-6)


def test_energies_satisfy_parseval(x64):
    x, v = some_inputs(examples=2, directions=1)
    N, h = 16, 0.5
    energy, _ = spectrum.line_spectra(network, x, v, num_points=N, half_width=h)
    t = spectrum.offsets(N, h)
    for e in range(2):
        outputs = network(x[e] + t[:, None, None, None] * v[e, 0])
        two_sided = 2 * energy[e].sum() - energy[e, 0] - energy[e, -1]
        assert two_sided == pytest.approx(N * jnp.mean(jnp.sum(outputs**2, axis=0)))


def test_directions_have_norm_one_and_belong_to_their_example():
    x, v = some_inputs(examples=5, directions=3)
    np.testing.assert_allclose(jnp.sum(v**2, axis=(2, 3, 4)), 1, rtol=1e-5)
    fewer = spectrum.random_directions(jax.random.key(1), 3, x[:2])
    np.testing.assert_array_equal(fewer, v[:2])
    assert len(np.unique(np.asarray(v)[..., 0, 0, 0])) == 15
