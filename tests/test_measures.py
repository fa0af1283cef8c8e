import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from helpers import ShortCNN, fast_jit
from spectral_dd import measures
from spectral_dd.spectrum import offsets

SEGMENT = {"num_points": 16, "half_width": 0.5}


def jacobian_norm(f, x, **kw):
    return measures.jacobian_norm(measures.output_products(f, x, **kw)[1])


def linear_regions(f, x, v, **kw):
    u = np.eye(1, x[0].size, dtype=x.dtype)
    return measures.kinks(f, x, v, u, radius=0.1, **(SEGMENT | kw)).linear_regions


def local_complexity(f, x, u, radius, **kw):
    v = jnp.ones_like(x)[:, None]
    return measures.kinks(f, x, v, u, radius=radius, **SEGMENT, **kw).local_complexity


# Each as a function of (f, x, v, max_batch).
MEASURES = {
    "jacobian_norm": lambda f, x, v, **kw: jacobian_norm(f, x, **kw),
    "loss_curvature": lambda f, x, v, **kw: measures.loss_curvature(*measures.output_products(f, x, **kw)),
    "linear_regions": linear_regions,
    "local_complexity": lambda f, x, v, **kw: local_complexity(f, x, np.eye(6, dtype=x.dtype), radius=0.3, **kw),
}


def compiled(measure, f, *arguments, **options):
    """The measure of `f` by one program, where one by one its operations would be many."""
    return fast_jit(functools.partial(measure, f, **options))(*arguments)


def random(seed, *shape):
    """NumPy's: nothing to compile."""
    return np.random.default_rng(seed).standard_normal(shape).astype(jnp.result_type(float))


def some_inputs(examples=5, directions=3, shape=(3, 2, 1)):
    v = random(1, examples, directions, np.prod(shape))
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
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
    x = np.zeros((1, 2), np.float32)
    v = np.array([[[1, 0]]], np.float32)
    return lambda inputs: jnp.stack([g(inputs[:, 0]) for g in classes], axis=1), x, v


@pytest.mark.parametrize("name", MEASURES)
def test_chunks_bound_the_batch_and_change_nothing(name, x64):
    x, v = some_inputs()
    batches = []

    def recorded(inputs):
        batches.append(len(inputs))
        return network(inputs)

    whole = compiled(MEASURES[name], recorded, x, v, max_batch=1000)
    for max_batch in 1, 60:
        batches.clear()
        found = compiled(MEASURES[name], recorded, x, v, max_batch=max_batch)
        np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-20)
        at_least = {"linear_regions": 16 + 2, "local_complexity": 16 + 12}.get(name, 1)
        # One more than a batch is only traced: its program says which axis is that of the examples.
        assert max(batches) <= max(max_batch, at_least) + name.startswith("l")


@pytest.mark.parametrize("name", MEASURES)
def test_vmap_and_map_over_networks_equal_a_call_for_each(name, x64):
    x, v = some_inputs()
    weights = some_weights(3)

    def measure(weights):
        return MEASURES[name](functools.partial(relu_network, weights), x, v, max_batch=32)

    of_one = fast_jit(measure)
    each = np.stack([of_one([w[i] for w in weights]) for i in range(3)])
    assert len(np.unique(each)) > 2  # otherwise the comparison would say little
    mapped, looped = fast_jit(lambda w: (jax.vmap(measure)(w), jax.lax.map(measure, w)))(weights)
    np.testing.assert_allclose(mapped, each, rtol=1e-9, atol=1e-20)
    np.testing.assert_allclose(looped, each, rtol=1e-9, atol=1e-20)


def test_jacobian_norm_of_a_linear_map_is_the_norm_of_its_matrix(x64):
    x, _ = some_inputs()
    w = random(3, 6, 4)
    norm = jacobian_norm(lambda inputs: inputs.reshape(len(inputs), -1) @ w + 1, x)
    np.testing.assert_allclose(norm, np.full(5, np.linalg.norm(w)), rtol=1e-12)


def test_jacobian_norm_of_a_quadratic(x64):
    x, _ = some_inputs(shape=(6,))
    a = random(3, 4, 6, 6)
    norm = compiled(jacobian_norm, lambda inputs: jnp.einsum("bi,cij,bj->bc", inputs, a, inputs), x)
    np.testing.assert_allclose(norm, [np.linalg.norm((a + a.swapaxes(1, 2)) @ each) for each in x], rtol=1e-12)


