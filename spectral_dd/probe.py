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
from jaxtyping import Array, Float, Int, Shaped

from spectral_dd import data, measures, models, own_measures, spectrum
from spectral_dd.config import Config
from spectral_dd.data import Dataset, Draws
from spectral_dd.data.streams import Stream, generator
from spectral_dd.records import SPLITS
from spectral_dd.segments import on_segments
from spectral_dd.training import SPECTRUM, Images


class Probe(NamedTuple):
    """The examples of a split that a member is analysed at."""

    images: Int[Array, " probe"]  # places in Images.train or .test; -1: none
    labels: Int[Array, " probe"]  # trained on; true ones of the test set
    partners: Int[Array, "probe direction"]  # places in Images.train that directions point to; -1: none


# Planes through three test examples, and points along a side of each.
PLANES, PLANE_POINTS = 4, 12

# The neighbourhood of an example whose local complexity is measured: orthogonal directions, and their length.
HULL_DIRECTIONS, HULL_RADIUS = 4, 0.005

# Examples of each split at whose segments the energy of rounding is measured. It hardly differs between examples.
NOISE_EXAMPLES = 4

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


def planes(dataset: Dataset) -> Int[np.ndarray, "plane 3"]:
    """Chooses test examples, three of different classes for each plane (of any, if there are fewer than three classes).

    They depend on the data set alone: networks of different seeds are compared on the same planes.
    """
    order = generator(Stream.PLANES).permutation(len(dataset.test_labels))
    classes = dataset.test_labels[order]
    if len(np.unique(classes)) < 3:
        classes = np.arange(len(order))
    chosen = []
    for plane in range(PLANES):
        places, their_classes = np.roll(order, -3 * plane), np.roll(classes, -3 * plane)
        _, first = np.unique(their_classes, return_index=True)
        chosen.append(np.resize(places[np.sort(first)[:3]], 3))
    return np.stack(chosen).astype(np.int32)


