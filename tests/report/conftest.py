"""Figures of few pixels: what they show does not depend on it."""

import pytest

from spectral_dd.report.axes import STYLE


@pytest.fixture(autouse=True, scope="session")
def coarse():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLE, "savefig.dpi", 40)
        yield
