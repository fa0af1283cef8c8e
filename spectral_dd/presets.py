"""Published experiments, and the default one, as axes of a sweep that flags override."""

from collections.abc import Collection, Mapping
from typing import Any

from spectral_dd.errors import InputError, nearest

# Zhang, Xiong, Wu (arXiv 2004.13954), section 4.1 and the public code.
_PAPER: dict[str, Any] = {
    "dataset": "cifar10",
    "channels": 3,
    "width": 64,
    "label_noise": 0.1,
    "noise_kind": "permute",
    "noisy_split": "drawn",
    "shift": 4,
    "flip": True,
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "batch_size": 128,
    "epochs": 1000,
    "spectrum_examples": 500,
    "spectrum_points": 128,
    "spectrum_half_width": 0.5,
    "spectrum_augment": True,
}

# Nakkiran et al. (arXiv 1912.02292), sections 4 and 5, appendix B. An epoch has 390 steps.
_NAKKIRAN_RESNET18: dict[str, Any] = {
    "model": "preact_resnet18",
    "dataset": "cifar10",
    "channels": 3,
    "width": tuple(range(1, 65)),
    "label_noise": (0.0, 0.1, 0.15, 0.2),
    "shift": 4,
    "flip": True,
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "batch_size": 128,
    "epochs": 4000,
}
_NAKKIRAN_CNN5: dict[str, Any] = {
    "model": "cnn5",
    "dataset": "cifar10",
    "channels": 3,
    "width": tuple(range(1, 65)),
    "label_noise": (0.0, 0.1, 0.2),
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.0,
    "schedule": "inverse_sqrt",
    "schedule_steps": 512,
    "batch_size": 128,
    "epochs": 1283,  # 500 thousand steps
}

# A tuple is an axis.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "digits": {
        "model": "cnn5",
        "dataset": "digits",
        "width": (1, 2, 3, 4, 6, 8, 11, 16, 23, 32),
        "train_size": 600,
        "label_noise": 0.15,
        "shift": 1,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        # At a constant rate Adam leaves the interpolating solution now and then, which looks like a second descent.
        "schedule": "inverse_sqrt",
        "schedule_steps": 512,
        "batch_size": 100,
        "epochs": 400,
        # Many small spectra: the verdict needs one at every recorded epoch from where the test error has fallen on.
        "spectrum_from_epoch": 8,
        "spectrum_examples": 80,
        "spectrum_points": 16,
        "spectrum_measures": 12,
        "spectrum_updates": 4,
        "spectrum_budget": 0.18,
    },
    # Greydanus and Kobak (arXiv 2011.14439), the notebook on double descent.
    "mnist1d_mlp": {
        "model": "mlp",
        "dataset": "mnist1d",
        "width": (2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 47, 61, 80, 104, 135, 177, 230, 300),
        "label_noise": 0.15,
        "noise_kind": "uniform",
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "batch_size": 100,
        "epochs": 500,
        "spectrum_from_epoch": 8,
        "spectrum_examples": 256,
        "spectrum_measures": 32,
        "spectrum_budget": 0.3,
    },
    "nakkiran_resnet18": _NAKKIRAN_RESNET18,
    "nakkiran_cnn5": _NAKKIRAN_CNN5,
    "nakkiran_cnn5_augmented": _NAKKIRAN_CNN5 | {"shift": 4, "flip": True},
    "paper_vgg11": _PAPER | {"model": "vgg11"},
    "paper_vgg13": _PAPER | {"model": "vgg13"},
    "paper_vgg16": _PAPER | {"model": "vgg16"},
    "paper_resnet18": _PAPER | {"model": "resnet18"},
    "paper_resnet34": _PAPER | {"model": "resnet34"},
}

DEFAULT = "digits"
# What may be given in the place of a preset.
AUTO, NONE = "auto", "none"


def preset_axes(preset: str | None, given: Mapping[str, Collection[Any]]) -> tuple[str, Mapping[str, Any]]:
    """The preset that applies beside what the user gave, and its values of the other fields.

    Args:
      preset: a key of `PRESETS`; 'none' or None; or 'auto': `DEFAULT`, unless another data set or model is given, which
        its numbers were not made for.
      given: values by field.

    Returns:
      The preset's name, '' for none, and a value (or a tuple, an axis) by field. The preset's budget is left out where
      something about spectra is given: it would drop what was asked for; its label noise where labels are given.

    Raises:
      InputError: there is no such preset.
    """
    if preset == AUTO:
        own = PRESETS[DEFAULT]
        foreign = any(set(given.get(name, ())) - {own[name]} for name in ("model", "dataset"))
        preset = NONE if foreign else DEFAULT
    if preset in (None, NONE):
        return "", {}
    if preset not in PRESETS:
        known = (AUTO, NONE, *PRESETS)
        raise InputError(f"--preset={preset}: must be one of {', '.join(known)}.{nearest(preset, known)}")
    left_out = set(given)
    if any(name.startswith("spectrum_") for name in given):
        left_out.add("spectrum_budget")
    if "train_labels" in given:
        left_out.add("label_noise")
    return preset, {name: value for name, value in PRESETS[preset].items() if name not in left_out}
