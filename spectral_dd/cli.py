"""Flags from the fields of `Config`, and the runner of the scripts under experiments/: arguments -> exit status."""

import importlib.util
import os
import pathlib
import signal
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from absl import flags, logging

from spectral_dd.config import FIELDS, check_value
from spectral_dd.errors import CheckpointError, InputError, Interrupted, LockedError


class _AxisParser(flags.ArgumentParser):
    """Parses 'a,b,c' into a list of a field's values."""

    syntactic_help = "a comma list makes an axis"

    def __init__(self, name: str):
        super().__init__()
        self._name, self._field = name, FIELDS[name]

    def parse(self, argument: Any) -> list[Any]:
        values = argument.split(",") if isinstance(argument, str) else list(argument)
        values = [value.strip() if isinstance(value, str) else value for value in values]
        return [check_value(self._name, self._field, value) for value in values]

    def flag_type(self) -> str:
        return f"{self._field.type.__name__}, comma list"  # type: ignore[union-attr]


def define_fields(flag_values: flags.FlagValues, names: Iterable[str] = tuple(FIELDS)) -> None:
    """Defines one flag for each of the named fields of `Config`, unset by default."""
    for name in names:
        field = FIELDS[name]
        help = f"{field.metadata['help']} (default {field.default})"
        if choices := field.metadata.get("choices"):
            help += f"; one of {', '.join(choices)}"
        flags.DEFINE(_AxisParser(name), name, None, help, flag_values=flag_values)


def given(flag_values: flags.FlagValues, names: Iterable[str] = tuple(FIELDS)) -> dict[str, list[Any]]:
    """The values of those of the named fields' flags that were given."""
    values = {name: flag_values[name].value for name in names}
    return {name: value for name, value in values.items() if value is not None}


def main() -> NoReturn:
    """Runs the script that is the program. Ctrl-C ends it at once and without a word from threads that still compute,
    unless what runs takes the signal to save first."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        os.write(2, f"\n{pathlib.Path(sys.argv[0]).name}: interrupted\n".encode())
        os._exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    sys.exit(run_script(sys.argv))


def run_script(argv: Sequence[str]) -> int:
    """Runs a script and returns its exit status. What a user can meet is answered by one line on stderr.

    A script is a module with a docstring, `FLAGS` (an `absl.flags.FlagValues` of its own) and `main()`, which returns
    nothing if all is well.

    Args:
      argv: the path of the script, then its arguments, as in `sys.argv`.
    """
    script = _load(pathlib.Path(argv[0]))
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    try:
        if not _parse(script, argv):
            return 0
        status = script.main() or 0
        print(end="", flush=True)  # here, where what goes wrong is answered
        return status
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except InputError as error:
        return _say(argv[0], error, 2)
    except CheckpointError as error:
        return _say(argv[0], error, 1)
    except OSError as error:
        return _say(argv[0], f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), 1)
    except LockedError as error:
        return _say(argv[0], error, 3)
    except Interrupted as error:
        return _say(argv[0], error, 128 + error.signal_number)
    except KeyboardInterrupt:
        return _say(argv[0], "interrupted", 128 + signal.SIGINT)


def _load(path: pathlib.Path) -> types.ModuleType:
    running = sys.modules["__main__"]
    if getattr(running, "__file__", None) and pathlib.Path(running.__file__ or "").resolve() == path.resolve():
        return running
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return script


def _parse(script: types.ModuleType, argv: Sequence[str]) -> bool:
    """Parses the flags; False if --help was asked for and answered."""
    flag_values = script.FLAGS
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:]):
        print(f"{script.__doc__}\nFlags:\n{flag_values.get_help(include_special_flags=False)}")
        return False
    try:
        rest = flag_values(argv)
    except flags.Error as error:
        # What absl says of a value repeats the flag that our parser named.
        raise error.__context__ if isinstance(error.__context__, InputError) else InputError(str(error)) from error
    if len(rest) > 1:
        raise InputError(f"{rest[1]}: not a flag; flags are written --name=value")
    return True


def _say(script: str, error: Exception | str, status: int) -> int:
    print(f"{pathlib.Path(script).name}: {error}", file=sys.stderr)
    return status
