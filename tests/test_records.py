"""The table of what is recorded, against what is recorded and what README says."""

import pathlib
import re

from spectral_dd.records import COORDINATES, VARIABLES

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_readme_names_every_variable():
    section = README.read_text().partition("\n## Results\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\| (`.*?`) \| ([\w, ]+) \|", section, flags=re.M)
    listed = {name: dims for names, dims in table for name in re.findall(r"`(\w+)`", names)}
    assert listed == {name: ", ".join(about.dims) for name, about in VARIABLES.items()}


def test_every_row_says_what_it_is():
    for name, about in (VARIABLES | COORDINATES).items():
        assert about.dims and about.long_name and about.meaning, name
