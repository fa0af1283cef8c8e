"""Curves and sweeps made by hand, with the shapes of `load_results`, for the tests beside this file."""

import numpy as np
import xarray as xr

from spectral_dd.analysis.online import OnlineStart

NAN = np.nan
EPOCHS = np.array([0, *sorted({round(10 ** (i / 10)) for i in range(41)})])
FEW_EPOCHS = [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
# Every level lasts three epochs, so that smoothing over three keeps it at the middle one.
FALL_RISE_FALL = np.repeat([0.9, 0.1, 0.4, 0.2], 3)


def curve(*values):
    return xr.DataArray(np.array(values, float), dims="epoch", coords={"epoch": FEW_EPOCHS[: len(values)]})


def sweep_of_errors(members):
    """A data set from (fields, test error, train error, diverged) of each member; short curves end in NaN."""
    fields, test, train, diverged = zip(*members, strict=True)
    pad = np.full(len(FEW_EPOCHS), NAN)
    curves = {
        name: (("member", "epoch"), [np.concatenate([c, pad[len(c) :]]) for c in values])
        for name, values in (("test_error", test), ("train_error", train))
    }
    coords = {name: ("member", [f[name] for f in fields]) for name in fields[0]}
    coords |= {"parameters": ("member", [10 * f["width"] for f in fields]), "member": np.arange(len(fields))}
    return xr.Dataset({**curves, "diverged": ("member", list(diverged))}, coords={**coords, "epoch": FEW_EPOCHS})


def random_curves(num=200, length=12):
    return np.exp(np.random.default_rng(0).normal(scale=0.2, size=(num, length)).cumsum(axis=1))


def log_curve(*points):
    """Linear in log10(epoch) between the points (log10(epoch), value)."""
    return np.interp(np.log10(np.maximum(EPOCHS, 0.1)), *zip(*points, strict=True))


def error_with_peak(log_epoch, end=0.05):
    """Falls to 0.1, rises to 0.4 and falls to `end`, as steeply as it rose: smoothing leaves the peak in its place."""
    fall = 0.8 * (0.4 - end) / 0.3
    return log_curve((log_epoch - 2, 0.9), (log_epoch - 0.8, 0.1), (log_epoch, 0.4), (log_epoch + fall, end))


def tent(log_epoch):
    return log_curve((log_epoch - 1.2, 0.01), (log_epoch, 0.3), (log_epoch + 1.2, 0.02))


def falls_to_zero(log_epoch):
    return np.where(round(10**log_epoch) > EPOCHS, 1.0, 0.0)


NO_DESCENT = log_curve((0, 0.9), (4, 0.1))


def make_sweep(members, **variables):
    """A data set as `load_results` returns it.

    `members` are dictionaries of width, seed, label_noise (15 %), diverged (-1) and curves: test_error, ratio (of high
    frequencies on the training split), interpolates and memorises (log10 of the epoch).
    """
    rows = [{"label_noise": 0.15, "diverged": -1, "interpolates": 9, "memorises": 9} | m for m in members]
    ratio = np.array([m["ratio"] for m in rows])[..., None]
    spectrum = np.concatenate([1 - ratio, ratio * [0.4, 0.3, 0.2, 0.1]], axis=-1)
    energy = np.full((len(rows), len(EPOCHS), 3, 3, 5), 7.0)  # of the other splits: must not be looked at
    energy[:, :, 0] = np.stack([spectrum, 3 * spectrum, NAN * spectrum], axis=2)
    curves = {
        "test_error": [m["test_error"] for m in rows],
        "train_error": [falls_to_zero(m["interpolates"]) for m in rows],
        "noisy_error": [falls_to_zero(m["memorises"]) * (1 if m["label_noise"] else NAN) for m in rows],
    }
    return xr.Dataset(
        {name: (("member", "epoch"), values) for name, values in curves.items()}
        | {
            "diverged": ("member", [m["diverged"] for m in rows]),
            "energy": (("member", "epoch", "split", "example", "frequency"), energy),
        }
        | variables,
        coords={name: ("member", [m[name] for m in rows]) for name in ("width", "seed", "label_noise")}
        | {"shift": ("member", [1] * len(rows))}  # of the augmentation, as a `Config` has it
        | {"member": np.arange(len(rows)), "epoch": EPOCHS, "split": ["train", "noisy", "test"]},
    )


def planted(shift=0.0, baseline=1.0, seeds=6, widths=(8, 16), jitter=0.05, measure=tent):
    """Test error peaks at random epochs; the ratio peaks `shift` and interpolation comes `baseline` decades later."""
    rng = np.random.default_rng(1)
    members = []
    for seed in range(seeds):
        for width in widths:
            peak, about = rng.uniform(1.8, 2.2), rng.normal(scale=jitter)
            fields = {"width": width, "seed": seed, "interpolates": peak + baseline}
            members.append(fields | {"test_error": error_with_peak(peak), "ratio": measure(peak + shift + about)})
    return make_sweep(members)


def with_example_measures(ds):
    """Loss separates the relabelled examples from the first of the training split; its second is relabelled too."""
    dims = ("member", "epoch", "split", "example")
    loss = np.broadcast_to(np.array([[1, 9, NAN], [2, 2, 3], [0, 0, 0.0]]), (*ds["test_error"].shape, 3, 3))
    relabelled = np.broadcast_to(np.array([[0, 1, 0], [1, 1, 1], [0, 0, 0]], bool), (ds.sizes["member"], 3, 3))
    ds["energy"][:, :, 1] = [[1, 9, 9, 9, 9], [0, 0, 0, 0, 1], [NAN] * 5]
    return ds.assign(
        loss=(dims, loss.copy()),
        margin=(dims, loss),
        jacobian_norm=(dims, np.where(np.isnan(loss), NAN, 1.0)),
        relabelled=(("member", "split", "example"), relabelled),
    )


def online_start(values, epochs):
    """What the online detector has said by the end of a curve."""
    online = OnlineStart()
    for epoch, value in zip(np.asarray(epochs).tolist(), np.asarray(values).tolist(), strict=True):
        online.update(epoch, value)
    return online.start
