"""Every command and every snippet of README and docs works, from an empty folder.

Commands run in their order. Where one would take long it is run dry, or on a small sweep in the place of its own.
"""

import pathlib
import re
import shlex
import shutil
import sys

import pytest

import spectral_dd as sdd
from spectral_dd import cli, sweeps
from spectral_dd.__main__ import SCRIPTS, main

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page):
    """The lines of the indented blocks, without comments and what a shell does around a command."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"(?:^    .*\n)+", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M):
        for line in block.splitlines():
            words = (
                shlex.split(line.removesuffix("&"), comments=True) if re.match(r" +(python|spectral-dd) ", line) else []
            )
            if words:
                yield words


def run_words(words, ran):
    """Runs a command in this process; returns its exit status."""
    if words[:3] == ["python", "-m", "spectral_dd"]:
        sys.argv = ["spectral_dd/__main__.py", *words[3:]]
        return main()
    script = SCRIPTS / (pathlib.Path(words[1]).name if words[0] == "python" else f"{words[1]}.py")
    arguments = [word.replace("$i", "1") for word in words[2:]]
    known = cli._load(script).FLAGS
    for argument in arguments:
        assert argument.removeprefix("--").partition("=")[0] in known, f"{script.name} has no flag {argument}"
    settings = (script.name, *(argument for argument in arguments if not argument.startswith("--workdir=")))
    if settings in ran:
        return 0
    ran.add(settings)
    if script.stem == "train_sweep" and not any(argument.startswith("--target") for argument in arguments):
        return cli.run_script([str(script), *arguments, *(["--dry_run"] * ("--dry_run" not in arguments))])
    if script.stem in ("evaluate_spectrum", "indicate", "report"):
        return cli.run_script([str(script), *arguments])
    return cli.run_script([str(script), "--help"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    listed, ran = list(commands(page)), set()
    for words in listed:
        script = pathlib.Path(words[1]).stem if words[0] == "python" else words[1]
        workdir = next((word.removeprefix("--workdir=") for word in words if word.startswith("--workdir=")), None)
        if workdir and script not in ("train_sweep", "submit") and not pathlib.Path(workdir).exists():
            shutil.copytree(small, workdir)
        if workdir and script == "train_sweep" and pathlib.Path(workdir).exists():
            shutil.rmtree(workdir)
        status = run_words(words, ran)
        # DIR stands for a directory that TFDS has prepared.
        not_prepared = "--data_dir=DIR" in words and "download_and_prepare" in capsys.readouterr().err
        assert status == 0 or not_prepared, f"{shlex.join(words)}: {capsys.readouterr().err}"
    assert listed or page.name != "README.md"


def test_what_make_does_in_the_documentation_is_in_the_makefile():
    for page in PAGES:
        for verb in re.findall(r"^    make (\w+)|`make (\w+)`", page.read_text(), flags=re.M):
            assert re.search(rf"^{''.join(verb)}:", (ROOT / "Makefile").read_text(), flags=re.M), verb


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_snippets_of_a_page_work(page, tmp_path, monkeypatch):
    tiny = {"model": "mlp", "train_size": 64, "batch_size": 32, "epochs": 100, "spectrum_examples": 0}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sdd, "sweep", lambda *preset, **axes: sweeps.sweep(*preset, **tiny | axes))
    namespace = {"__name__": "snippets"}
    for snippet in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S):
        exec(compile(snippet, page.name, "exec"), namespace)
