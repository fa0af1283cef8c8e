"""What several test modules need: families, sweeps, and what they recorded."""

import jax
import numpy as np

from spectral_dd import padding, stored
from spectral_dd.data import draw_all
from spectral_dd.family import Family
from spectral_dd.models import build_model
from spectral_dd.sweeps import read_sweep


def family_of(configs, dataset, *arguments, **options):
    draws = draw_all(configs, dict.fromkeys((c.dataset for c in configs), dataset))
    return Family(configs, dataset, draws, *arguments, **options)


def initial_variables(config, dataset):
    """The first variables of a member, drawn alone."""
    image = np.zeros((1, *dataset.train_images.shape[1:]), config.dtype)
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    variables = jax.jit(build_model(config, dataset.num_classes).init, static_argnames="train")(key, image, train=False)
    return jax.tree.map(lambda leaf: leaf.astype(config.dtype), variables)


def members_of(family, state):
    """Config, padded variables and own variables of each member in a family's state."""
    host = family.to_host(state)
    for i, config in enumerate(family.configs):
        padded = jax.tree.map(lambda leaf, i=i: leaf[i], host.variables)
        shapes = jax.eval_shape(lambda config=config: initial_variables(config, family.dataset))
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
