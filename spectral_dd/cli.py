"""Flags from the fields of `Config`, and the runner of the scripts under experiments/: arguments -> exit status."""

import errno
import importlib.util
import io
import os
import pathlib
import re
import signal
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from absl import flags, logging

from spectral_dd.config import FIELDS, check_value
from spectral_dd.errors import CheckpointError, InputError, Interrupted, LockedError, nearest
from spectral_dd.members import given_values, table_rows
from spectral_dd.presets import DEFAULT, PRESETS, preset_axes

# 0-4 is 0,1,2,3,4.
_RANGE = re.compile(r"(\d+)-(\d+)")
_NEARLY_A_RANGE = re.compile(r"\d+\s*(:|\.\.|-)\s*\d+")
_MOST_VALUES = 100_000


class _AxisParser(flags.ArgumentParser):
    """Parses 'a,b,c', or '0-4' for whole numbers, into a list of a field's values."""

    def __init__(self, name: str):
        super().__init__()
        self._name, self._field = name, FIELDS[name]
        self.syntactic_help = "a comma list makes an axis" + (", and so does 0-4" if self._field.type is int else "")

    def parse(self, argument: Any) -> list[Any]:
        parts = argument.split(",") if isinstance(argument, str) else list(argument)
        values = [value for part in parts for value in self._values(part)]
        return [check_value(self._name, self._field, value) for value in values]

    def _values(self, part: Any) -> Iterable[Any]:
        if not isinstance(part, str):
            return (part,)
        part = part.strip()
        if self._field.type is int and _NEARLY_A_RANGE.fullmatch(part):
            bounds = _RANGE.fullmatch(part)
            first, last = map(int, bounds.groups()) if bounds else (0, -1)
            if not 0 <= last - first < _MOST_VALUES:
                raise InputError(f"--{self._name}={part}: a range is written 0-4, for 0,1,2,3,4")
            return range(first, last + 1)
        return (part,)

    def flag_type(self) -> str:
        return f"{self._field.type.__name__}, comma list"  # type: ignore[union-attr]


def axis_values(name: str, text: str) -> list[Any]:
    """The values of a field that the text of its flag names."""
    return _AxisParser(name).parse(text)


def _default_in_training(name: str) -> str:
    default = FIELDS[name].default
    preset = PRESETS[DEFAULT].get(name, default)
    if preset == default:
        return f"default {default}"
    return f"default {_in_words(preset)} with preset {DEFAULT}, {default} without"


def define_fields(
    flag_values: flags.FlagValues,
    names: Iterable[str] = tuple(FIELDS),
    default: Callable[[str], str] = _default_in_training,
) -> None:
    """Defines one flag for each of the named fields of `Config`, unset by default.

    Args:
      flag_values: of the script.
      names: of the fields.
      default: says what holds for a field that is not given.
    """
    for name in names:
        field = FIELDS[name]
        help = f"{field.metadata['help']} ({default(name)})"
        if choices := field.metadata.get("choices"):
            help += f"; one of {', '.join(choices)}"
        flag = flags.Flag(_AxisParser(name), None, name, None, help, boolean=field.type is bool)
        flags.DEFINE_flag(flag, flag_values)


def define_task(flag_values: flags.FlagValues) -> None:
    """Defines --task_index and --task_count, for scripts of which several processes share the work."""
    own: dict[str, Any] = {"flag_values": flag_values}
    by_default = "; by default what started this process says: Slurm, MPI, TPU hosts"
    flags.DEFINE_integer("task_index", None, f"take this share of the packs{by_default}", lower_bound=0, **own)
    flags.DEFINE_integer("task_count", None, "number of shares, one process or job each", lower_bound=1, **own)


def given(flag_values: flags.FlagValues, names: Iterable[str] = tuple(FIELDS)) -> dict[str, list[Any]]:
    """The values of those of the named fields' flags that were given."""
    values = {name: flag_values[name].value for name in names}
    return {name: value for name, value in values.items() if value is not None}


def as_arguments(flag_values: flags.FlagValues, names: Iterable[str]) -> list[str]:
    """Arguments that give another process those of the named flags that were given."""
    arguments = []
    for name in names:
        if not flag_values[name].using_default_value:
            value = flag_values[name].value
            arguments.append(f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}")
    return arguments


