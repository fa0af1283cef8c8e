import pytest


@pytest.fixture(autouse=True, scope="session")
def all_figures_coarse(coarse):
    pass
