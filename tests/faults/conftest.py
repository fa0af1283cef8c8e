"""`make test` runs a small part of these; `make torture` (TORTURE=1) all of it."""

import os
import pathlib

import pytest
from synthetic import make_run

WHOLE = bool(os.environ.get("TORTURE"))


@pytest.fixture(scope="session")
def whole():
    """Whether all of it runs."""
    return WHOLE


@pytest.fixture(scope="session")
def times():
    """How often something is done of the times that `make torture` does it; $TORTURE_SHARE is how much of it."""
    return lambda number: max(1, round(number * float(os.environ.get("TORTURE_SHARE", "1"))))


@pytest.fixture
def report(request):
    """Adds a line to the file that `make torture` shows in the end."""

    def add(line: str) -> None:
        if path := os.environ.get("TORTURE"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{request.node.name}: {line}\n")

    return add


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> pathlib.Path:
    """Two packs, spectra and states, without training. Tests that change a file bring it back."""
    return make_run(tmp_path_factory.mktemp("synthetic") / "run")
