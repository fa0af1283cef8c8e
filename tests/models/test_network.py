import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd.models import CNN5, MLP, ResNet
from spectral_dd.models.network import Dropout, draw_weights


@pytest.mark.parametrize(("cls", "fields"), [(MLP, {}), (CNN5, {}), (ResNet, {"blocks": (1, 1)})])
def test_initial_weights_fill_their_bounds_as_the_papers_framework_draws_them(cls, fields):
    model = cls(width=16, num_classes=10, **fields)
    variables = fast_jit(lambda x: model.init(jax.random.key(0), x, train=False))(jnp.ones((1, 8, 8, 1)))
    for path, kernel in jax.tree.leaves_with_path(variables["params"]):
        if path[-1].key == "kernel":
            bound = np.prod(kernel.shape[:-1]) ** -0.5
            assert 0.9 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
            assert abs(np.mean(kernel)) < 0.2 * bound
    last = variables["params"]["Dense_2" if cls is MLP else "Dense_0"]["Dense_0"]
    bound = last["kernel"].shape[0] ** -0.5
    assert 0 < np.abs(last["bias"]).max() <= bound * (1 + 1e-6)


def test_he_normal_draws_with_variance_2_over_fan_in_and_no_biases():
    kernel = draw_weights("he_normal", 50)(jax.random.key(0), (50, 400), jnp.float32)
    assert np.var(kernel) == pytest.approx(2 / 50, rel=0.03)  # 20,000 draws: a standard error of 1 %
    assert not draw_weights("he_normal", 50, bias=True)(jax.random.key(0), (9,), jnp.float32).any()


def test_dropout_drops_the_same_of_a_network_with_more_channels():
    narrow, wide = jnp.ones((50, 40)), jnp.ones((50, 64))

    @fast_jit
    def dropped(*inputs):
        return [Dropout(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}) for x in inputs]

    kept = dropped(narrow, wide)
    np.testing.assert_array_equal(kept[0], kept[1][:, :40])
    assert set(np.unique(kept[1])) == {0.0, 2.0}
    assert np.mean(kept[1]) == pytest.approx(1, abs=0.1)  # 3200 draws of 0 or 2: a standard error of 0.02
    np.testing.assert_array_equal(Dropout(0.5).apply({}, wide, train=False), wide)
