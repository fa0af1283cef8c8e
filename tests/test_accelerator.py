"""The benchmark for a real accelerator runs from end to end on a CPU, at toy size, and goes on where it stopped."""

import importlib
import json
import pathlib

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("accelerator")


@pytest.mark.usefixtures("fast_compile")
def test_the_page_of_a_cpu_says_that_it_is_none_of_a_gpu(accelerator, tmp_path):
    path = tmp_path / "results.json"
    page = accelerator.run(accelerator.SMALL, path, minutes=0)
    assert "**Not yet run on a GPU**" in page and "not measured yet" in page and not path.exists()
    page = accelerator.run(accelerator.SMALL, path, minutes=60)
    assert "not measured yet" not in page and "Error" not in page
    found = json.loads(path.read_text())
    assert all(v < accelerator.TOLERANCE for k, v in found.items() if k.startswith("correctness"))
    assert all(v["rate"] > 0 for k, v in found.items() if k.startswith(("bfloat16", "float32", "sweep")))
    # What is measured already is not measured again.
    found = {key: 0.125 for key in found}
    path.write_text(json.dumps(found))
    assert accelerator.run(accelerator.SMALL, path, minutes=60).count("| 0.125 |") == len(found)
