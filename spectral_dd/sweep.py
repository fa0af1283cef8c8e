"""Sweeps: axes -> a list of `Config`s, as absl flags, as presets and as the file sweep.json."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from spectral_dd.config import CheckpointError, Config, InputError, check_value, nearest

FIELDS = {field.name: field for field in dataclasses.fields(Config)}

# How the name of a file begins that is not written to its end.
_TEMPORARY = ".writing."

# Zhang, Xiong, Wu (arXiv 2004.13954), section 4.1 and the public code.
_PAPER: dict[str, Sequence[Any]] = {
    "dataset": ("cifar10",),
    "channels": (3,),
    "width": (64,),
    "label_noise": (0.1,),
    "noise_kind": ("permute",),
    "shift": (4,),
    "flip": (True,),
    "optimizer": ("adam",),
    "learning_rate": (1e-4,),
    "batch_size": (128,),
    "epochs": (1000,),
    "spectrum_examples": (500,),
    "spectrum_points": (128,),
    "spectrum_half_width": (0.5,),
    "spectrum_augment": (True,),
}

# Nakkiran et al. (arXiv 1912.02292), sections 4 and 5, appendix B. An epoch has 390 steps.
_NAKKIRAN_RESNET18: dict[str, Sequence[Any]] = {
    "model": ("preact_resnet18",),
    "dataset": ("cifar10",),
    "channels": (3,),
    "width": tuple(range(1, 65)),
    "label_noise": (0.0, 0.1, 0.15, 0.2),
    "shift": (4,),
    "flip": (True,),
    "optimizer": ("adam",),
    "learning_rate": (1e-4,),
    "batch_size": (128,),
    "epochs": (4000,),
}
_NAKKIRAN_CNN5: dict[str, Sequence[Any]] = {
    "model": ("cnn5",),
    "dataset": ("cifar10",),
    "channels": (3,),
    "width": tuple(range(1, 65)),
    "label_noise": (0.0, 0.1, 0.2),
    "optimizer": ("sgd",),
    "learning_rate": (0.1,),
    "momentum": (0.0,),
    "schedule": ("inverse_sqrt",),
    "schedule_steps": (512,),
    "batch_size": (128,),
    "epochs": (1283,),  # 500 thousand steps
}

# A preset is a set of axes that flags override. Values are tuples: several make an axis.
PRESETS: dict[str, dict[str, Sequence[Any]]] = {
    "digits": {
        "model": ("cnn5",),
        "dataset": ("digits",),
        "width": (1, 2, 3, 4, 6, 8, 11, 16, 23, 32),
        "train_size": (600,),
        "label_noise": (0.15,),
        "shift": (1,),
        "optimizer": ("adam",),
        "learning_rate": (1e-3,),
        # Constant, Adam leaves the interpolating solution now and then, which looks like a second descent.
        "schedule": ("inverse_sqrt",),
        "schedule_steps": (512,),
        "batch_size": (100,),
        "epochs": (400,),
        "spectrum_points": (16,),
        "spectrum_measures": (32,),
        "spectrum_budget": (0.18,),
    },
    # Greydanus and Kobak (arXiv 2011.14439), the notebook on double descent.
    "mnist1d_mlp": {
        "model": ("mlp",),
        "dataset": ("mnist1d",),
        "width": (2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 47, 61, 80, 104, 135, 177, 230, 300),
        "label_noise": (0.15,),
        "noise_kind": ("uniform",),
        "optimizer": ("sgd",),
        "learning_rate": (0.01,),
        "momentum": (0.9,),
        "batch_size": (100,),
        "epochs": (500,),
        "spectrum_budget": (0.3,),
    },
    "nakkiran_resnet18": _NAKKIRAN_RESNET18,
    "nakkiran_cnn5": _NAKKIRAN_CNN5,
    "nakkiran_cnn5_augmented": _NAKKIRAN_CNN5 | {"shift": (4,), "flip": (True,)},
    "paper_vgg11": _PAPER | {"model": ("vgg11",)},
    "paper_vgg13": _PAPER | {"model": ("vgg13",)},
    "paper_vgg16": _PAPER | {"model": ("vgg16",)},
    "paper_resnet18": _PAPER | {"model": ("resnet18",)},
    "paper_resnet34": _PAPER | {"model": ("resnet34",)},
}


def expand(axes: dict[str, Sequence[Any]]) -> list[Config]:
    """The members of a sweep: every combination of the axes' values, the last field varying fastest.

    Args:
      axes: values of some of `Config`'s fields; the others keep their defaults.

    Raises:
      InputError: a value is not allowed, or an axis names one twice.
    """
    names = [name for name in FIELDS if name in axes]
    values = []
    for name in names:
        axis = [check_value(FIELDS[name], value) for value in axes[name]]
        if not axis or len(set(axis)) < len(axis):
            raise InputError(f"--{name}={','.join(map(str, axes[name]))}: must be one or more different values")
        values.append(axis)
    return [Config(**dict(zip(names, combination, strict=True))) for combination in itertools.product(*values)]


class _AxisParser(flags.ArgumentParser):
    """Parses 'a,b,c' into a list of a field's values."""

    def __init__(self, field: dataclasses.Field):
        super().__init__()
        self._field = field
        self.syntactic_help = "a comma list makes an axis"

    def parse(self, argument: Any) -> list[Any]:
        values = argument.split(",") if isinstance(argument, str) else list(argument)
        return [check_value(self._field, value.strip() if isinstance(value, str) else value) for value in values]

    def flag_type(self) -> str:
        return f"{self._field.type.__name__}, comma list"  # type: ignore[union-attr]


