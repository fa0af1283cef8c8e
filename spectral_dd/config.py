"""`Config`, the description of one member of a sweep, and the errors that users see.

Each field says here, once, what it means, what is allowed, and whether it is *static* (it shapes the
compiled program) or *per-member* (an array along the member axis of a pack). Nothing here touches a device.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """The user gave something that cannot work. The message is one line that names the flag or file, the
    value and what is allowed; the scripts print it and exit with status 2."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read. The message is one line that names the directory, epoch and
    array; the scripts print it and exit with status 1."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean X?' for the known name nearest to `name`, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def _field(default: Any, help: str, *, static: bool, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "static": static, **limits})


def _static(default: Any, help: str, **limits: Any) -> Any:
    return _field(default, help, static=True, **limits)


def _per_member(default: Any, help: str, **limits: Any) -> Any:
    return _field(default, help, static=False, **limits)


@dataclasses.dataclass(frozen=True)
class Config:
    """One member: a network, its training set, how it is trained and how its spectrum is measured.

    Raises:
      InputError: a field has the wrong type or is out of range, or two fields contradict each other.
    """

    # The network.
    model: str = _static("cnn5", "architecture")
    width: int = _per_member(8, "number of channels or hidden units that scales the architecture", min=1)
    seed: int = _per_member(
        0, "seed of the subset, the label noise, the initial weights, the order of examples and the spectrum's draws",
        min=0, max=2**31 - 1,
    )  # fmt: skip
    dtype: str = _static(
        "float32",
        "type of the computation; with bfloat16, parameters, BatchNorm statistics and spectra are float32",
        choices=("float32", "bfloat16", "float64"),
    )
    initializer: str = _static(
        "uniform",
        "initial weights: uniform: within 1/sqrt(fan_in), biases too; he_normal: variance 2/fan_in, no biases",
        choices=("uniform", "he_normal"),
    )

    # The data.
    dataset: str = _static(
        "digits", "'digits' (embedded), 'mnist1d', or the name of any TFDS image classification data set"
    )
    channels: int = _static(0, "channels that the images must have; 0: any", min=0)
    train_size: int = _per_member(0, "training examples, a seeded subset; smaller ones are nested; 0: all", min=0)
    label_noise: float = _per_member(0.0, "fraction of the training labels that noise is applied to", min=0, max=1)
    noise_kind: str = _per_member(
        "symmetric",
        "permute: the labels of a random subset are shuffled; symmetric: always a wrong label; uniform: any label",
        choices=("permute", "symmetric", "uniform"),
    )
    shift: int = _static(0, "augmentation: random shift by up to so many pixels, zeros enter", min=0)
    flip: bool = _static(False, "augmentation: random horizontal flip")

    # Training.
    epochs: int = _static(100, "passes over the member's training set", min=1)
    batch_size: int = _static(128, "examples in a step; what is left of a shuffled epoch is dropped", min=1)
    optimizer: str = _static(
        "adam",
        "adam (weight decay added to the gradient), adamw (decoupled), sgd (with momentum)",
        choices=("adam", "adamw", "sgd"),
    )
    learning_rate: float = _per_member(1e-3, "initial learning rate", min=0)
    weight_decay: float = _per_member(0.0, "weight decay", min=0)
    momentum: float = _per_member(0.9, "momentum of sgd", min=0, max=1)
    schedule: str = _static(
        "constant",
        "learning rate over steps: constant, inverse_sqrt: 1/sqrt(1 + floor(step / schedule_steps)), "
        "cosine: to zero at the last step",
        choices=("constant", "inverse_sqrt", "cosine"),
    )
    schedule_steps: int = _static(512, "length of a stage of the inverse_sqrt schedule", min=1)
    records_per_decade: int = _static(
        10, "recorded epochs (metrics, spectra, checkpoint) in a factor of ten of epochs", min=1
    )

    # The spectrum.
    spectrum_examples: int = _static(400, "examples of each split whose spectrum is recorded; 0: no spectra", min=0)
    spectrum_points: int = _static(128, "points N on the segment through an example; even", min=4)
    spectrum_half_width: float = _static(0.5, "half width h of the segment, L2 distance in input space", above=0)
    spectrum_direction: str = _static(
        "random",
        "random: normal draws; adversarial: gradient of the cross-entropy at the predicted class; same_class, "
        "other_class: towards training examples that (truly) are of the example's class or not",
        choices=("random", "adversarial", "same_class", "other_class"),
    )
    spectrum_directions: int = _static(1, "directions through each example; adversarial has one", min=1)
    spectrum_output: str = _static("logits", "what of the network is analysed", choices=("logits", "softmax"))
    spectrum_window: str = _static(
        "hann",
        "window of the residual spectrum, after a straight line is removed: none, hann, or sine: four sine tapers",
        choices=("none", "hann", "sine"),
    )
    spectrum_measures: int = _static(
        64,
        "examples of each split whose input Jacobian, size of the logits, linear regions, loss, margin and "
        "optimization variance are recorded; at most spectrum_examples; 0: none",
        min=0,
    )
    spectrum_updates: int = _static(8, "one-batch updates whose variance is measured", min=2)
    spectrum_budget: float = _static(
        1.0,
        "largest share of the work that spectra and measures may take; recorded epochs are left out to keep to it",
        min=0,
        max=1,
    )
    spectrum_augment: bool = _static(False, "augment the examples of the training split as in training")
    spectrum_resample: bool = _static(False, "draw other examples, directions and augmentations at each epoch")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, check_value(field, getattr(self, field.name)))
        if self.spectrum_points % 2:
            raise InputError(f"--spectrum_points={self.spectrum_points}: must be even")
        if self.spectrum_direction == "adversarial" and self.spectrum_directions > 1:
            raise InputError(f"--spectrum_directions={self.spectrum_directions}: must be 1 with adversarial directions")
        if 0 < self.train_size < self.batch_size:
            raise InputError(
                f"--batch_size={self.batch_size}: larger than the training set (--train_size={self.train_size})"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.train_size // self.batch_size

    @property
    def param_dtype(self) -> str:
        """Type of parameters, statistics, rates, inputs and logits."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    def static(self) -> dict[str, Any]:
        """The fields that shape the program; members that agree on them can share a pack."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["static"]}


def check_value(field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` as the field's type; raises `InputError` if it has none or is not allowed.

    Text is parsed, so this is the flags' parser as well.
    """
    flag, limits = f"--{field.name}={value}", field.metadata
    if field.type is bool:
        if str(value).lower() not in ("true", "false"):
            raise InputError(f"{flag}: must be true or false")
        return str(value).lower() == "true"
    if field.type is str:
        choices = limits.get("choices")
        if choices and value not in choices:
            raise InputError(f"{flag}: must be one of {', '.join(choices)}.{nearest(str(value), choices)}")
        return str(value)
    allowed = "a whole number" if field.type is int else "a number"
    if "min" in limits and "max" in limits:
        allowed += f" from {limits['min']} to {limits['max']}"
    elif "min" in limits:
        allowed += f" of at least {limits['min']}"
    elif "above" in limits:
        allowed += f" above {limits['above']}"
    try:
        number = field.type(value)  # type: ignore[operator]
        ok = number == float(value) and math.isfinite(number)
    except (ValueError, TypeError, OverflowError):
        ok = False
    if (
        not ok
        or number < limits.get("min", number)
        or number > limits.get("max", number)
        or ("above" in limits and number <= limits["above"])
    ):
        raise InputError(f"{flag}: must be {allowed}")
    return number
