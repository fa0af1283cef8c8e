"""Training against theory: test losses of least squares that are known in closed form, for widths and for epochs.

The networks are linear, and their loss is the squared error though training knows none: with the logits
-(u - y_c)^2 / 2 for the value y_c of each class, on a grid of distance D, the cross-entropy of label y is
(u - y)^2 / 2 + log sum_c exp(-(u - y_c)^2 / 2), whose last term is log(sqrt(2 pi) / D) but for e^(-2 pi^2 / D^2).
"""

import flax.linen as nn
import numpy as np
import scipy.linalg
import scipy.signal

import spectral_dd as sdd

DISTANCE, CLASSES = 0.5, 201
VALUES = DISTANCE * (np.arange(CLASSES) - CLASSES // 2)
CONSTANT = np.log(np.sqrt(2 * np.pi) / DISTANCE)


def classes(y):
    """The class whose value is nearest."""
    return np.rint(y / DISTANCE).astype(int) + CLASSES // 2


def as_logits(u):
    return -((u[:, None] - VALUES[None]) ** 2) / 2


def dataset(x, y, x_test, y_test):
    images = [x.astype(np.float32).reshape(len(x), 1, -1, 1) for x in (x, x_test)]
    return sdd.Dataset.from_arrays(images[0], classes(y), images[1], classes(y_test), num_classes=CLASSES)


class Linear(nn.Module):
    """u = x . w from w = 0: gradient descent goes to the solution of least norm."""

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        x = images.reshape(len(images), -1)
        return as_logits(x @ self.param("w", nn.initializers.zeros, (x.shape[1],)))


class TwoLayers(nn.Module):
    """u = x . (a b), entry by entry, from a = b = 0.1."""

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        x = images.reshape(len(images), -1)
        a, b = (self.param(name, nn.initializers.constant(0.1), (x.shape[1],)) for name in "ab")
        return as_logits(x @ (a * b))


def test_ridgeless_least_squares_has_the_risk_of_theory_below_and_above_the_threshold(tmp_path):
    """Hastie, Montanari, Rosset, Tibshirani, arXiv 1903.08560, isotropic features: with g = features / examples,
    |w|^2 = r^2 and noise of variance s^2, the risk goes to s^2 g / (1 - g) for g < 1, and to
    r^2 (1 - 1/g) + s^2 / (g - 1) for g > 1.
    """
    features, r, s, seeds = 48, 8.0, 4.0, 6
    rng = np.random.default_rng(0)
    w = rng.standard_normal(features)
    w *= r / np.linalg.norm(w)
    x, x_test = rng.standard_normal((3000, features)), rng.standard_normal((2000, features))
    data = dataset(x, x @ w + s * rng.standard_normal(len(x)), x_test, x_test @ w)
    sizes = {12: 4.0, 24: 2.0, 96: 0.5, 192: 0.25}  # of the training set, and g
    sweep = sdd.sweep(
        "digits", width=1, seed=range(seeds), train_size=list(sizes), batch_size=12, label_noise=0, shift=0,
        optimizer="sgd", momentum=0, learning_rate=0.1, schedule="cosine", epochs=300, records_per_decade=1,
        spectrum_examples=0,
    )  # fmt: skip
    sdd.train(tmp_path, sweep, dataset=data, model=Linear)
    ds = sdd.load_results(tmp_path)
    risk = 2 * (ds["test_loss"].sel(epoch=300) - CONSTANT)
    for size, g in sizes.items():
        found = risk.values[ds["train_size"].values == size]
        theory = s**2 * g / (1 - g) if g < 1 else r**2 * (1 - 1 / g) + s**2 / (g - 1)
        assert len(found) == seeds
        assert abs(found.mean() - theory) < 4 * found.std(ddof=1) / np.sqrt(seeds)
        np.testing.assert_allclose(found.mean(), theory, rtol=0.2)


def test_a_network_with_two_rates_of_learning_has_the_double_descent_of_theory(tmp_path):
    """Two-layer linear networks learn each direction of the data by itself (Saxe, McClelland, Ganguli, arXiv
    1312.6120): with a = b, variance l of the feature and its least-squares solution v, the weight c = a b follows
    c' = 2 l c (v - c), so that c(t) = v / (1 + (v / c(0) - 1) exp(-2 l v t)), t = rate x steps.

    The first feature is learnt fast, and beyond its true weight 5, to 8.5, since the noise is along it; the second one
    has the variance 1/100 and is learnt slowly, to its true weight: the test loss falls, rises and falls.
    """
    columns = scipy.linalg.hadamard(64)[:, 1:3].astype(float)
    variance, true, learnt = np.array([1.0, 1 / 100]), np.array([5.0, 50]), np.array([8.5, 50])
    x = columns * np.sqrt(variance)
    data = dataset(x, x @ learnt, x, x @ true)  # all on the grid of the classes
    rate, epochs = 2e-3, 7500
    sweep = sdd.sweep(
        "digits", width=1, train_size=64, batch_size=64, label_noise=0, shift=0, optimizer="sgd", momentum=0,
        learning_rate=rate, schedule="constant", epochs=epochs, spectrum_examples=0,
    )  # fmt: skip
    sdd.train(tmp_path, sweep, dataset=data, model=TwoLayers)
    found = sdd.load_results(tmp_path)["test_loss"].isel(member=0) - CONSTANT
    t = rate * found["epoch"].values[:, None]
    weights = learnt / (1 + (learnt / 0.01 - 1) * np.exp(-2 * variance * learnt * t))
    theory = np.sum(variance * (weights - true) ** 2, axis=1) / 2
    np.testing.assert_allclose(found, theory, rtol=0.03, atol=0.05)
    (peak,), _ = scipy.signal.find_peaks(theory, prominence=1)
    np.testing.assert_allclose(theory[:peak].min(), 12.5, atol=0.5)  # what the slow feature lacks
    np.testing.assert_allclose([theory[peak], theory[-1]], [12.5 + 3.5**2 / 2, 3.5**2 / 2], atol=0.5)
