"""A file is whole or not there, whatever happens while it is written."""

import concurrent.futures
import errno
import os
import pathlib
import re
import resource
import subprocess
import sys

import pytest

from spectral_dd import files
from spectral_dd.errors import InputError
from spectral_dd.files import (
    cache_directory,
    pack_directory,
    spectrum_directory,
    workdir_path,
    write_once,
    write_whole,
)

WRITES = pytest.mark.parametrize("write", [write_whole, write_once])


@pytest.fixture
def no_hard_links(monkeypatch):
    """As a file system without hard links answers, which a test cannot mount."""

    def link(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    monkeypatch.setattr(os, "link", link)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@WRITES
@pytest.mark.parametrize(("content", "stored"), [("é\n", "é\n".encode()), (b"\x00\xff\r\n", b"\x00\xff\r\n")])
def test_text_is_written_as_utf8_and_bytes_as_they_are(tmp_path, write, content, stored):
    path = tmp_path / "new" / "directory" / "file"
    write(path, content)
    assert path.read_bytes() == stored
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(path.parent) == ["file"]


def test_write_whole_replaces_and_write_once_does_not(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "first")
    write_once(path, "second")
    assert path.read_text() == "first"
    write_whole(path, "third")
    assert path.read_text() == "third"
    assert names(tmp_path) == ["file"]


def test_write_once_without_hard_links(tmp_path, no_hard_links):
    for content in ("first", "second"):
        write_once(tmp_path / "file", content)
    assert (tmp_path / "file").read_text() == "first"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_many_that_write_once_one_wins_and_all_read_it(tmp_path, hard_links, request):
    if not hard_links:
        request.getfixturevalue("no_hard_links")

    def write_and_read(i, number):
        path = tmp_path / str(i)
        write_once(path, f"{number}\n" * 10_000)
        return path.read_text()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i in range(10):
            seen = set(pool.map(write_and_read, [i] * 8, range(8)))
            assert len(seen) == 1 and len(seen.pop()) == 20_000
    assert len(names(tmp_path)) == 10


@WRITES
def test_a_full_disk_leaves_everything_as_it_was(tmp_path, write):
    (tmp_path / "there").write_text("before")
    # A limit on the size of files fails in the same place and the same way, and needs no file system of its own.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for name in ("new", "there"):
            with pytest.raises(OSError, match="File too large") as caught:
                write(tmp_path / name, "x" * 2000)
            assert caught.value.filename == str(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["there"]
    assert (tmp_path / "there").read_text() == "before"


@WRITES
def test_a_directory_that_cannot_be_is_an_error_with_the_name_of_the_file(tmp_path, write):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        write(tmp_path / "file" / "name", "")
    assert caught.value.filename == str(tmp_path / "file" / "name")
    (tmp_path / "directory").mkdir()
    if write is write_whole:
        with pytest.raises(IsADirectoryError) as caught:
            write(tmp_path / "directory", "")
        assert caught.value.filename == str(tmp_path / "directory")
    assert names(tmp_path) == ["directory", "file"]


def test_what_a_killed_process_leaves_behind_is_marked(tmp_path):
    """Killed in the middle of writing, here by itself."""
    code = (
        "import os, signal, sys\n"
        "from spectral_dd import files\n"
        "class Killing(str):\n"
        "    def encode(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_whole(sys.argv[1], Killing())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(files.__file__).parents[1])}
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], env=environment)
    assert child.returncode == -9
    (left,) = names(tmp_path)
    assert left.startswith(files.TEMPORARY)


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_directory() == pathlib.Path("/somewhere/spectral_dd")
    monkeypatch.setenv("HOME", "/home/me")
    for unset in ("", None):
        monkeypatch.delenv("XDG_CACHE_HOME") if unset is None else monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_directory() == pathlib.Path("/home/me/.cache/spectral_dd")


def test_a_user_without_a_home_directory_has_a_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "~no-such-user-of-this-machine/cache")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_directory().parent == tmp_path


def test_directories_of_a_workdir(tmp_path):
    assert pack_directory(tmp_path, 7) == tmp_path / "packs" / "007"
    wide = spectrum_directory(tmp_path, "wide")
    assert pack_directory(wide, 12) == tmp_path / "spectra" / "wide" / "packs" / "012"


def test_a_directory_is_found_whatever_its_name_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, path in {"a/../b": "b", "~/run": "home/run", "a b/é #%20": "a b/é #%20", "./~x": "~x"}.items():
        assert workdir_path(name) == tmp_path / path


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?", "a\\b", "a\0b", "a\udcff", "~no-such-user/run"])
def test_a_name_that_would_be_misread_is_refused(name):
    with pytest.raises(InputError, match=re.escape(name)):
        workdir_path(name)


def test_write_once_without_hard_links_and_locks(tmp_path, monkeypatch, no_hard_links):
    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", flock)
    for content in ("first", "second"):
        write_once(tmp_path / "file", content)
    assert (tmp_path / "file").read_text() == "first"