def sources(preset: str | None, *, members: Any, **axes: Any) -> list[str]:
    """Where each value of a sweep comes from, a line a source; arguments as of `members.sweep`, which accepts them."""
    given = given_values(table_rows(members), axes)
    name, preset_values = preset_axes(preset, given)
    defaults = {name: field.default for name, field in FIELDS.items() if name not in given.keys() | preset_values}
    lines = {
        "flags": _settings_in_words(axes),
        "table of members": " ".join(name for name in given if name not in axes),
        f"preset {name}": _settings_in_words(preset_values),
        "defaults": _settings_in_words(defaults),
    }
    return [f"{source}: {values}" for source, values in lines.items() if values]


def _settings_in_words(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_in_words(values[name])}" for name in FIELDS if name in values)


def _in_words(values: Any) -> str:
    values = list(values) if isinstance(values, list | tuple) else [values]
    first, count = values[0], len(values)
    if count > 2 and type(first) is int and values == list(range(first, first + count)):
        return f"{first}-{values[-1]}"
    return ",".join(map(str, values))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a script as the program, by default the one that is it. Ctrl-C ends it, unless what runs takes the signal
    to save first."""
    signal.signal(signal.SIGINT, end_at_once)
    sys.exit(run_script(argv or sys.argv))


def end_at_once(number: int, frame: types.FrameType | None = None) -> NoReturn:
    """Ends this process as a signal does, without a word from threads that still compute."""
    os.write(2, f"\n{pathlib.Path(sys.argv[0]).name}: interrupted\n".encode())
    os._exit(128 + number)


def run_script(argv: Sequence[str]) -> int:
    """Runs a script and returns its exit status. What a user can meet is answered by one line on stderr.

    A script is a module with a docstring, `FLAGS` (an `absl.flags.FlagValues` of its own) and `main()`, which returns
    nothing if all is well.

    Args:
      argv: the path of the script, then its arguments, as in `sys.argv`.
    """
    script = load(pathlib.Path(argv[0]))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of ASCII gets \xb2 for what it cannot show
            stream.reconfigure(errors="backslashreplace")
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    try:
        if not parse(script, argv):
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
        said = f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
        again = "; the same command goes on when there is space" if error.errno == errno.ENOSPC else ""
        return _say(argv[0], said + again, 1)
    except LockedError as error:
        return _say(argv[0], error, 3)
    except Interrupted as error:
        return _say(argv[0], error, 128 + error.signal_number)
    except KeyboardInterrupt:
        return _say(argv[0], "interrupted", 128 + signal.SIGINT)


def load(path: pathlib.Path) -> types.ModuleType:
    """A script as a module; the one that runs now, if it is that."""
    running = sys.modules["__main__"]
    if getattr(running, "__file__", None) and pathlib.Path(running.__file__ or "").resolve() == path.resolve():
        return running
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return script


def parse(script: types.ModuleType, argv: Sequence[str]) -> bool:
    """Parses the flags; False if --help was asked for and answered."""
    flag_values = script.FLAGS
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:]):
        print(f"{script.__doc__}\nFlags:\n{flag_values.get_help(include_special_flags=False)}")
        return False
    try:
        rest = flag_values(argv)
    except (flags.Error, ValueError) as error:
        if isinstance(error.__context__, InputError):  # absl's words around it repeat the flag
            raise error.__context__ from error
        raise InputError(_in_our_words(error, argv, flag_values)) from error
    if len(rest) > 1:
        raise InputError(_no_flag(rest[1]))
    for name in flag_values:
        flag = flag_values[name]
        if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
            raise InputError(f"--{name}: is given {flag.present} times; give it once")
        if isinstance(flag.value, str) and flag.value.startswith("--"):
            raise InputError(f"--{name}: has no value; flags are written --name=value")
    return True


def _in_our_words(error: Exception, argv: Sequence[str], flag_values: flags.FlagValues) -> str:
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"--{error.flagname}: is no flag; --help lists them.{nearest(error.flagname, flag_values)}"
    if missing := re.search(r"(--\w+) must have a value other than None", str(error)):
        if len(argv) > 1 and not argv[1].startswith("-"):
            return _no_flag(argv[1])
        return f"{missing[1]}: must be given; --help says what it is"
    return str(error).removeprefix("flag ").removeprefix("ERROR:: ")


def _no_flag(argument: str) -> str:
    return f"{argument}: not a flag; flags are written --name=value"


def _say(script: str, error: Exception | str, status: int) -> int:
    print(f"{pathlib.Path(script).name}: {error}", file=sys.stderr)
    return status
