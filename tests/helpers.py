"""What several test modules need: families, sweeps, and what they recorded."""

import contextlib
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from spectral_dd import family, models, padding, programs, stored
from spectral_dd.data import draw_all
from spectral_dd.family import Family
from spectral_dd.kernels.norm import global_max_pool, max_pool
from spectral_dd.models import build_model
from spectral_dd.models.network import Network, channel_major
from spectral_dd.sweeps import read_sweep

# `jax.jit` that compiles in half the time, for programs that run once. Not where last bits matter: the largest of some
# entries, computed twice, may differ from itself.
FAST = {"xla_backend_optimization_level": 0}
fast_jit = functools.partial(jax.jit, compiler_options=FAST)


@functools.partial(fast_jit, static_argnums=0)
def logits_of(model, variables, images):
    return model.apply(variables, images, train=False)


# What a process keeps of programs is of one kind.
kept = {
    (module, name): functools.lru_cache(programs.PACKS_KEPT)(getattr(module, name).__wrapped__)
    for module, name in ((programs, "_compiled"), (family, "_initial_state"), (family, "_distance"))
}


@contextlib.contextmanager
def fast_programs():
    """What is compiled as with `fast_jit`: all programs of families."""
    compile_it = jax.stages.Lowered.compile
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jax, "jit", fast_jit)
        patched.setattr(jax.stages.Lowered, "compile", functools.partialmethod(compile_it, compiler_options=FAST))
        for module, name in kept:
            patched.setattr(module, name, kept[module, name])
        yield


class ShortCNN(Network):
    """The first and the last block of `models.CNN5`: as many kinds of layers, in half the time to compile."""

    @nn.compact
    def __call__(self, images, train):
        x = channel_major(images)
        for factor, pool in ((1, max_pool), (2, global_max_pool)):
            x = nn.relu(self.norm(train, pool)(self.conv(factor * self.width)(x)))
        return self.logits(x.T)


SHORT_CNN = models.register(ShortCNN)


def family_of(configs, dataset, *arguments, **options):
    draws = draw_all(configs, dict.fromkeys((c.dataset for c in configs), dataset))
    return Family(configs, dataset, draws, *arguments, **options)


def initial_variables(config, dataset):
    """The first variables of a member, drawn alone."""
    image = np.zeros((1, *dataset.train_images.shape[1:]), config.dtype)
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    model = build_model(config, dataset.num_classes)

    @jax.jit  # Not `fast_jit`: where families are not fast, the last bits of what a network draws in float32 count.
    def draw(key, image):
        return jax.tree.map(lambda leaf: leaf.astype(config.dtype), model.init(key, image, train=False))

    return jax.device_get(draw(key, image))


def members_of(family, state):
    """Config, padded variables and own variables of each member in a family's state."""
    host, image = family.to_host(state), family.programs.image()
    for i, config in enumerate(family.configs):
        padded = jax.tree.map(lambda leaf, i=i: leaf[i], host.variables)
        model = build_model(config, family.dataset.num_classes)
        shapes = jax.eval_shape(lambda model=model: model.init(jax.random.key(0), image, train=False))
        yield config, padded, padding.unpad(padded, shapes)


def everything(workdir):
    """Every array that a sweep recorded, and what it goes on from."""
    found, sweep = {}, read_sweep(workdir)
    for number, pack in enumerate(sweep.packs):
        where = sweep.place(workdir, number)
        for epoch in stored.recorded_epochs(where):
            found[number, epoch] = stored.load_results(where, epoch)
            for place in range(len(pack.members)):
                found[number, epoch, place] = stored.load_member(where, epoch, place)
        epoch, path = stored.stored_states(where)[0]
        found[number, -1] = {"epoch": epoch} | stored.read_state(path, where)
    return found


def assert_identical(ours, theirs):
    assert ours.keys() == theirs.keys()
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
