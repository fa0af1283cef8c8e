"""Rows that have the same entries, so that many curves or spectra are computed at once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int


def alike(
    there: Bool[np.ndarray, "row column"],
) -> Iterator[tuple[Int[np.ndarray, "alike"], Int[np.ndarray, "present"]]]:
    """Yields the places of rows with the same entries, and the columns that these have, which may be none."""
    for pattern in np.unique(there, axis=0):
        yield np.flatnonzero((there == pattern).all(axis=1)), np.flatnonzero(pattern)
