"""`Config`: one member of a sweep.

Each field says here, once, what it means, what is allowed, its unit, and whether it is *static* (it shapes the compiled
program) or *per-member* (an array along the member axis of a pack). Nothing here touches a device.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any, Self

from spectral_dd.errors import InputError, nearest

# What any number can be at most: on the devices they are int32 and float32. A field has less with `max`, which its
# messages name, or `most`, which only who exceeds it reads.
_LARGEST = {int: 2**31 - 1, float: 3.4e38}
# A type that is left open until a sweep is planned.
AUTO = "auto"


def _field(default: Any, help: str, *, static: bool, unit: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "static": static, "unit": unit, **limits})


def _static(default: Any, help: str, unit: str = "1", **limits: Any) -> Any:
    return _field(default, help, static=True, unit=unit, **limits)


def _per_member(default: Any, help: str, unit: str = "1", **limits: Any) -> Any:
    return _field(default, help, static=False, unit=unit, **limits)


def _seed(default: int, help: str) -> Any:
    return _per_member(default, help, min=min(default, 0), max=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class SpectrumConfig:
    """How the spectra and the other measures of a member are taken. The flag of a field is --spectrum_FIELD."""

    examples: int = _static(
        400, "examples of each split whose spectrum is recorded; 0: no spectra", unit="examples", min=0
    )
    points: int = _static(128, "points N on the segment through an example; even", unit="points", min=4, most=2**16)
    # Beyond, float32 has no different points on the segment, or no finite energies.
    half_width: float = _static(
        0.5, "half width h of the segment", unit="L2 distance in input space", min=1e-6, max=1e6
    )
    direction: str = _static(
        "random",
        "random: normal draws; adversarial: gradient of the cross-entropy at the predicted class; same_class, "
        "other_class: towards training examples whose true class is the example's, or another one",
        choices=("random", "adversarial", "same_class", "other_class"),
    )
    directions: int = _static(1, "directions through each example; adversarial has one", min=1)
    output: str = _static("logits", "what of the network is analysed", choices=("logits", "softmax"))
    window: str = _static(
        "hann",
        "window of the residual spectrum, after a straight line is removed: none, hann, or sine: four sine tapers",
        choices=("none", "hann", "sine"),
    )
    measures: int = _static(
        64,
        "examples of each split whose input Jacobian, size of the logits, linear regions, loss, margin and "
        "optimization variance are recorded; at most --spectrum_examples; 0: none",
        unit="examples",
        min=0,
    )
    updates: int = _static(8, "updates by one batch each whose variance is measured", min=2)
    from_epoch: int = _static(
        0, "first epoch with spectra and measures; the last one always has them", unit="epochs", min=0
    )
    budget: float = _static(
        1.0,
        "largest share of the work that spectra and measures may take; to keep to it, some recorded epochs have none",
        min=0,
        max=1,
    )
    augment: bool = _static(False, "augment the examples of the training split as in training")
    resample: bool = _static(False, "draw other examples, directions and augmentations at each epoch")

    def __post_init__(self) -> None:
        _check_fields(self, "spectrum_")
        if self.points % 2:
            raise InputError(f"--spectrum_points={self.points}: must be even")
        if self.direction == "adversarial" and self.directions > 1:
            raise InputError(f"--spectrum_directions={self.directions}: must be 1 with adversarial directions")


@dataclasses.dataclass(frozen=True)
class Config:
    """One member: a network, its training set, how it is trained and how its spectrum is measured.

    Fields are named as the flags are wherever names are text or keywords: `Config.of(width=4, spectrum_points=16)`.

    Raises:
      InputError: a field has the wrong type or is out of range, or two fields contradict each other.
    """

    # The network.
    model: str = _static("cnn5", "architecture: a known name, FILE.py:Class, or module:Class")
    width: int = _per_member(
        8, "number of channels or hidden units that scales the architecture", unit="channels", min=1, most=2**20
    )
    seed: int = _seed(0, "seed of all that is drawn: of the spectrum's draws, and of the following four")
    data_seed: int = _seed(-1, "seed of the training subset, and of the test examples that have spectra; -1: --seed")
    noise_seed: int = _seed(-1, "seed of the label noise; -1: --seed")
    init_seed: int = _seed(-1, "seed of the initial weights; -1: --seed")
    order_seed: int = _seed(-1, "seed of the order of examples, of augmentation and dropout; -1: --seed")
    dtype: str = _static(
        "float32",
        "type of the computation; with bfloat16, parameters, BatchNorm statistics and spectra are float32; auto: "
        "float32 or bfloat16, whichever takes less time, measured before a new sweep, and kept",
        choices=("float32", "bfloat16", "float64", AUTO),
    )
    matmul_precision: str = _static(
        "float32",
        "of products of float32 numbers in training and evaluation: float32; tensorfloat32: on a GPU TF32, on a TPU "
        "sums of three products of bfloat16; bfloat16: on a TPU bfloat16, on a GPU TF32; a CPU has float32 only",
        choices=("float32", "tensorfloat32", "bfloat16"),
    )
    initializer: str = _static(
        "uniform",
        "initial weights: uniform: within 1/sqrt(fan_in), biases too; he_normal: variance 2/fan_in, no biases",
        choices=("uniform", "he_normal"),
    )

    # The data.
    dataset: str = _static(
        "digits",
        "digits (embedded), mnist1d, FILE.npz, hf:NAME or hf:FOLDER of Hugging Face, or the name of a TFDS image "
        "classification data set",
    )
    image_feature: str = _static(
        "", "feature of a TFDS or Hugging Face set that has the images; '': image, or the only one"
    )
    label_feature: str = _static("", "feature that has the labels; '': label, or the only one")
    test_fraction: float = _static(
        0.0, "share of the examples that becomes the test set, where there is a training split only", min=0, max=0.9
    )
    channels: int = _static(0, "channels that the images must have; 0: any", unit="channels", min=0)
    train_size: int = _per_member(
        0, "training examples, a seeded subset; smaller ones are nested; 0: all", unit="examples", min=0
    )
    train_labels: str = _per_member(
        "",
        "labels trained on, instead of the true ones: FILE.npy or FILE.csv[:COLUMN] with an integer for each training "
        "image, or another feature of the data set",
    )
    label_noise: float = _per_member(0.0, "fraction of the training labels that noise is applied to", min=0, max=1)
    noise_kind: str = _per_member(
        "symmetric",
        "permute: the labels of a random subset are shuffled; symmetric: always a wrong label; uniform: any label; "
        "asymmetric: the label that noise_map gives",
        choices=("permute", "symmetric", "uniform", "asymmetric"),
    )
    noise_map: str = _per_member(
        "next",
        "of asymmetric noise: next: class c becomes c + 1, the last becomes 0; cifar10: truck to automobile, bird to "
        "airplane, deer to horse, cat and dog to each other; or FROM:TO/FROM:TO..., in class numbers; others stay",
        of=("noise_kind", "asymmetric"),
    )
    noisy_split: str = _static(
        "wrong",
        "examples of the noisy split and of noisy_error: wrong: those whose label is wrong; drawn: all that noise was "
        "applied to, as in the code of arXiv 2004.13954, some of which got their true label",
        choices=("wrong", "drawn"),
    )
    shift: int = _static(0, "augmentation: random shift by up to so many pixels, zeros enter", unit="pixels", min=0)
    flip: bool = _static(False, "augmentation: random horizontal flip")

    # Training.
    epochs: int = _static(100, "passes over the member's training set", unit="epochs", min=1)
    batch_size: int = _static(
        128, "examples in a step; what is left of a shuffled epoch is dropped", unit="examples", min=1
    )
    optimizer: str = _static(
        "adam",
        "adam (weight decay added to the gradient), adamw (decoupled), sgd (with momentum)",
        choices=("adam", "adamw", "sgd"),
    )
    learning_rate: float = _per_member(1e-3, "initial learning rate", min=0)
    weight_decay: float = _per_member(0.0, "weight decay", min=0)
    momentum: float = _per_member(0.9, "momentum of sgd", min=0, max=1, of=("optimizer", "sgd"))
    schedule: str = _static(
        "constant",
        "learning rate over steps: constant, inverse_sqrt: 1/sqrt(1 + floor(step / schedule_steps)), "
        "cosine: to zero at the last step",
        choices=("constant", "inverse_sqrt", "cosine"),
    )
    schedule_steps: int = _static(
        512, "length of a stage of the inverse_sqrt schedule", unit="steps", min=1, of=("schedule", "inverse_sqrt")
    )
    records_per_decade: int = _static(
        10, "recorded epochs (metrics, spectra, checkpoint) in a factor of ten of epochs", unit="epochs", min=1
    )

    # What is measured.
    measure: str = _static(
        "",
        "measures of your own, FILE.py:FUNCTION or FILE.py:F+G, recorded at the first --spectrum_measures examples of "
        "each split",
    )
    spectrum: SpectrumConfig = dataclasses.field(default_factory=SpectrumConfig)

    def __post_init__(self) -> None:
        _check_fields(self, "")
        if 0 < self.train_size < self.batch_size:
            raise InputError(
                f"--batch_size={self.batch_size}: larger than the training set (--train_size={self.train_size})"
            )
        if self.train_labels and self.label_noise:
            raise InputError(
                f"--train_labels={self.train_labels}: are the labels trained on; --label_noise={self.label_noise:g}: "
                "must be 0 with them"
            )

    @classmethod
    def of(cls, **values: Any) -> Self:
        """A member from values by flag name; what is not given has its default."""
        return cls._default().replace(**values)

    @classmethod
    @functools.cache
    def _default(cls) -> Self:
        return cls()

    def replace(self, **values: Any) -> Self:
        """The same member but for some values, by flag name.

        Raises:
          InputError: a name is unknown, or a value not allowed.
        """
        check_names(values)
        spectrum = {name.removeprefix("spectrum_"): v for name, v in values.items() if name.startswith("spectrum_")}
        rest = {name: value for name, value in values.items() if not name.startswith("spectrum_")}
        if spectrum:
            rest["spectrum"] = dataclasses.replace(self.spectrum, **spectrum)
        return type(self)(**vars(self) | rest)

    def values(self) -> dict[str, Any]:
        """All values by flag name, in the order of `FIELDS`."""
        own, spectrum = dict(vars(self)), vars(self.spectrum)
        del own["spectrum"]
        return own | {f"spectrum_{name}": value for name, value in spectrum.items()}

    def static(self) -> dict[str, Any]:
        """The values that shape the program, by flag name; members that agree on them can share a pack."""
        values = self.values()
        return {name: values[name] for name in _static_names()}

    def seed_of(self, what: str) -> int:
        """The seed of `data`, `noise`, `init` or `order`: its own, or the member's."""
        own: int = getattr(self, f"{what}_seed")
        return self.seed if own < 0 else own

    @property
    def steps_per_epoch(self) -> int:
        return self.train_size // self.batch_size

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def param_dtype(self) -> str:
        """Type of parameters, statistics, rates, inputs and logits."""
        return "float32" if self.dtype in ("bfloat16", AUTO) else self.dtype


