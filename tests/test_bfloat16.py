"""Training in bfloat16: members of a mixed pack are those that are trained alone, and nearly those of float32."""

import jax
import numpy as np
import pytest

from helpers import SHORT_CNN, family_of, fast_programs, members_of
from spectral_dd.config import Config
from spectral_dd.sweeps import Lowering

# A number is off by up to 2^-9 of its value when it is rounded.
ROUNDING = 2**-9


@pytest.fixture(scope="module")
def members(digits):
    """Variables before and after a step of SGD, by type, of two members together and of each alone."""

    def trained(configs):
        family = family_of(configs, digits, jax.local_devices()[:1], lowering=Lowering("winograd", 1))
        state = family.initial_state()
        start = [own for *_, own in members_of(family, state)]
        return list(zip(start, (own for *_, own in members_of(family, family.train(state, 0, 1))), strict=True))

    def configs(dtype):
        fields = {"model": SHORT_CNN, "optimizer": "sgd", "momentum": 0.0, "train_size": 32, "batch_size": 32}
        rates = {"learning_rate": 0.1, "spectrum_examples": 0, "dtype": dtype}
        return [Config.of(width=w, seed=w, **fields, **rates) for w in (2, 3)]

    half = configs("bfloat16")
    with fast_programs():
        alone = [trained([c])[0] for c in half]
        return {"together": trained(half), "alone": alone, "exact": trained(configs("float32"))}


def relative_difference(ours, theirs, what):
    """Of the steps: the L2 norm of their difference by that of theirs."""
    steps = [
        np.concatenate([np.ravel(b - a) for a, b in zip(*map(jax.tree.leaves, (start[what], end[what])), strict=True)])
        for start, end in (ours, theirs)
    ]
    return np.linalg.norm(steps[0] - steps[1]) / np.linalg.norm(steps[1])


@pytest.mark.parametrize("what", ["params", "batch_stats"])
def test_a_member_of_a_pack_in_bfloat16_is_the_one_trained_alone(members, what):
    """But for products that are summed in another order, and then may be rounded to the neighbouring number."""
    for ours, theirs in zip(members["together"], members["alone"], strict=True):
        assert relative_difference(ours, theirs, what) < ROUNDING


def test_a_step_in_bfloat16_is_nearly_that_of_float32(members):
    """To a tenth: in narrow networks, a ReLU or a max-pool that takes another entry counts more than rounding."""
    for ours, theirs in zip(members["together"], members["exact"], strict=True):
        for leaf in jax.tree.leaves(ours):
            assert leaf.dtype == np.float32
        jax.tree.map(np.testing.assert_array_equal, ours[0], theirs[0])
        assert ROUNDING < relative_difference(ours, theirs, "params") < 0.1
        assert relative_difference(ours, theirs, "batch_stats") < ROUNDING
