"""Which examples of a member are analysed, and what is measured around them. Knows one member.

On the host, `probes` chooses the examples; on the device, `spectra` and `outputs` measure. What the measures are is in
`spectrum.py` and `measures.py`.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Shaped

from spectral_dd import data, measures, models, own_measures, spectrum
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws
from spectral_dd.records import SPLITS
from spectral_dd.segments import on_segments
from spectral_dd.training import SPECTRUM, Images


class Probe(NamedTuple):
    """The examples of a split that a member is analysed at."""

    images: Int[Array, " probe"]  # places in Images.train or .test; -1: none
    labels: Int[Array, " probe"]  # trained on; true ones of the test set
    partners: Int[Array, "probe direction"]  # places in Images.train that directions point to; -1: none


# The seed of a member, and its probes of each split.
Probed = tuple[Shaped[Array, ""], tuple[Probe, ...]]


def probes(
    config: Config, draws: Draws, dataset: Dataset, epoch: int
) -> tuple[tuple[Probe, ...], dict[str, np.ndarray]]:
    """Chooses the examples of each split, on the host.

    They are the first of the (shuffled) training set, of those of it that `noisy_split` says and of the shuffled test
    set; with `spectrum_resample` any, drawn anew for each epoch.

    Returns:
      A `Probe` for each split; and what the examples are, `(split, example)`: `index`, `label`, `true_label` and
      `relabelled` as in `records.MEASURED`, NaN where there is none.
    """
    asked, epoch = config.spectrum, epoch if config.spectrum.resample else 0
    test_labels = dataset.test_labels[draws.test_order]
    splits = (
        (draws.index, draws.labels, draws.true_labels),
        tuple(a[draws.noisy] for a in (draws.index, draws.labels, draws.true_labels)),
        (draws.test_order, test_labels, test_labels),
    )
    chosen, examples = [], np.full((4, len(SPLITS), asked.examples), np.nan, np.float32)
    for number, (name, split) in enumerate(zip(SPLITS, splits, strict=True)):
        order = np.arange(len(split[0]))
        if asked.resample:
            order = data.resample(order, config.seed, epoch)
        images, labels, true_labels = (a[order[: asked.examples]] for a in split)
        places = dataset.test_places if name == "test" else dataset.train_places
        index = images if places is None else places[images]
        examples[:, number, : len(images)] = index, labels, true_labels, labels != true_labels
        partners = np.full((len(images), asked.directions), -1)
        if asked.direction in ("same_class", "other_class"):
            partners = data.partners(
                draws,
                own_index=np.full(len(images), -1) if name == "test" else images,
                classes=true_labels,
                same=asked.direction == "same_class",
                num=asked.directions,
                seed=(config.seed, epoch, number),
            )
        arrays: tuple[Any, ...] = (images, labels, partners)  # of the host, of which the device gets copies
        chosen.append(Probe(*arrays))
    return tuple(chosen), dict(zip(("index", "label", "true_label", "relabelled"), examples, strict=True))


def spectra(
    model: nn.Module, config: Config, max_batch: int, probed: Probed, state: Any, images: Images, epoch: Int[Array, ""]
) -> dict[str, Array]:
    """Spectra around the probes, and what else is measured along their segments or by derivatives.

    The examples of all splits go through one program: compiling it is what a short sweep spends most on.

    Args:
      max_batch: inputs that go through the network at a time.

    Returns:
      The names of `spectrum.LineSpectra`, `jacobian_norm`, `linear_regions` and one's own: `(split, example, ...)`,
      NaN where a split has fewer examples.
    """
    asked, sizes = config.spectrum, [len(probe.images) for probe in probed[1]]
    key, inputs = _inputs(config, probed, images, epoch)
    x = jnp.concatenate(inputs)

    def logits(inputs, model=model):
        return model.apply(state.variables, inputs, train=False)

    def sample(x, v, t):
        outputs = on_segments(model, state.variables, x, v, t)
        return jax.nn.softmax(outputs) if asked.output == "softmax" else outputs

    v = _directions(config, key, inputs, probed, images, logits, max_batch)
    segment: dict[str, Any] = {"num_points": asked.points, "half_width": asked.half_width}
    found = spectrum.sampled_spectra(sample, x, v, **segment, window=asked.window, max_batch=max_batch)
    results = _by_split(config, probed, found._asdict(), sizes)
    if asked.measures:
        measured = [min(size, asked.measures) for size in sizes]
        rows = np.concatenate([np.arange(n) + sum(sizes[:i]) for i, n in enumerate(measured)])
        # The derivative along a segment is a forward one, which not every lowering has.
        forwards = functools.partial(logits, model=models.with_fields(model, convolution="im2col"))
        others = {
            "jacobian_norm": measures.jacobian_norm(logits, x[rows], max_batch=max_batch),
            "linear_regions": measures.linear_regions(forwards, x[rows], v[rows], **segment, max_batch=max_batch),
        }
        if config.measure:
            own = own_measures.find(config.measure)
            pairs, few = (x[rows], v[rows]), max(1, max_batch // asked.points)
            values = spectrum.in_chunks(lambda pair: own(logits, *pair), pairs, few)
            others[own.__name__] = values.astype(x.dtype)
        results |= _by_split(config, probed, others, measured)
    return results


def outputs(
    model: nn.Module, config: Config, max_batch: int, probed: Probed, state: Any, images: Images, epoch: Int[Array, ""]
) -> dict[str, Array]:
    """The logits (`outputs`) at the first `spectrum_measures` probes, and what follows from them: `logit_norm`, `loss`,
    `margin`. Shapes and arguments as in `spectra`."""
    _, inputs = _inputs(config, probed, images, epoch)
    inputs = [split[: config.spectrum.measures] for split in inputs]
    labels = jnp.concatenate([probe.labels[: len(x)] for probe, x in zip(probed[1], inputs, strict=True)])
    logits = functools.partial(model.apply, state.variables, train=False)
    z = spectrum.in_chunks(logits, jnp.concatenate(inputs), max_batch)
    results = {
        "outputs": z,
        "logit_norm": jnp.linalg.norm(z, axis=-1),
        "loss": optax.softmax_cross_entropy_with_integer_labels(z, labels),
        "margin": measures.margin(z, labels),
    }
    return _by_split(config, probed, results, [len(x) for x in inputs])


def _inputs(config: Config, probed: Probed, images: Images, epoch: Int[Array, ""]) -> tuple[Array, list[Array]]:
    """The key of a member's draws for spectra, and the inputs of each split."""
    seed, probes = probed
    key = jax.random.fold_in(jax.random.key(seed), SPECTRUM)
    if config.spectrum.resample:
        key = jax.random.fold_in(key, epoch)
    inputs = []
    for split, probe in zip(SPLITS, probes, strict=True):
        x = (images.test if split == "test" else images.train)[jnp.maximum(probe.images, 0)]
        if config.spectrum.augment and split == "train":
            x = data.augment(jax.random.fold_in(key, len(SPLITS)), x, config.shift, config.flip)
        inputs.append(data.to_unit(x, jnp.dtype(config.param_dtype)))
    return key, inputs