# Every field by the name of its flag.
FIELDS: dict[str, dataclasses.Field] = {
    **{f.name: f for f in dataclasses.fields(Config) if f.name != "spectrum"},
    **{f"spectrum_{f.name}": f for f in dataclasses.fields(SpectrumConfig)},
}


def needs_x64(configs: Iterable[Config]) -> bool:
    """Whether a member computes in float64, which JAX must be told."""
    return any(config.dtype == "float64" for config in configs)


@functools.cache
def _static_names() -> list[str]:
    return [name for name, field in FIELDS.items() if field.metadata["static"]]


def check_names(names: Any, where: str = "") -> None:
    """Raises `InputError` if one of the names is no field's."""
    for name in names:
        if name not in FIELDS:
            raise InputError(f"{where}{name!r}: is no field of a member.{nearest(str(name), FIELDS)}")


def _check_fields(config: Any, prefix: str) -> None:
    # A sweep makes thousands of configs: what has its type and default needs no look, and what has its type is looked
    # at once.
    for name, field in _own_fields(config.__class__):
        value = getattr(config, name)
        if type(value) is not field.type:
            object.__setattr__(config, name, check_value(prefix + name, field, value))
        elif value != field.default:
            object.__setattr__(config, name, _check_once(prefix + name, field, value))


