"""The house: which room imports from which, and how large a file is. README's map lists the rooms in their order."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "spectral_dd"
FILES = sorted(PACKAGE.rglob("*.py"))


def rooms():
    """Rooms from the top down, as README lists them: a room imports only from those above it."""
    listing = re.search(r"    spectral_dd/\n((?:      .*\n)+)", (ROOT / "README.md").read_text())[1]
    return re.findall(r"^      (\w+)(?:\.py|/)", listing, flags=re.M)


def room(module):
    """spectral_dd.data.labels -> data"""
    return module.split(".")[1]


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imports(path):
    """The project's modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "spectral_dd":
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if full in MODULES else node.module


def test_the_readme_lists_every_room_once():
    assert sorted(rooms()) == sorted({room(m) for m in MODULES if m != "spectral_dd"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_a_room_imports_only_from_rooms_above_it(path):
    module = module_of(path)
    if module == "spectral_dd":  # the public face
        return
    order = rooms()
    for other in imports(path):
        assert other != "spectral_dd", f"{module} imports the public face"
        assert order.index(room(other)) <= order.index(room(module)), f"{module} imports {other}, which is below it"


def test_there_is_no_circle():
    edges = {
        module_of(path): set(imports(path)) - {module_of(path)} for path in FILES if module_of(path) != "spectral_dd"
    }
    left = dict(edges)
    while free := [m for m, needed in left.items() if not needed & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"in a circle or behind one: {sorted(left)}"


def test_no_file_is_longer_than_400_lines():
    lengths = {module_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {module: n for module, n in lengths.items() if n > 400} == {}


def test_no_function_is_longer_than_a_screen():
    long = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if lines > 55:
                    long[f"{module_of(path)}.{node.name}"] = lines
    assert long == {}


def test_only_one_file_imports_orbax():
    importing = [module_of(path) for path in FILES if re.search(r"^\s*(from|import) orbax", path.read_text(), re.M)]
    assert importing == ["spectral_dd.checkpoint"]


def test_a_sweeps_directory_becomes_a_path_in_one_place():
    """`files.workdir_path` alone knows of `~`, `..` and links; elsewhere a relative name would be another path."""
    named = {module_of(path) for path in FILES if re.search(r"\bPath\((workdir|FLAGS)\b", path.read_text())}
    assert named == set()
