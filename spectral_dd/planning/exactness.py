"""Whether zero padding is exact for networks of one's own: tried in float64, before their members share a pack.

Our own architectures are exact, which the tests show. Of others nothing is known until it is tried.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from spectral_dd import devices, models, padding
from spectral_dd.config import Config
from spectral_dd.data import Dataset, to_unit
from spectral_dd.errors import InputError
from spectral_dd.training import Member, initial_state, train_step, without_params

# Of the largest number of an array: what sums in another order may differ by, with room to spare.
TOLERANCE = 1e-9
EXAMPLES = 6


def exact_models(configs: Sequence[Config], datasets: dict[str, Dataset]) -> set[str]:
    """The models of a sweep whose members may be padded to a common width. Says on stderr which may not, and why."""
    exact = {c.model for c in configs if c.model in models.MODELS}
    for name in dict.fromkeys(c.model for c in configs if c.model not in exact):
        members = sorted((c for c in configs if c.model == name), key=lambda c: c.width)
        if members[0].width < members[-1].width:
            broken = what_breaks(members[0], members[-1].width, datasets[members[0].dataset])
            if broken:
                print(f"--model={name}: zero padding changes it, {broken}: packs of equal width", file=sys.stderr)
            else:
                exact.add(name)
    return exact


def what_breaks(config: Config, width: int, dataset: Dataset) -> str:
    """What zero-padding a member's network to a width changes, the first in the order of computation.

    The narrow and the padded network are compared in outputs of every layer, outputs of the network in training and in
    evaluation mode, gradients, and everything that one step of the member's optimiser changes. What the padding adds
    must have a gradient of exactly 0 and be 0 after the step, or it would grow.

    Args:
      config: the member.
      width: larger than its own.
      dataset: that it names.

    Returns:
      The name of a parameter and what happens to it, in words; empty if zero padding is exact.
    """
    with devices.numerics(x64=True), _on_the_cpu():
        config = config.replace(dtype="float64")
        try:
            narrow, wide = (
                models.build_model(config.replace(width=w), dataset.num_classes) for w in (config.width, width)
            )
            return _compare(config, narrow, wide, dataset)
        except InputError:
            raise
        except Exception as error:  # whatever a network of somebody else raises
            return f"it cannot be tried in float64 ({' '.join(str(error).split())[:200]})"


@contextlib.contextmanager
def _on_the_cpu() -> Iterator[None]:
    """On the CPU, where float64 is at home, if this process has it."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        yield
        return
    with jax.default_device(cpu):
        yield


def _compare(config: Config, narrow: nn.Module, wide: nn.Module, dataset: Dataset) -> str:
    images = to_unit(jnp.asarray(dataset.train_images[:EXAMPLES]), jnp.float64)
    variables = _variables(narrow, images)
    shapes = jax.eval_shape(lambda x: wide.init(jax.random.key(0), x, train=False), images)
    if name := _misfit(variables, shapes):
        return f"{name} is not the corner of a wider one"
    padded = padding.pad(variables, shapes)
    classes = dataset.num_classes
    (names, ours), (_, theirs) = (
        _observe(config, m, v, images, classes) for m, v in ((narrow, variables), (wide, padded))
    )
    for layer, a, b in zip(names, ours["layers"], theirs["layers"], strict=True):
        if not _is_corner(a, b):
            return f"{_parameter(variables, layer)}: the output of its layer differs"
    for mode in ("training", "evaluation"):
        if not _is_corner(ours[mode], theirs[mode]):
            return f"the outputs in {mode} mode differ"

    def in_order(tree: Any) -> list[tuple[str, Any]]:
        leaves = [(_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]
        layers = ["/".join(name.split("/")[1:-1]) for name, _ in leaves]
        return [
            leaves[i]
            for i in sorted(range(len(leaves)), key=lambda i: names.index(layers[i]) if layers[i] in names else -1)
        ]

    for what, say in (("gradient", "its gradient"), ("after", "what a step makes of it")):
        for (name, a), (_, b) in zip(in_order(ours[what]), in_order(theirs[what]), strict=True):
            if not _is_corner(a, b):
                return f"{name}: {say} differs"
            if np.count_nonzero(b) > np.count_nonzero(b[tuple(slice(n) for n in a.shape)]):
                return f"{name}: {say} is not 0 where it is padded"
    return ""


def _variables(model: nn.Module, images: Any) -> Any:
    """Any variables but the first ones: a bias or a scale that is still 0 or 1 would hide what it does."""
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> np.ndarray:
        if leaf.ndim > 1:
            return rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return rng.uniform(0.5, 1.5, leaf.shape)  # a variance is one of them

    return jax.tree.map(draw, jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images))


