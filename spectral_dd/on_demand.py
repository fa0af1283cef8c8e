"""What was measured around single examples as dask arrays: a chunk a pack and epoch, read from its record when used."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from spectral_dd import probe, stored
from spectral_dd.errors import InputError
from spectral_dd.files import Place
from spectral_dd.records import Variable
from spectral_dd.spectrum import frequencies
from spectral_dd.sweeps import Pack


def arrays(
    rows: Mapping[str, Variable], ds: xr.Dataset, places: Sequence[Place], packs: Sequence[Pack]
) -> dict[str, Any]:
    """Variables of a data set, as dimensions and array.

    Args:
      rows: of the table, of what is wanted.
      ds: has the other dimensions, and the coordinates of the settings of spectra.
      places: of the records of each pack.
      packs: of the sweep.

    Returns:
      float32; NaN where nothing is recorded. Reading raises CheckpointError where a record is damaged.
    """
    order = np.argsort([member for pack in packs for member in pack.members])
    variables = {}
    for name, about in rows.items():
        source = _Recorded(name, about, ds, places, packs)
        chunks = (tuple(len(pack.members) for pack in packs), 1, *source.shape[2:])
        array = da.from_array(source, chunks=chunks, asarray=False, fancy=False, name=f"{name}-{id(source)}")
        variables[name] = (about.dims, array if (np.diff(order) == 1).all() else array[order])
    return variables


class _Recorded:
    """One variable, its members in the order of packs, as `dask.array.from_array` reads it."""

    def __init__(
        self, name: str, about: Variable, ds: xr.Dataset, places: Sequence[Place], packs: Sequence[Pack]
    ) -> None:
        sizes = dict(ds.sizes) | {"example": int(ds["spectrum_examples"].max())}
        sizes |= {"plane": probe.PLANES, "point": probe.PLANE_POINTS**2}
        self.dtype, self.shape = np.dtype(np.float32), tuple(sizes[dim] for dim in about.dims)
        self.ndim = len(self.shape)
        self._name, self._places, self._epochs = name, places, ds["epoch"].values
        self._starts = np.cumsum([0, *(len(pack.members) for pack in packs)])
        points, half_width = (ds[f"spectrum_{name}"].values for name in ("points", "half_width"))
        first = [pack.members[0] for pack in packs]
        bins = [frequencies(int(points[member]), float(half_width[member])) for member in first]
        self._columns = [np.searchsorted(ds["frequency"].values, own) for own in bins]

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """Of members of one pack."""
        (first, last, _), (start, stop, _) = (k.indices(n) for k, n in zip(key[:2], self.shape[:2], strict=True))
        pack = int(np.searchsorted(self._starts, first, "right")) - 1
        offset = self._starts[pack]
        values = np.full((last - first, stop - start, *self.shape[2:]), np.nan, self.dtype)
        for i, epoch in enumerate(self._epochs[start:stop].tolist()):
            with contextlib.suppress(InputError):  # The pack has no such epoch.
                found = stored.load_results(self._places[pack], epoch, (self._name,)).get(self._name)
                if found is not None:
                    target = values[:, i, :, : found.shape[2]]
                    columns = self._columns[pack] if target.ndim == 4 else slice(None)
                    target[..., columns] = found[first - offset : last - offset]
        return values[(slice(None), slice(None), *key[2:])]