@functools.cache
def _own_fields(kind: Any) -> list[tuple[str, dataclasses.Field]]:
    return [(field.name, field) for field in dataclasses.fields(kind) if field.name != "spectrum"]


def check_value(name: str, field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` as the field's type; raises `InputError` if it has none or is not allowed.

    Text is parsed, so this is the flags' parser as well.
    """
    flag, limits = f"--{name}={value}", field.metadata
    if field.type is bool:
        if str(value).lower() not in ("true", "false"):
            raise InputError(f"{flag}: must be true or false")
        return str(value).lower() == "true"
    if field.type is str:
        choices = limits.get("choices")
        if choices and value not in choices:
            raise InputError(f"{flag}: must be one of {', '.join(choices)}.{nearest(str(value), choices)}")
        return str(value)
    try:
        number = field.type(value)  # type: ignore[operator]
        ok = not isinstance(value, bool) and number == float(value) and math.isfinite(number)
    except (ValueError, TypeError, OverflowError):
        ok = False
    largest = limits.get("max", limits.get("most", _LARGEST[field.type]))  # type: ignore[index]
    if not ok or not limits["min"] <= number <= largest:
        raise InputError(f"{flag}: must be {_allowed(field, largest if ok and number > largest else None)}")
    return number


_check_once = functools.lru_cache(2**14)(check_value)


def _allowed(field: dataclasses.Field, exceeded: float | None) -> str:
    limits, kind = field.metadata, "a whole number" if field.type is int else "a number"
    largest = limits.get("max", exceeded)
    if largest is None:
        return f"{kind} of at least {limits['min']}"
    return f"{kind} from {limits['min']} to {largest}"