def test_jacobian_norm_equals_the_full_jacobian_of_a_network(x64):
    x, _ = some_inputs()
    jacobians = np.asarray(fast_jit(jax.vmap(jax.jacrev(lambda one: network(one[None])[0])))(x))
    expected = [np.linalg.norm(j) for j in jacobians]
    np.testing.assert_allclose(compiled(jacobian_norm, network, x), expected, rtol=1e-12)


def relu_at(*kinks):
    return lambda t: jax.nn.relu(t[:, None] - np.array([kinks], np.float32)).sum(axis=1)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([lambda t: 0 * t + 3], 1),
        ([lambda t: 5 - 2 * t, lambda t: 7 * t], 1),
        ([relu_at(0.13)], 2),
        ([lambda t: jnp.abs(t - 0.13)], 2),
        ([lambda t: jnp.minimum(jax.nn.leaky_relu(t + 0.3), 0.2 - t)], 3),
        ([relu_at(-0.31, 0.01, 0.13)], 4),
        ([relu_at(-0.31), relu_at(0.13), lambda t: 0 * t], 3),
        ([relu_at(-0.7, 0.13, 0.9)], 2),  # two kinks lie beyond the segment
        ([relu_at(0.128, 0.13)], 3),  # two kinks between neighbouring points
        ([relu_at(*np.linspace(-0.49, 0.43, 100))], 101),  # many more than points
        ([lambda t: jnp.maximum(jnp.maximum(t, 0.1 - t), 2)], 1),  # a kink that the output does not depend on
        ([lambda t: jnp.stack([t, 0 * t, 0.2 - t]).max(axis=0)], 2),  # the largest: 0.2 - t, then t
        ([lambda t: jax.nn.relu(jax.nn.relu(t + 0.2) - 0.3)], 2),  # the first one where the second is off
    ],
)
def test_linear_regions_of_known_functions(classes, expected):
    f, x, v = along_first_axis(*classes)
    assert compiled(linear_regions, f, x, v) == expected


def test_linear_regions_are_averaged_over_directions_and_counted_for_each_example():
    f, x, v = along_first_axis(relu_at(0.13, 0.23))
    both = np.concatenate([v, v[..., ::-1]], axis=1)  # three regions along the first axis, one along the second
    x, both = np.concatenate([x, x + 5]), np.concatenate([both, both])
    np.testing.assert_array_equal(linear_regions(f, x, both), [2, 1])


def test_linear_regions_of_a_diverged_network_are_nan():
    f, x, v = along_first_axis(lambda t: t * jnp.nan)
    assert np.isnan(linear_regions(f, x, v)).all()


def test_linear_regions_of_a_network_with_one_layer_are_its_hyperplanes_however_few_the_points():
    h = 2.0
    x, v = some_inputs(directions=2)
    w1, w2 = random(2, 6, 20), random(3, 20, 4)

    def shallow(inputs):
        return jax.nn.relu(inputs.reshape(len(inputs), -1) @ w1 + 0.3) @ w2

    found = compiled(linear_regions, shallow, x, v, num_points=4, half_width=h)
    start, slope = x.reshape(5, 1, 6) @ w1 + 0.3, v.reshape(5, 2, 6) @ w1
    crossing = np.asarray(-start / slope)
    kinks = ((crossing > -h) & (crossing < h / 2)).sum(axis=-1)  # the last of four points is at h / 2
    assert kinks.max() > 3 * 4
    np.testing.assert_array_equal(found, 1 + kinks.mean(axis=1))