def define_flags(names: Sequence[str] = tuple(FIELDS)) -> None:
    """Defines one flag for each of the named fields of `Config`, unset by default."""
    for name in names:
        field = FIELDS[name]
        help = f"{field.metadata['help']} (default {field.default})"
        if choices := field.metadata.get("choices"):
            help += f"; one of {', '.join(choices)}"
        flags.DEFINE(
            _AxisParser(field), name, None, help, serializer=flags.CsvListSerializer(","), module_name=__name__
        )


def axes_from_flags(preset: str) -> dict[str, Sequence[Any]]:
    """The preset's axes, overridden by the flags that were given."""
    if preset not in PRESETS:
        raise InputError(f"--preset={preset}: must be one of {', '.join(PRESETS)}.{nearest(preset, PRESETS)}")
    return PRESETS[preset] | given_flags()


def given_flags(names: Sequence[str] = tuple(FIELDS)) -> dict[str, Sequence[Any]]:
    """The values of those of the named fields' flags that were given."""
    values = {name: flags.FLAGS[name].value for name in names}
    return {name: value for name, value in values.items() if value is not None}


def run_script(main: Callable[[Sequence[str]], int | None]) -> None:
    """`absl.app.run`, with bad input (status 2), and what else a user can meet, answered by one line on stderr."""

    def parse_flags(argv: Sequence[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
            if len(rest) > 1:
                raise InputError(f"{rest[1]}: not a flag; flags are written --name=value")
        except (flags.Error, InputError) as error:
            # What absl says of a value repeats the flag that our parser named.
            _refuse(error.__context__ if isinstance(error.__context__, InputError) else error)
        return rest

    def refusing_main(argv: Sequence[str]) -> int | None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            status = main(argv)
            print(end="", flush=True)  # here, where what goes wrong is answered
            return status
        except InputError as error:
            _refuse(error)
        except BrokenPipeError:
            raise
        except (CheckpointError, OSError) as error:
            _refuse(error, status=1)
        except KeyboardInterrupt:
            _refuse("interrupted", status=128 + signal.SIGINT)

    try:
        app.run(refusing_main, flags_parser=parse_flags)
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _refuse(error: Exception | str, status: int = 2) -> NoReturn:
    print(f"{pathlib.Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    sys.exit(status)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What sweep.json holds: the members, how they are packed, and where the sweep came from.

    `costs` are the packs' estimated work, in any unit: tasks share the packs by them. `facts` has an entry a
    member (parameters, noise_rate), `datasets` an entry a data set (image_shape, num_classes); `provenance` is
    free (command line, versions, git revision). `lowerings` has an entry a pack: the platform that it was chosen for,
    and the fields of `family.Lowering`. `apart`: a pack a device, rather than each pack on all of them.
    """

    configs: list[Config]
    packs: list[list[int]]
    costs: list[float]
    facts: list[dict[str, Any]]
    datasets: dict[str, dict[str, Any]]
    provenance: dict[str, Any]
    lowerings: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    apart: bool = False

    @property
    def pack_configs(self) -> list[list[Config]]:
        return [[self.configs[i] for i in pack] for pack in self.packs]

    def place(self, member: int) -> tuple[int, int]:
        """The pack of a member, and its place in it."""
        for number, pack in enumerate(self.packs):
            if member in pack:
                return number, pack.index(member)
        raise InputError(f"member={member}: the sweep has members 0 to {len(self.configs) - 1}")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Sweep":
        return cls(**(values | {"configs": [Config(**c) for c in values["configs"]]}))


def read_sweep(workdir: str | os.PathLike) -> Sweep:
    """Reads DIR/sweep.json.

    Raises:
      InputError: there is none, or it cannot be read.
    """
    path = pathlib.Path(workdir) / "sweep.json"
    try:
        return Sweep.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        message = f"--workdir={workdir}: holds no sweep (no sweep.json); experiments/train_sweep.py makes one"
        raise InputError(message) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as a sweep: {error}") from error


def check_workdir(workdir: str | os.PathLike, configs: Sequence[Config]) -> Sweep | None:
    """The sweep that DIR holds already, if it is this one; nothing if DIR is free. Writes nothing.

    Raises:
      InputError: DIR holds another sweep or foreign files, or cannot be written.
    """
    directory = pathlib.Path(workdir)
    try:
        existing = next(p for p in (directory, *directory.absolute().parents) if p.exists())
        if not existing.is_dir():
            raise InputError(f"--workdir={workdir}: {existing} is not a directory")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise InputError(f"--workdir={workdir}: {existing} cannot be written")
        # Listed before looking for sweep.json, which another task may be writing: it writes nothing else before.
        files = [p.name for p in directory.iterdir()] if directory.exists() else []
        if not (directory / "sweep.json").exists():
            if any(not name.startswith(_TEMPORARY) for name in files):
                message = f"--workdir={workdir}: has files but no sweep.json; give an empty or new directory"
                raise InputError(message)
            return None
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be used: {error.strerror}") from error
    sweep = read_sweep(directory)
    if difference := _difference(sweep.configs, configs):
        raise InputError(
            f"--workdir={workdir}: holds a different sweep: {difference}; use that command or another directory"
        )
    return sweep


def _difference(there: Sequence[Config], here: Sequence[Config]) -> str:
    """What two sweeps disagree on, as flags; empty if on nothing."""
    if list(there) == list(here):
        return ""

    def axis(configs: Sequence[Config], name: str) -> str:
        return ",".join(str(v) for v in dict.fromkeys(getattr(c, name) for c in configs))

    differing = [name for name in FIELDS if axis(there, name) != axis(here, name)]
    if not differing:
        return "the same values in another combination"
    return "; ".join(f"--{name}={axis(there, name)} there, {axis(here, name)} here" for name in differing)


def write_sweep(workdir: str | os.PathLike, sweep: Sweep) -> Sweep:
    """Writes DIR/sweep.json. Of several processes that try, one wins, and all get its sweep.

    Raises:
      InputError: DIR cannot be made or written, or another sweep won.
    """
    write_once(pathlib.Path(workdir) / "sweep.json", sweep.to_json())
    winner = check_workdir(workdir, sweep.configs)
    assert winner is not None
    return winner


def write_once(path: pathlib.Path, content: Any) -> None:
    """Writes a JSON file, and its directory, whole or not at all; a file that is there already stays as it is.

    Raises:
      InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=_TEMPORARY) as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # a temporary file is private, but a sweep has readers
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
