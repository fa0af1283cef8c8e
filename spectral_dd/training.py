"""One member: its state, a training step, an epoch, evaluation. Nothing here knows that there are many.

Everything is a pure function of arrays, written to be mapped over members and compiled once: what differs
between members of a pack is in `Member`, what they share is in `Images`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt32

from spectral_dd import data
from spectral_dd.config import Config

# What a draw on the device is for: every one comes from a seed of the member, folded with its purpose.
TRAINING, SPECTRUM, INITIALISATION = range(3)

# Examples in a forward pass of the evaluation; bounds its memory.
EVALUATION_BATCH = 250


class Images(NamedTuple):
    """What the members of a pack share, as in the data set: images stay on the device as uint8."""

    train: Num[Array, "pool height width channel"]
    test: Num[Array, "test height width channel"]
    test_labels: Int[Array, " test"]


class Member(NamedTuple):
    """What differs between the members of a pack. `capacity` is the pack's largest training set; entries
    behind a member's own `size` are never used."""

    seed: UInt32[Array, ""]  # of the order of examples, augmentation and dropout
    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    momentum: Float[Array, ""]
    size: Int[Array, ""]
    example: Int[Array, " capacity"]  # place in Images.train of each training example
    labels: Int[Array, " capacity"]
    true_labels: Int[Array, " capacity"]
    noisy: Bool[Array, " capacity"]  # those that noisy_error is of


class State(NamedTuple):
    """A network and its optimiser between two steps."""

    variables: Any  # Linen variables: params and, with BatchNorm, batch_stats
    optimizer: Any
    step: Int[Array, ""]