class Pooled(nn.Module):
    """A deep network with the pools of Flax and examples along the first axis."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(images)), (2, 2), (2, 2))
        x = nn.max_pool(nn.Conv(6, (3, 3))(x), (2, 2), (2, 2))
        return nn.Dense(3)(nn.relu(nn.Dense(20)(x.reshape(len(x), -1))))


@pytest.mark.parametrize("kind", ["flax", "ours"])
def test_linear_regions_are_the_kinks_of_the_outputs(kind, x64, random_variables):
    """The changes of the derivative along segments, at points so dense that hardly two kinks lie between them."""
    images = random(0, 3, 8, 8, 1)
    exact = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    model = Pooled() if kind == "flax" else ShortCNN(width=8, num_classes=3, **exact)
    variables = random_variables(model, images)
    v = random(1, 3, 1, 64)
    v = (v / np.linalg.norm(v, axis=-1, keepdims=True)).reshape(3, 1, 8, 8, 1)

    def f(x):
        return model.apply(variables, x, train=False)

    @fast_jit
    def slopes(t):
        def outputs(t):
            return f((images[:, None] + t[None, :, None, None, None] * v).reshape(-1, 8, 8, 1))

        return jax.jvp(outputs, (t,), (jnp.ones_like(t),))[1].reshape(3, len(t), 3)

    found = compiled(linear_regions, f, images, v, num_points=128)
    dense = np.asarray(slopes(np.linspace(-0.5, 0.5 - 1 / 128, 4000)))
    change = np.linalg.norm(np.diff(dense, axis=1), axis=-1) > 1e-9 * np.linalg.norm(dense[:, 1:], axis=-1)
    kinks = change.sum(axis=1)
    assert kinks.min() > 5
    np.testing.assert_array_equal(found, 1 + kinks)


def test_local_complexity_counts_the_hyperplanes_that_cut_the_neighbourhood(x64):
    """Of one layer: those nearer than r |w'|_inf / |w| along the directions, whose corners are at +-r."""
    x, _ = some_inputs()
    w = random(2, 6, 20)
    directions = fast_jit(measures.orthonormal_directions, static_argnums=(1, 2, 3))
    u = np.asarray(directions(jax.random.key(0), 3, 6, x.dtype))
    np.testing.assert_allclose(u @ u.T, np.eye(3), atol=1e-12)
    z = x.reshape(5, 6) @ w + 0.3

    @fast_jit
    def complexity(radius):
        return local_complexity(
            lambda inputs: jax.nn.relu(inputs.reshape(len(inputs), -1) @ w + 0.3), x, u, radius=radius
        )

    for radius in (0.05, 0.5):
        found = complexity(radius)
        np.testing.assert_array_equal(found, (abs(z) < radius * abs(u @ w).max(axis=0)[None]).sum(axis=1))
    assert found.max() > 5


def test_local_complexity_does_not_count_pools_and_is_nan_for_a_diverged_network():
    u = np.eye(2, dtype=np.float32)
    f, x, _ = along_first_axis(lambda t: jnp.maximum(t, -t))
    assert compiled(local_complexity, f, x, u, radius=0.1) == 0
    f, x, _ = along_first_axis(lambda t: jnp.maximum(t, 0), lambda t: jnp.nan * t)
    assert np.isnan(compiled(local_complexity, f, x, u, radius=0.1))


def loss_curvature(f, x):
    return compiled(MEASURES["loss_curvature"], f, x, None)


def test_curvature_of_a_linear_network_with_two_classes(x64):
    """H = p (1 - p) (w_1 - w_2) (w_1 - w_2)^T, whose norm is p (1 - p) |w_1 - w_2|^2."""
    x, _ = some_inputs()
    w = random(3, 6, 2)
    logits = x.reshape(5, 6) @ w
    found = loss_curvature(lambda inputs: inputs.reshape(len(inputs), -1) @ w, x)
    p = softmax(logits, axis=1)[:, 0]
    np.testing.assert_allclose(found, p * (1 - p) * np.sum((w[:, 0] - w[:, 1]) ** 2), rtol=1e-9)


def test_curvature_of_a_relu_network_is_the_norm_of_the_hessian_for_any_label(x64):
    x, _ = some_inputs()
    found = loss_curvature(network, x)

    @fast_jit
    def hessians(x, label):
        return jax.vmap(jax.hessian(lambda one: -jax.nn.log_softmax(network(one[None])[0])[label]))(x)

    for label in (0, 3):
        h = np.asarray(hessians(x, label)).reshape(5, 6, 6)
        np.testing.assert_allclose(found, np.linalg.norm(h, axis=(1, 2)), rtol=1e-9)


