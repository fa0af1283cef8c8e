"""Small sweeps for the report to draw, with a known course."""

import numpy as np
import xarray as xr

from spectral_dd.spectrum import slope_spectrum

NAN = np.nan
EPOCHS = np.array([0, 1, 2, 3, 4, 6, 10, 16])
NUM_FREQUENCIES = 17


def make_sweep(widths=(2, 4), seeds=(0, 1), noises=(0.2,)):
    """A small sweep with a test error that falls, rises and falls, and spectra that are a ramp's times noise."""
    rng = np.random.default_rng(0)
    fields = [(w, s, n) for w in widths for s in seeds for n in noises]
    members, epochs = len(fields), len(EPOCHS)
    width, seed, noise = (np.array(column) for column in zip(*fields, strict=True))
    test = np.array([0.9, 0.9, 0.2, 0.1, 0.3, 0.3, 0.1, 0.1]) + 0.1 / width[:, None]
    train = np.array([0.9, 0.8, 0.4, 0.2, 0.1, 0.0, 0.0, 0.0]) + np.where(width[:, None] < 4, 0.1, 0.0)
    noisy = np.where(noise[:, None] > 0, np.linspace(1, 0, epochs), NAN)
    energy = rng.random((members, epochs, 3, 6, NUM_FREQUENCIES)) + 0.5
    ramp = slope_spectrum(2 * NUM_FREQUENCIES - 2)
    energy *= np.concatenate([[ramp[1] * 1e3], ramp[1:]])
    energy[:, :, 1, 4:] = NAN  # fewer relabelled examples than asked for
    energy[noise == 0, :, 1] = NAN
    spectrum = ("member", "epoch", "split", "example", "frequency")
    share = rng.uniform(0.6, 1.1, (members, epochs, 3))
    relabelled = np.tile(np.array([[0, 1, 0, 0, 1, 0], [1] * 6, [0] * 6], float), (members, epochs, 1, 1))
    curve = ("member", "epoch")
    return xr.Dataset(
        {
            "test_error": (curve, test),
            "train_error": (curve, train),
            "noisy_error": (curve, noisy),
            "energy": (spectrum, energy),
            "amplitude": (spectrum, np.sqrt(energy)),
            "slope_share": (spectrum[:3], share),
            "slope_dominated": (spectrum[:3], share > 0.9),
            "relabelled": (spectrum[:4], relabelled),
            "diverged": ("member", np.full(members, -1)),
        },
        coords={
            "member": np.arange(members),
            "epoch": EPOCHS,
            "split": ["train", "noisy", "test"],
            "frequency": np.arange(NUM_FREQUENCIES) / 0.5,
            "width": ("member", width),
            "seed": ("member", seed),
            "label_noise": ("member", noise),
            "dataset": ("member", np.full(members, "digits", object)),
            "epochs": ("member", np.full(members, 16)),
            "parameters": ("member", width**2),
            "noise_rate": ("member", noise),
        },
    )
