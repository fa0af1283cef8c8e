"""Code of one's own: FILE.py:NAME or package.module:NAME -> the object; and how a sweep finds it again, unchanged."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import operator
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

from spectral_dd.errors import InputError, reason
from spectral_dd.files import expanded, workdir_path


def load(flag: str, kind: str, known: Any = lambda module: "") -> Any:
    """The object of this name.

    Args:
      flag: --FLAG=FILE.py:NAME or --FLAG=package.module:NAME.
      kind: what it is, for messages: 'class', 'function'.
      known: says what a module has instead, in words.

    Raises:
      InputError: there is no such file, it cannot be imported, or it has no such name.
    """
    source, _, name = flag.partition("=")[2].rpartition(":")
    module = _module(flag, source)
    try:
        return operator.attrgetter(name)(module)
    except AttributeError:
        raise InputError(f"{flag}: has no {kind} {name}{known(module)}") from None


def about(code: Any) -> dict[str, str | None]:
    """Where a class or function is defined, and the SHA-256 sum of that file; nothing for one of a notebook."""
    try:
        path = pathlib.Path(inspect.getsourcefile(code) or "").resolve()
        return {"file": str(path), "sha256": _checksum(path)}
    except (OSError, TypeError):
        return {"file": None, "sha256": None}


def again(flag: str, there: Mapping[str, Any] | None, workdir: Any, instead: str) -> str:
    """The flag that finds the code of a sweep now: as it was given, or at the file's full path.

    Args:
      flag: --FLAG=FILE.py:NAME, as the sweep was trained with.
      there: `about` of it then, if the sweep has it.
      workdir: of the sweep. No code is loaded from there, since it may come from somebody else.
      instead: what else the user can do, for messages.

    Raises:
      InputError: the file is not there any more, has changed, or is inside of the sweep's directory.
    """
    there = there or {}
    text = flag.partition("=")[2]
    source, _, name = text.rpartition(":")
    if source.endswith(".py"):
        places = [expanded(source), *filter(None, [there.get("file") and pathlib.Path(there["file"])])]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            listed = " nor ".join(dict.fromkeys(map(str, places)))
            raise InputError(f"{flag}: there is no file {listed}, where the sweep had it; {instead}")
    else:
        path = _file_of(source)
        if path is None:
            raise InputError(f"{flag}: there is no module {source} here; {instead}")
    if path.resolve().is_relative_to(workdir_path(workdir)):
        raise InputError(f"{flag}: {path} is inside of {workdir}, from where no code is loaded; {instead}")
    if source.endswith(".py"):
        check_unchanged(flag, there, path, instead)
        return f"{flag.partition('=')[0]}={path}:{name}"
    return flag


def check_unchanged(flag: str, there: Mapping[str, Any] | None, path: Any, instead: str) -> None:
    """Raises `InputError` if a file is another one than it was."""
    before, now = (there or {}).get("sha256"), _checksum(path)
    if before and before != now:
        sums = f"SHA-256 {before[:8]} then, {now[:8]} now"
        raise InputError(f"{flag}: {path} has changed since the sweep was begun ({sums}); restore it, or {instead}")


def _checksum(path: Any) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _file_of(module: str) -> pathlib.Path | None:
    """The file of a module that can be imported, which is not imported here."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        return pathlib.Path(getattr(loaded, "__file__", None) or "/")
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    return pathlib.Path(spec.origin or "/") if spec else None


def _module(flag: str, source: str) -> types.ModuleType:
    path = expanded(source).resolve()
    if source.endswith(".py") and not path.is_file():
        raise InputError(f"{flag}: there is no file {source}")
    try:
        return _import_file(path, _checksum(path)) if source.endswith(".py") else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        raise InputError(f"{flag}: {source} cannot be imported: {reason(error)}") from error


@functools.cache
def _import_file(path: pathlib.Path, checksum: str) -> types.ModuleType:
    """Imports a file once while it stays as it is, as a module with the name of its path, which can hide no other."""
    spec = importlib.util.spec_from_file_location(str(path), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