def _directions(config, key, inputs: Sequence[Array], probed: Probed, images: Images, logits, max_batch: int) -> Array:
    """Directions through the examples of all splits, `(example, direction, ...)`."""
    match config.spectrum.direction:
        case "random":
            keys = [jax.random.fold_in(key, i) for i in range(len(inputs))]
            drawn = [
                spectrum.random_directions(key, config.spectrum.directions, x)
                for key, x in zip(keys, inputs, strict=True)
            ]
            return jnp.concatenate(drawn)
        case "adversarial":
            directions = functools.partial(spectrum.adversarial_directions, logits)
            return spectrum.in_chunks(directions, jnp.concatenate(inputs), max_batch)
    x, partners = jnp.concatenate(inputs), jnp.concatenate([probe.partners for probe in probed[1]])
    targets = data.to_unit(images.train[jnp.maximum(partners, 0)], x.dtype)
    missing = (partners < 0).reshape(*partners.shape, *(1,) * (x.ndim - 1))
    return jnp.where(missing, jnp.nan, spectrum.directions_towards(x, targets))


def _by_split(config: Config, probed: Probed, results: dict[str, Array], sizes: Sequence[int]) -> dict[str, Array]:
    """Cuts what was measured at so many examples of each split: leaves `(split, example, ...)`, NaN where none are."""

    def padded(values, images):
        is_there = images[: len(values)].reshape(-1, *(1,) * (values.ndim - 1)) >= 0
        behind = [(0, config.spectrum.examples - len(values)), *[(0, 0)] * (values.ndim - 1)]
        return jnp.pad(jnp.where(is_there, values, jnp.nan), behind, constant_values=jnp.nan)

    def cut(values):
        splits = jnp.split(values, np.cumsum(sizes)[:-1])
        return jnp.stack([padded(split, probe.images) for split, probe in zip(splits, probed[1], strict=True)])

    return jax.tree.map(cut, results)
