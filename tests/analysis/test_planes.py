import numpy as np
import xarray as xr

from spectral_dd.analysis.planes import plane_regions, reproducibility


def labels(values, **fields):
    """plane_label (member, epoch, plane, point) with coordinates along member."""
    coords = {name: ("member", list(column)) for name, column in fields.items()}
    return xr.Dataset({"plane_label": (("member", "epoch", "plane", "point"), np.asarray(values, float))}, coords)


def test_reproducibility_is_the_agreement_with_the_other_seeds_of_the_same_setting():
    """Three seeds of width 2, of which the second says half of what the first says, and the third a quarter; one of
    width 4, that has no other."""
    ds = labels(
        [[[[0, 1, 2, 3]]], [[[0, 1, 9, 9]]], [[[0, 9, 9, 8]]], [[[0, 1, 2, 3]]]], width=[2, 2, 2, 4], seed=[0, 1, 2, 0]
    )
    found = reproducibility(ds)
    assert found.dims == ("member", "epoch")
    np.testing.assert_allclose(
        found.values[:, 0], [(2 / 4 + 1 / 4) / 2, (2 / 4 + 2 / 4) / 2, (1 / 4 + 2 / 4) / 2, np.nan]
    )


def test_reproducibility_leaves_out_members_without_labels():
    values = np.zeros((3, 2, 1, 4))
    values[2, 1, 0, 0] = np.nan
    values[1, 1, 0, :2] = 1
    found = reproducibility(labels(values, seed=[0, 1, 2]))
    np.testing.assert_allclose(found, [[1, 0.5], [1, 0.5], [1, np.nan]])


def test_regions_of_a_plane_are_connected_areas_of_one_label():
    """Stripes: as many as there are; a chessboard of two labels: two, for corners touch; isolated points: one each."""
    rows, columns = np.mgrid[:6, :6]
    points = np.where((rows % 2 == 0) & (columns % 2 == 0), 1, 0)
    planes = np.stack([rows // 2 % 2, (rows + columns) % 2, points, 0 * rows]).reshape(4, 36)
    for plane, expected in zip(planes, (3, 2, 9 + 1, 1), strict=True):
        assert plane_regions(labels([[[plane]]])["plane_label"]) == expected
    found = plane_regions(labels([[planes, np.full((4, 36), np.nan)]])["plane_label"])
    np.testing.assert_allclose(found, [[16 / 4, np.nan]])