def _misfit(narrow: Any, wide: Any) -> str:
    """The first variable that is no corner of the wide network's of its name."""
    ours, theirs = ({_name(p): leaf for p, leaf in jax.tree.leaves_with_path(tree)} for tree in (narrow, wide))
    for name in (*ours, *theirs):
        if name not in ours or name not in theirs:
            return name
        a, b = ours[name].shape, theirs[name].shape
        if len(a) != len(b) or any(n > w for n, w in zip(a, b, strict=True)):
            return name
    return ""


def _observe(
    config: Config, model: nn.Module, variables: Any, images: Any, num_classes: int
) -> tuple[list[str], dict[str, Any]]:
    """The layers in the order in which they end, and everything that is compared, on the host."""
    names: list[str] = []
    labels, key = jnp.arange(len(images)) % num_classes, jax.random.key(1)

    def observe(variables):
        statistics = without_params(variables)

        def loss(params):
            layers = {}

            def record(method, arguments, options, context):
                y = method(*arguments, **options)
                if context.method_name == "__call__" and context.module.path and isinstance(y, jax.Array):
                    layers["/".join(context.module.path)] = y
                return y

            with nn.intercept_methods(record):
                options: Any = {"rngs": {"dropout": key}, "mutable": list(statistics)}
                z, _ = model.apply({"params": params, **statistics}, images, train=True, **options)
            names[:] = layers
            return optax.softmax_cross_entropy_with_integer_labels(z, labels).mean(), (z, list(layers.values()))

        gradient, (z, layers) = jax.grad(loss, has_aux=True)(variables["params"])
        member = _member(config)
        state = train_step(model, config, member, initial_state(config, member, variables), images, labels, key)
        evaluation = model.apply(variables, images, train=False)
        # One tree for the names of parameters and statistics; the optimiser's moments follow the gradient.
        after = {"params": state.variables["params"], **without_params(state.variables)}
        return {
            "layers": layers, "training": z, "evaluation": evaluation, "gradient": {"params": gradient}, "after": after,
        }  # fmt: skip

    # It runs once: compiled in half the time.
    compiled = jax.jit(observe, compiler_options={"xla_backend_optimization_level": 0})
    found = jax.tree.map(np.asarray, compiled(variables))
    return list(names), found


def _member(config: Config) -> Member:
    """What the optimiser needs of a member."""
    rates: Any = {n: jnp.float64(getattr(config, n)) for n in ("learning_rate", "weight_decay", "momentum")}
    unused: Any = dict.fromkeys(Member._fields)
    return Member(**unused | rates | {"size": jnp.int32(config.train_size)})


def _is_corner(narrow: np.ndarray, wide: np.ndarray) -> bool:
    """Whether an array is the leading corner of another, up to rounding."""
    if narrow.ndim != wide.ndim or any(n > w for n, w in zip(narrow.shape, wide.shape, strict=True)):
        return False
    corner = wide[tuple(slice(n) for n in narrow.shape)]
    return bool(np.all(np.abs(corner - narrow) <= TOLERANCE * max(1.0, float(np.abs(narrow).max(initial=0)))))


def _parameter(variables: Any, layer: str) -> str:
    """The kernel or scale of a layer, which come last in the alphabet, or the layer if it has no parameters."""
    names = [_name(path) for path, _ in jax.tree.leaves_with_path(variables["params"])]
    own = [f"params/{name}" for name in names if name.startswith(layer + "/")]
    return own[-1] if own else layer


def _name(path: Any) -> str:
    return "/".join(str(getattr(key, "key", key)) for key in path)
