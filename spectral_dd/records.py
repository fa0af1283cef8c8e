"""The one table of what is recorded and derived: name -> dimensions, unit, long name and meaning.

A new measure is a function (in `measures.py`, called in `probe.py`) and a row here. Results, report, documentation and
checks read the table.
"""

from typing import NamedTuple

# Which examples are analysed, and what they are called.
SPLITS = {"train": "training set", "noisy": "relabelled examples", "test": "test set"}


class Variable(NamedTuple):
    dims: tuple[str, ...]
    units: str
    long_name: str
    meaning: str


_CURVE = ("member", "epoch")
_EXAMPLE = (*_CURVE, "split", "example")
_SPECTRUM = (*_EXAMPLE, "frequency")

# Of the whole training and test set, at every recorded epoch, in evaluation mode and without augmentation.
METRICS = {
    "train_loss": Variable(_CURVE, "nat", "training loss", "mean cross-entropy, labels trained on"),
    "train_error": Variable(_CURVE, "1", "training error", "share of wrong answers, labels trained on"),
    "clean_error": Variable(_CURVE, "1", "clean error", "the same images, true labels"),
    "noisy_error": Variable(
        _CURVE,
        "1",
        "error on relabelled examples",
        "of the noisy split, against the labels trained on: 1 = not memorised",
    ),
    "test_loss": Variable(_CURVE, "nat", "test loss", "mean cross-entropy of the test set"),
    "test_error": Variable(_CURVE, "1", "test error", "share of wrong answers in the test set"),
}

# Around single examples, at the epochs that have spectra. F is the DFT of the outputs along a segment.
MEASURED = {
    "energy": Variable(
        _SPECTRUM, "logit^2", "spectral energy", "mean over classes and directions of |F|^2, which grows as N^2"
    ),
    "amplitude": Variable(_SPECTRUM, "logit", "spectral amplitude", "the same of |F|"),
    "residual_energy": Variable(
        _SPECTRUM, "logit^2", "residual spectral energy", "|F|^2 of what a straight line leaves, windowed"
    ),
    "slope_energy": Variable(
        _EXAMPLE, "logit^2", "energy of the slope", "of the straight line without its mean, summed over all N bins"
    ),
    "curvature_energy": Variable(
        _EXAMPLE, "logit^2", "energy of the curvature", "the same of the parabola in what the line leaves"
    ),
    "jacobian_norm": Variable(
        _EXAMPLE, "logit / L2 distance", "Jacobian norm", "Frobenius norm of the derivative by the input"
    ),
    "linear_regions": Variable(
        _EXAMPLE, "1", "linear regions", "that the segment crosses, at most one a point: a lower bound"
    ),
    "logit_norm": Variable(_EXAMPLE, "logit", "norm of the logits", "L2 norm over classes"),
    "loss": Variable(_EXAMPLE, "nat", "loss", "cross-entropy, labels trained on"),
    "margin": Variable(_EXAMPLE, "logit", "margin", "logit of the label minus the largest other"),
    "optimization_variance": Variable(
        _EXAMPLE, "1", "optimization variance", "how far one step of different batches drives the logits apart"
    ),
    "relabelled": Variable(_EXAMPLE, "1", "relabelled", "1: the label trained on is wrong; 0: it is right"),
    "index": Variable(_EXAMPLE, "1", "index", "place of the example in the source: its training or its test images"),
    "label": Variable(_EXAMPLE, "1", "label", "class trained on; the true one in the test split"),
    "true_label": Variable(_EXAMPLE, "1", "true label", "class in the data set"),
}

# What follows from the above.
DERIVED = {
    "power": Variable(
        (*_CURVE, "split", "frequency"),
        "logit^2",
        "spectral power",
        "mean over examples of energy / N^2: comparable between numbers of points",
    ),
    "diverged": Variable(
        ("member",), "epochs", "divergence", "first recorded epoch with a non-finite loss or parameter, or -1"
    ),
    "slope_share": Variable(
        (*_CURVE, "split"), "1", "share of the slope", "of the high-frequency energy, what a straight line leaks"
    ),
    "slope_dominated": Variable((*_CURVE, "split"), "1", "dominated by the slope", "slope_share is above 90 %"),
    "indicated_start": Variable(
        ("member",), "epochs", "indicated start", "of the second descent, by an online detector, or -1"
    ),
    "indicated_noticed": Variable(("member",), "epochs", "indication noticed", "epoch at which it said so, or -1"),
}

VARIABLES = METRICS | MEASURED | DERIVED

# Coordinates beside the fields of `Config`.
COORDINATES = {
    "member": Variable(("member",), "1", "member", "number of the network in the sweep"),
    "epoch": Variable(("epoch",), "epochs", "epoch", "passes over the training set"),
    "split": Variable(("split",), "", "split", "which examples are analysed"),
    "example": Variable(("example",), "1", "example", "place among the analysed examples of the split"),
    "frequency": Variable(
        ("frequency",), "cycles / L2 distance", "frequency", "in cycles per unit L2 distance in input space"
    ),
    "sweep": Variable(("member",), "1", "sweep", "directory that the member is in"),
    "sweep_member": Variable(("member",), "1", "member of its sweep", "number of the network in that directory"),
    "parameters": Variable(("member",), "1", "parameters", "trainable parameters"),
    "noise_rate": Variable(("member",), "1", "noise rate", "share of the training labels that are wrong"),
}
