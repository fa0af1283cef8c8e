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

# At every recorded epoch; losses and errors of the whole training and test set, in evaluation mode and without
# augmentation.
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
    "distance_from_initialisation": Variable(
        _CURVE, "1", "distance from initialisation", "L2 distance of all parameters from their values at epoch 0"
    ),
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
    "loss_curvature": Variable(
        _EXAMPLE,
        "nat / L2 distance^2",
        "curvature of the loss",
        "Frobenius norm of the Hessian of the loss by the input",
    ),
    "label_changes": Variable(
        _EXAMPLE, "1", "label changes", "along the segment: of the class with the largest output, from point to point"
    ),
    "linear_regions": Variable(_EXAMPLE, "1", "linear regions", "that the segment crosses: 1 + the kinks of its units"),
    "local_complexity": Variable(
        _EXAMPLE, "1", "local complexity", "ReLUs whose boundary meets a neighbourhood of radius 0.005"
    ),
    "noise_energy": Variable(
        _EXAMPLE, "logit^2", "energy of rounding", "what rounding adds to each bin of residual_energy"
    ),
    "logit_norm": Variable(_EXAMPLE, "logit", "norm of the logits", "L2 norm over classes"),
    "loss": Variable(_EXAMPLE, "nat", "loss", "cross-entropy, labels trained on"),
    "margin": Variable(_EXAMPLE, "logit", "margin", "logit of the label minus the largest other"),
    "optimization_variance": Variable(
        _EXAMPLE, "1", "optimization variance", "how far one step of different batches drives the logits apart"
    ),
    "relabelled": Variable(_EXAMPLE, "1", "relabelled", "1: the label trained on is wrong; 0: it is right"),
    "plane_label": Variable(
        (*_CURVE, "plane", "point"),
        "1",
        "label on a plane",
        "class of the largest output; the same planes for all members",
    ),
    "index": Variable(_EXAMPLE, "1", "index", "place of the example in the source: its training or its test images"),
    "label": Variable(_EXAMPLE, "1", "label", "class trained on; the true one in the test split"),
    "true_label": Variable(_EXAMPLE, "1", "true label", "class in the data set"),
}

# What follows from the above.
DERIVED = {
    "energy_error": Variable(
        (*_CURVE, "split"), "1", "error of the energy", "relative standard error of the mean energy, over examples"
    ),
    "detection": Variable(
        (*_CURVE, "score"),
        "1",
        "AUC of detection",
        "of telling relabelled training examples from the others by a score",
    ),
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
    "noise_share": Variable((*_CURVE, "split", "frequency"), "1", "share of rounding", "in residual_energy"),
    "noise_dominated": Variable(
        (*_CURVE, "split", "frequency"), "1", "dominated by rounding", "noise_share is above 10 %: the bin says little"
    ),
    "area_under_margin": Variable(
        _EXAMPLE, "logit", "area under the margin", "mean of margin over epochs so far, by trapezoids"
    ),
    "reproducibility": Variable(
        _CURVE, "1", "reproducibility", "share of plane_label on which a member agrees with one of another seed"
    ),
    "plane_regions": Variable(
        _CURVE, "1", "regions of a plane", "connected regions of one plane_label, mean over planes: fragmentation"
    ),
    "indicated_start": Variable(
        ("member",),
        "epochs",
        "indicated start",
        "of the second descent, by an online detector for less than 3 % noise from record to record, or -1",
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
    "score": Variable(("score",), "", "score", "what relabelled examples are told by"),
    "plane": Variable(("plane",), "1", "plane", "number of the plane through three test examples"),
    "point": Variable(("point",), "1", "point", "place on the grid of a plane, row by row"),
    "frequency": Variable(
        ("frequency",), "cycles / L2 distance", "frequency", "in cycles per unit L2 distance in input space"
    ),
    "sweep": Variable(("member",), "1", "sweep", "directory that the member is in"),
    "sweep_member": Variable(("member",), "1", "member of its sweep", "number of the network in that directory"),
    "parameters": Variable(("member",), "1", "parameters", "trainable parameters"),
    "noise_rate": Variable(("member",), "1", "noise rate", "share of the training labels that are wrong"),
}