def test_curvature_of_a_confident_network_is_small_but_not_lost():
    """In float32, where 1 - p is 0: p (1 - p) is that of the logistic function at 40."""
    found = loss_curvature(lambda x: x * np.array([[40, 0]], np.float32), np.ones((1, 1), np.float32))
    np.testing.assert_allclose(found, 1600 * np.exp(-40.0), rtol=1e-5)


@pytest.mark.parametrize("num_points", [3, 7, 8])
def test_points_of_a_plane_span_the_rectangle_around_three_inputs_and_a_tenth_more(num_points):
    corners = np.array([[[0, 0, 5], [3, 0, 5], [-1, 2, 5]]], np.float32)  # along: -1 to 3; height: 0 to 2
    x, v = compiled(measures.plane_segments, corners, num=7, num_points=num_points, half_width=2.0)
    t = np.asarray(offsets(num_points, 2.0))[:, None]
    x, v = np.asarray(x), np.asarray(v)
    points = (x[..., None, :] + t * v[..., None, :]).reshape(7, -1, 3)[:, :7]
    np.testing.assert_allclose(points[:, 0, 0], np.linspace(-1.4, 3.4, 7), atol=1e-5)
    np.testing.assert_allclose(points[0, :, 1], np.linspace(-0.2, 2.2, 7), atol=1e-5)
    np.testing.assert_allclose(points[..., 2], 5, atol=1e-5)


def nearby_points(x, v, num_points):
    """The points of segments, and the same shifted: `(example, 2, point, *shape)`."""
    shifts = np.array([0, measures.shift_of_nearby(num_points, 0.5)], np.float32)
    t = offsets(num_points, 0.5)[None] + shifts[:, None]
    return x[:, None, None] + t[None, ..., None] * v[:, None, None]


def test_energy_of_rounding_to_a_grid():
    """Outputs rounded to multiples of q have an error of variance q^2 / 12, white, so N q^2 / 12 in each bin."""
    q, num_points = 2.0**-14, 64
    x, v = random(0, 5000, 1), 1 + 0.3 * random(1, 5000, 1)  # of other slopes, whose roundings have other periods

    @fast_jit
    def energies(x, v):
        outputs = jnp.round(nearby_points(x, v, num_points) / q) * q
        return [measures.rounding_energy(outputs, window).mean() for window in ("none", "hann", "sine")]

    np.testing.assert_allclose(energies(x, v), num_points * q**2 / 12, rtol=0.1)


def test_energy_of_rounding_leaves_out_what_the_function_does():
    """Of a cosine in the highest bin but one, hardly anything."""

    @fast_jit
    def energy(x, v):
        return measures.rounding_energy(jnp.cos(2 * np.pi * 31 * nearby_points(x, v, 64)), "none")

    x, v = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    assert energy(x, v) < 0.012 * 32**2 / 16  # its energy in one of 16 bins


def test_distance_is_over_all_parameters():
    a, b = {"x": np.array([0.0, 1]), "y": np.array([[1.0]])}, {"x": np.array([3.0, 1]), "y": np.array([[5.0]])}
    np.testing.assert_allclose(fast_jit(measures.distance)(a, b), 5)


optimization_variance = fast_jit(measures.optimization_variance)


def test_optimization_variance_of_a_tensor_made_by_hand():
    logits = np.array([[[1.0, 0], [3, 4], [1, 2]], [[0, 1.0], [3, 4], [-1, -2]]], np.float32)
    np.testing.assert_allclose(optimization_variance(logits), [0.5, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(optimization_variance(100 * logits), [0.5, 0, 1], rtol=1e-6)


def test_optimization_variance_is_what_the_mean_lacks_of_the_mean_square(x64):
    logits = 1 + random(0, 7, 5, 3)
    share = np.sum(np.mean(logits, axis=0) ** 2, axis=-1) / np.mean(np.sum(logits**2, axis=-1), axis=0)
    np.testing.assert_allclose(optimization_variance(logits), 1 - share, rtol=1e-9)


def test_margin_is_positive_where_the_label_wins():
    logits = np.array([[1, 4, 2], [1, 4, 2], [-1, -1, -5]], np.float32)
    np.testing.assert_array_equal(fast_jit(measures.margin)(logits, np.array([1, 2, 0])), [2, -2, 0])
