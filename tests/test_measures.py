import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spectral_dd import measures, spectrum

SEGMENT = {"num_points": 16, "half_width": 0.5}

# Each as a function of (f, x, v, max_batch).
MEASURES = {
    "jacobian_norm": lambda f, x, v, **kw: measures.jacobian_norm(f, x, **kw),
    "linear_regions": functools.partial(measures.linear_regions, **SEGMENT),
}


def random(seed, *shape):
    """NumPy's: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.result_type(float))


def some_inputs(examples=5, directions=3, shape=(3, 2, 1)):
    v = random(1, examples, directions, np.prod(shape))
    v /= jnp.linalg.norm(v, axis=-1, keepdims=True)
    return random(0, examples, *shape), v.reshape(examples, directions, *shape)


def relu_network(weights, inputs):
    w1, b1, w2 = weights
    return jax.nn.relu(inputs.reshape(len(inputs), -1) @ w1 + b1[None]) @ w2


def some_weights(*stack):
    return random(2, *stack, 6, 8), random(3, *stack, 8), random(4, *stack, 8, 4)


def network(inputs):
    return relu_network(some_weights(), inputs)


def along_first_axis(*classes):
    """One example at the origin of the plane, the direction of the first axis, and f_c(x) = classes[c](x_0)."""
    x = jnp.zeros((1, 2))
    v = jnp.array([[[1.0, 0.0]]])
    return lambda inputs: jnp.stack([g(inputs[:, 0]) for g in classes], axis=1), x, v


@pytest.mark.parametrize("name", MEASURES)
def test_chunks_bound_the_batch_and_change_nothing(name, x64):
    x, v = some_inputs()
    batches = []

    def recorded(inputs):
        batches.append(len(inputs))
        return network(inputs)

    whole = MEASURES[name](recorded, x, v, max_batch=1000)
    for max_batch in 1, 40:
        batches.clear()
        found = jax.jit(functools.partial(MEASURES[name], recorded, max_batch=max_batch))(x, v)
        np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-20)
        at_least = 1 if name.startswith("jacobian") else SEGMENT["num_points"]
        assert max(batches) <= max(max_batch, at_least)


@pytest.mark.parametrize("name", MEASURES)
def test_jit_and_vmap_over_networks_equal_plain_calls(name, x64):
    x, v = some_inputs()
    weights = some_weights(3)

    def measure(weights):
        return MEASURES[name](functools.partial(relu_network, weights), x, v, max_batch=32)

    plain = jnp.stack([measure([w[i] for w in weights]) for i in range(3)])
    assert len(np.unique(plain)) > 3  # otherwise the comparison would say little
    mapped, looped = jax.jit(lambda w: (jax.vmap(measure)(w), jax.lax.map(measure, w)))(weights)
    np.testing.assert_allclose(mapped, plain, rtol=1e-9, atol=1e-20)
    np.testing.assert_allclose(looped, plain, rtol=1e-9, atol=1e-20)


def test_jacobian_norm_of_a_linear_map_is_the_norm_of_its_matrix(x64):
    x, _ = some_inputs()
    w = random(3, 6, 4)
    norm = measures.jacobian_norm(lambda inputs: inputs.reshape(len(inputs), -1) @ w + 1, x)
    np.testing.assert_allclose(norm, np.full(5, np.linalg.norm(w)), rtol=1e-12)


def test_jacobian_norm_of_a_quadratic(x64):
    x, _ = some_inputs(shape=(6,))
    a = random(3, 4, 6, 6)
    norm = measures.jacobian_norm(lambda inputs: jnp.einsum("bi,cij,bj->bc", inputs, a, inputs), x)
    np.testing.assert_allclose(norm, [np.linalg.norm((a + a.swapaxes(1, 2)) @ each) for each in x], rtol=1e-12)


def test_jacobian_norm_equals_the_full_jacobian_of_a_network(x64):
    x, _ = some_inputs()
    jacobians = jax.vmap(jax.jacrev(lambda one: network(one[None])[0]))(x)
    np.testing.assert_allclose(measures.jacobian_norm(network, x), [np.linalg.norm(j) for j in jacobians], rtol=1e-12)


def relu_at(*kinks):
    return lambda t: sum(jax.nn.relu(t - kink) for kink in kinks)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([lambda t: 0 * t + 3], 1),
        ([lambda t: 5 - 2 * t, lambda t: 7 * t], 1),
        ([relu_at(0.13)], 2),
        ([lambda t: jnp.abs(t - 0.13)], 2),
        ([relu_at(-0.31, 0.01, 0.13)], 4),
        ([relu_at(-0.31), relu_at(0.13), lambda t: 0 * t], 3),
        ([relu_at(-0.7, 0.13, 0.9)], 2),  # two kinks lie beyond the segment
        ([relu_at(0.128, 0.13)], 2),  # two kinks between neighbouring points
        ([relu_at(*(np.arange(-8, 8) + 0.5) / 16)], 16),  # a kink in every gap and one behind the last point
    ],
)
def test_linear_regions_of_known_functions(classes, expected):
    f, x, v = along_first_axis(*classes)
    assert measures.linear_regions(f, x, v, **SEGMENT) == expected


def test_linear_regions_are_averaged_over_directions_and_counted_for_each_example():
    f, x, v = along_first_axis(relu_at(0.13, 0.23))
    both = jnp.concatenate([v, v[..., ::-1]], axis=1)  # three regions along the first axis, one along the second
    x, both = jnp.concatenate([x, x + 5]), jnp.concatenate([both, both])
    np.testing.assert_array_equal(measures.linear_regions(f, x, both, **SEGMENT), [2, 1])


def test_linear_regions_tolerance_is_relative_to_the_derivative():
    for change, regions in ((1e-3, 2), (1e-5, 1)):
        f, x, v = along_first_axis(lambda t, change=change: 1e5 * (t + change * jax.nn.relu(t - 0.13)))
        assert measures.linear_regions(f, x, v, **SEGMENT) == regions


def test_linear_regions_of_a_diverged_network_are_nan():
    f, x, v = along_first_axis(lambda t: t * jnp.nan)
    assert jnp.isnan(measures.linear_regions(f, x, v, **SEGMENT)).all()


def test_linear_regions_of_a_network_are_its_activation_patterns():
    """In float32: what the tolerance has to hold against."""
    N, h = 64, 2.0
    x, v = some_inputs(directions=2)
    w1, w2 = random(2, 6, 20), random(3, 20, 4)
    found = measures.linear_regions(
        lambda inputs: jax.nn.relu(inputs.reshape(len(inputs), -1) @ w1 + 0.3) @ w2, x, v, num_points=N, half_width=h
    )
    points = x[:, None, None] + spectrum.offsets(N, h).reshape(1, 1, N, 1, 1, 1) * v[:, :, None]
    active = np.asarray(points.reshape(5, 2, N, 6) @ w1 + 0.3 > 0)
    changes = (active[:, :, 1:] != active[:, :, :-1]).any(axis=-1).sum(axis=-1)
    assert changes.min() > 2
    np.testing.assert_array_equal(found, 1 + changes.mean(axis=1))


def test_optimization_variance_of_a_tensor_made_by_hand():
    logits = jnp.array([[[1.0, 0], [3, 4], [1, 2]], [[0, 1.0], [3, 4], [-1, -2]]])
    np.testing.assert_allclose(measures.optimization_variance(logits), [0.5, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(measures.optimization_variance(100 * logits), [0.5, 0, 1], rtol=1e-6)


def test_optimization_variance_is_what_the_mean_lacks_of_the_mean_square(x64):
    logits = 1 + random(0, 7, 5, 3)
    share = jnp.sum(jnp.mean(logits, axis=0) ** 2, axis=-1) / jnp.mean(jnp.sum(logits**2, axis=-1), axis=0)
    np.testing.assert_allclose(measures.optimization_variance(logits), 1 - share, rtol=1e-9)


def test_margin_is_positive_where_the_label_wins():
    logits = jnp.array([[1.0, 4, 2], [1, 4, 2], [-1, -1, -5]])
    np.testing.assert_array_equal(measures.margin(logits, jnp.array([1, 2, 0])), [2, -2, 0])