def optimizer(config: Config, member: Member) -> optax.GradientTransformation:
    """The optimiser of one member; its rates are arrays, so that members share a program."""
    learning_rate = member.learning_rate

    def step_size(step):
        match config.schedule:
            case "constant":
                return -learning_rate
            case "inverse_sqrt":
                stage = (step // config.schedule_steps).astype(learning_rate.dtype)
                return -learning_rate / jnp.sqrt(1 + stage)
            case "cosine":
                total = config.epochs * (member.size // config.batch_size)
                return -learning_rate * (1 + jnp.cos(jnp.pi * step / total)) / 2

    decay = optax.add_decayed_weights(member.weight_decay)
    match config.optimizer:
        case "adam":
            rule = optax.chain(decay, optax.scale_by_adam())
        case "adamw":
            rule = optax.chain(optax.scale_by_adam(), decay)
        case "sgd":
            rule = optax.chain(decay, optax.trace(member.momentum))
    return optax.chain(rule, optax.scale_by_schedule(step_size))


def initial_state(config: Config, member: Member, variables: Any) -> State:
    return State(variables, optimizer(config, member).init(variables["params"]), jnp.zeros((), jnp.int32))


def train_step(
    model: nn.Module,
    config: Config,
    member: Member,
    state: State,
    images: Float[Array, "batch height width channel"],
    labels: Int[Array, " batch"],
    key: Key[Array, ""],
) -> State:
    """One step of the optimiser on the mean cross-entropy of a batch; `key` is for dropout."""
    params, statistics = state.variables["params"], without_params(state.variables)

    def loss(params):
        variables = {"params": params, **statistics}
        rngs, mutable = {"dropout": key}, list(statistics)
        logits, updated = model.apply(variables, images, train=True, rngs=rngs, mutable=mutable)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

    gradient, statistics = jax.grad(loss, has_aux=True)(params)
    updates, optimizer_state = optimizer(config, member).update(gradient, state.optimizer, params)
    variables = {"params": optax.apply_updates(params, updates), **statistics}
    return State(variables, optimizer_state, state.step + 1)


def without_params(variables: Any) -> dict[str, Any]:
    return {name: tree for name, tree in variables.items() if name != "params"}


def train_epochs(
    model: nn.Module,
    config: Config,
    member: Member,
    state: State,
    images: Images,
    start: Int[Array, ""],
    stop: Int[Array, ""],
    max_steps: Int[Array, ""],
) -> State:
    """Epochs `start` to `stop` - 1, each a pass over the freshly shuffled training set, or its first `max_steps` steps.

    The draws of an epoch depend on the member's seed and the epoch alone, so training can stop and go on
    anywhere. The numbers are arrays: one program serves any of them.
    """
    seed = jax.random.key(member.seed)
    capacity = member.example.shape[0]

    def epoch(e, state):
        order_key, *keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(seed, TRAINING), e), 3)
        order = data.epoch_order(order_key, member.size, capacity)

        def step(i, state):
            augment_key, dropout_key = (jax.random.fold_in(key, i) for key in keys)
            batch = lax.dynamic_slice_in_dim(order, i * config.batch_size, config.batch_size)
            x = data.augment(augment_key, images.train[member.example[batch]], config.shift, config.flip)
            x = data.to_unit(x, jnp.dtype(config.param_dtype))
            return train_step(model, config, member, state, x, member.labels[batch], dropout_key)

        return lax.fori_loop(0, jnp.minimum(member.size // config.batch_size, max_steps), step, state)

    return lax.fori_loop(start, stop, epoch, state)


def evaluate(
    model: nn.Module, config: Config, member: Member, state: State, images: Images
) -> dict[str, Float[Array, ""] | Bool[Array, ""]]:
    """Losses and errors of the whole training and test set, in evaluation mode and without augmentation.

    Returns:
      train_loss, train_error (labels trained on), clean_error (true labels), noisy_error (examples of
      the noisy split, labels trained on; NaN where there are none), test_loss, test_error, and `finite`: whether the
      loss and every parameter are. Errors are NaN where a logit is.
    """

    dtype = jnp.dtype(config.param_dtype)

    def is_wrong(logits, labels):
        wrong = (jnp.argmax(logits, axis=-1) != labels).astype(dtype)
        return jnp.where(jnp.isfinite(logits).all(axis=-1), wrong, jnp.nan)

    capacity, test_size = member.example.shape[0], images.test.shape[0]
    batch_size = min(EVALUATION_BATCH, max(capacity, test_size))
    train_batches = -(-member.size // batch_size)

    def add_batch(k, totals):
        # Both sets go through one loop, so that the network is compiled once.
        is_test = k >= train_batches
        place = jnp.where(is_test, k - train_batches, k) * batch_size + jnp.arange(batch_size)
        i, j = jnp.minimum(place, capacity - 1), jnp.minimum(place, test_size - 1)
        x = jnp.where(is_test, images.test[j], images.train[member.example[i]])
        labels = jnp.where(is_test, images.test_labels[j], member.labels[i])
        logits = model.apply(state.variables, data.to_unit(x, dtype), train=False)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        wrong = is_wrong(logits, labels)
        of_train, of_test = ~is_test & (place < member.size), is_test & (place < test_size)
        counted = {
            "train_loss": (loss, of_train),
            "train_error": (wrong, of_train),
            "clean_error": (is_wrong(logits, member.true_labels[i]), of_train),
            "noisy_error": (wrong, of_train & member.noisy[i]),
            "test_loss": (loss, of_test),
            "test_error": (wrong, of_test),
        }
        return {name: totals[name] + jnp.where(of, values, 0).sum() for name, (values, of) in counted.items()}

    zeros = dict.fromkeys(("train_loss", "train_error", "clean_error", "noisy_error", "test_loss", "test_error"))
    zeros = {name: jnp.zeros((), dtype) for name in zeros}
    totals = lax.fori_loop(0, train_batches + -(-test_size // batch_size), add_batch, zeros)
    noisy = jnp.sum(member.noisy & (jnp.arange(capacity) < member.size))
    counts = {"noisy_error": noisy, "test_loss": test_size, "test_error": test_size}
    means = {name: total / counts.get(name, member.size) for name, total in totals.items()}
    parameters = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.variables["params"])]
    return means | {"finite": jnp.isfinite(means["train_loss"]) & jnp.stack(parameters).all()}
