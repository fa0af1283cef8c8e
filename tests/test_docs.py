"""Every command and every snippet of README and docs works, from an empty folder.

Where training would take long it is run dry, or with small networks; what reads a sweep is run in test_cli.py.
"""

import pathlib
import re
import shlex
import shutil
import sys

import pytest

import spectral_dd as sdd
from spectral_dd import cli, members
from spectral_dd.__main__ import SCRIPTS, main

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page):
    """The lines of the indented blocks, without comments and what a shell does around a command."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S).replace("\\\n", " ")
    for line in re.findall(r"^ {4,}((?:python|spectral-dd) .*)", text, flags=re.M):
        yield shlex.split(line.removesuffix("&"), comments=True)


def run_words(words):
    """Status of a command, run in this process: training dry; of what needs a sweep, only the flags are read."""
    if words[:3] == ["python", "-m", "spectral_dd"]:
        sys.argv = ["spectral_dd/__main__.py", *words[3:]]
        return main()
    script = ROOT / words[1] if words[0] == "python" else SCRIPTS / f"{words[1]}.py"
    if script.parent.name == "benchmarks":
        return not script.exists()
    arguments = [word.replace("$i", "1") for word in words[2:]]
    if script.stem == "train_sweep" and not any(argument.startswith("--target") for argument in arguments):
        return cli.run_script([str(script), *arguments, *(["--dry_run"] * ("--dry_run" not in arguments))])
    return not cli.parse(cli.load(script), [str(script), *arguments])


def test_what_make_does_in_the_documentation_is_in_the_makefile():
    for page in PAGES:
        for verb in re.findall(r"^    make (\w+)|`make (\w+)`", page.read_text(), flags=re.M):
            assert re.search(rf"^{''.join(verb)}:", (ROOT / "Makefile").read_text(), flags=re.M), verb


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("fast_compile")
def test_the_snippets_and_then_the_commands_of_a_page_work(page, tmp_path, monkeypatch, capsys):
    tiny = {"model": "mlp", "train_size": 64, "batch_size": 32, "epochs": 100, "spectrum_examples": 0}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with monkeypatch.context() as patched:
        patched.setattr(sdd, "sweep", lambda *preset, **axes: members.sweep(*preset, **tiny | axes))
        namespace = {"__name__": "snippets"}
        for snippet in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S):
            exec(compile(snippet, page.name, "exec"), namespace)
    shutil.rmtree("runs", ignore_errors=True)
    for words in commands(page):
        capsys.readouterr()
        status, errors = run_words(words), capsys.readouterr().err
        # DIR stands for a directory that TFDS has prepared.
        not_prepared = "--data_dir=DIR" in words and "download_and_prepare" in errors
        assert status == 0 or not_prepared, f"{shlex.join(words)}: {errors}"
    assert not pathlib.Path("runs").exists()