def spectra(
    model: nn.Module,
    config: Config,
    max_batch: int,
    probed: Probed,
    state: Any,
    images: Images,
    epoch: Int[Array, ""],
    planes: Int[Array, "plane 3"],
) -> dict[str, Array]:
    """Spectra around the probes, and what else is measured along their segments, by derivatives, and on planes.

    The examples of all splits go through one program: compiling it is what a short sweep spends most on.

    Args:
      max_batch: inputs that go through the network at a time.

    Returns:
      The names of `spectrum.LineSpectra`, of `_around_examples`, and one's own: `(split, example, ...)`, NaN where a
      split has fewer examples; and with `spectrum_measures`, `plane_label`: `(plane, point)`, the class of the largest
      output at points of planes through three test examples, see `planes`; NaN where an output is not finite.
    """
    asked, sizes = config.spectrum, [len(probe.images) for probe in probed[1]]
    key, inputs = _inputs(config, probed, images, epoch)
    x = jnp.concatenate(inputs)
    segment: dict[str, Any] = {"num_points": asked.points, "half_width": asked.half_width}
    t = spectrum.offsets(**segment)

    def sample(segments):
        x, v = segments
        outputs = on_segments(model, state.variables, x, v, t)
        return jax.nn.softmax(outputs) if asked.output == "softmax" else outputs

    v = _directions(config, key, inputs, probed, images, _logits_of(model, state), max_batch)
    sampled = [spectrum.flat_segments(x, v)]
    if asked.measures:
        # What else is sampled goes through the same program as the segments.
        noise_sizes, rows = _first(sizes, min(asked.measures, NOISE_EXAMPLES))
        sampled.append((x[rows] + measures.shift_of_nearby(**segment) * v[rows, 0], v[rows, 0]))
        grid = measures.plane_segments(data.to_unit(images.test[planes], x.dtype), PLANE_POINTS, **segment)
        sampled.append(jax.tree.map(lambda a: a.reshape(-1, *x.shape[1:]), grid))
    outputs = spectrum.in_chunks(sample, jax.tree.map(lambda *a: jnp.concatenate(a), *sampled), max_batch // len(t))
    outputs, *others = jnp.split(outputs, np.cumsum([len(x) for x, _ in sampled])[:-1])
    outputs = outputs.reshape(*v.shape[:2], *outputs.shape[1:])
    of_segments = spectrum.spectra_of(outputs, asked.window, max_batch // len(t))
    results = _by_split(config, probed, of_segments._asdict(), sizes)
    if asked.measures:
        shifted, on_planes = others
        noise = measures.rounding_energy(jnp.stack([outputs[rows, 0], shifted], axis=1), asked.window)
        results |= _by_split(config, probed, {"noise_energy": noise}, noise_sizes)
        on_planes = on_planes.reshape(PLANES, PLANE_POINTS, -1, on_planes.shape[-1])[:, :, :PLANE_POINTS]
        label = jnp.where(jnp.isfinite(on_planes).all(axis=-1), jnp.argmax(on_planes, axis=-1), jnp.nan)
        results["plane_label"] = label.reshape(PLANES, -1).astype(x.dtype)
        measured, rows = _first(sizes, asked.measures)
        labels = jnp.concatenate([probe.labels for probe in probed[1]])[rows]
        found = _around_examples(model, config, max_batch, state, key, x[rows], v[rows], labels)
        results |= _by_split(config, probed, found, measured)
    return results


def _around_examples(model, config: Config, max_batch: int, state, key, x, v, labels) -> dict[str, Array]:
    """What is measured beside spectra: by derivatives, by what units choose, and one's own."""
    segment: dict[str, Any] = {"num_points": config.spectrum.points, "half_width": config.spectrum.half_width}
    # Few inputs through the plainest program: others take longer to compile, and are hardly faster.
    plain = _logits_of(models.with_fields(model, convolution="im2col"), state)
    z, products = measures.output_products(plain, x, max_batch=max_batch)
    u = measures.orthonormal_directions(jax.random.fold_in(key, len(SPLITS) + 1), HULL_DIRECTIONS, x[0].size, x.dtype)
    found = {
        "logit_norm": jnp.linalg.norm(z, axis=-1),
        "loss": optax.softmax_cross_entropy_with_integer_labels(z, labels),
        "margin": measures.margin(z, labels),
        "jacobian_norm": measures.jacobian_norm(products),
        "loss_curvature": measures.loss_curvature(z, products),
        **measures.kinks(plain, x, v, u, **segment, radius=HULL_RADIUS, max_batch=max_batch)._asdict(),
    }
    if config.measure:
        own, f = own_measures.find(config.measure), _logits_of(model, state)
        in_chunks = functools.partial(spectrum.in_chunks, xs=(x, v), size=max_batch // config.spectrum.points)
        values = in_chunks(lambda pair: {g.__name__: g(f, *pair) for g in own})
        found |= {name: value.astype(x.dtype) for name, value in values.items()}
    return found


def logits(
    model: nn.Module, config: Config, max_batch: int, probed: Probed, state: Any, images: Images, epoch: Int[Array, ""]
) -> Float[Array, "split example class"]:
    """The logits at the first `spectrum_measures` probes, NaN where a split has fewer. Arguments as in `spectra`."""
    _, inputs = _inputs(config, probed, images, epoch)
    inputs = [split[: config.spectrum.measures] for split in inputs]
    plain = _logits_of(models.with_fields(model, convolution="im2col"), state)
    z = spectrum.in_chunks(plain, jnp.concatenate(inputs), max_batch)
    return _by_split(config, probed, {"logits": z}, [len(x) for x in inputs])["logits"]


def _logits_of(model: Any, state: Any) -> Any:
    """The function of images that a network is in evaluation mode."""
    return functools.partial(model.apply, state.variables, train=False)


def _first(sizes: Sequence[int], number: int) -> tuple[list[int], np.ndarray]:
    """The first examples of each split: how many, and their rows among all examples."""
    kept = [min(size, number) for size in sizes]
    return kept, np.concatenate([np.arange(n) + sum(sizes[:i]) for i, n in enumerate(kept)])


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
            # Of all splits at once, as many as the largest needs: each draw of a program takes long to compile.
            keys, largest = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(inputs))), max(inputs, key=len)
            drawn = jax.vmap(lambda key: spectrum.random_directions(key, config.spectrum.directions, largest))(keys)
            return jnp.concatenate([v[: len(x)] for v, x in zip(drawn, inputs, strict=True)])
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
