"""A sweep as data: its members, their packs, and the file sweep.json."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NotRequired, Self, TypedDict, TypeVar

from spectral_dd import files, formats, locks, provenance, strict_json
from spectral_dd.config import FIELDS, Config, check_names
from spectral_dd.errors import InputError, file_reason

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Lowering:
    """How a pack becomes a program. All ways compute the same; which is fastest depends on device and shapes."""

    convolution: str  # one of kernels.CONVOLUTIONS
    at_once: int | None  # members of a device in one batched operation (vmap), group after group; None: all of them


@dataclasses.dataclass(frozen=True)
class Pack:
    """Members that share a program."""

    members: tuple[int, ...]  # places in Sweep.configs
    lowering: Lowering
    cost: float  # estimated seconds on the devices that it runs on
    ends: tuple[int, ...] = ()  # last epochs that it had before it was extended


class Facts(TypedDict):
    """What is known of a member before it is trained."""

    parameters: int
    noise_rate: float  # share of training labels that are really wrong


class DataFacts(TypedDict):
    """What is known of a data set."""

    image_shape: list[int]  # height, width, channels
    num_classes: int
    # Older formats lack these, of `Dataset.about`.
    image_type: NotRequired[str]
    classes: NotRequired[list[int] | None]
    version: NotRequired[str]
    train_size: NotRequired[int]
    test_size: NotRequired[int]
    labels: NotRequired[str]
    images: NotRequired[str]
    train_labels: NotRequired[dict[str, str]]  # sums of the labels that members train on instead


@dataclasses.dataclass(frozen=True, repr=False)
class Sweep:
    """What sweep.json holds: the members, their packs, and where the sweep came from.

    A field with a default is one that older formats lack.
    """

    configs: list[Config]
    packs: list[Pack]
    apart: bool  # as many packs at a time as there are devices, one on each; else each pack on all devices
    platform: str  # that the lowerings were chosen for
    facts: list[Facts]  # of each member
    datasets: dict[str, DataFacts]  # by name
    provenance: dict[str, Any]  # command line, versions, git revision
    identity: str = ""  # drawn when the sweep is made; its records name it

    def __repr__(self) -> str:  # a notebook shows what `train` returns
        return f"Sweep({len(self.configs)} members, {len(self.packs)} packs)"

    def members(self, pack: Pack) -> list[Config]:
        return [self.configs[i] for i in pack.members]

    def place(self, workdir: str | os.PathLike, number: int) -> files.Place:
        """Where the records of a pack are."""
        return files.Place(files.pack_directory(workdir, number), self.identity, number)

    def lowering(self, pack: Pack, platform: str) -> Lowering | None:
        """The lowering of a pack, or nothing if it was chosen for another platform."""
        return pack.lowering if platform == self.platform else None

    def locate(self, member: int) -> tuple[int, int]:
        """The number of a member's pack, and its place in the pack.

        Raises:
          InputError: there is no such member.
        """
        for number, pack in enumerate(self.packs):
            if member in pack.members:
                return number, pack.members.index(member)
        raise InputError(f"member={member}: the sweep has members 0 to {len(self.configs) - 1}")

    def to_json(self) -> dict[str, Any]:
        values = [config.values() for config in self.configs]
        shared = {name: value for name, value in values[0].items() if all(v[name] == value for v in values)}
        own = [{name: value for name, value in v.items() if name not in shared} for v in values]
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("configs", "packs")}
        return {
            "format": formats.FORMAT,
            "shared": shared,
            "members": own,
            "packs": [dataclasses.asdict(pack) for pack in self.packs],
            **rest,
        }

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """The sweep of a file that holds what `to_json` gives, sealed, or an older format.

        Raises:
          ValueError: it has another format, or anything in it is not as `to_json` writes it.
        """
        version, content = formats.version_of(content), formats.as_newest(content)
        shared, members = (strict_json.decode(kind, content.pop(name, None), name) for name, kind in _MEMBERS.items())
        configs = _configs(shared, members, complete=version == formats.FORMAT)
        younger = {f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
        if version < formats.SEALED and (unknown := sorted(content.keys() & younger)):
            raise ValueError(f"{unknown[0]}: is unknown in format {version}")
        may_lack = {"configs"} | (younger if version < formats.FORMAT else set())
        sweep = cls(configs=configs, **strict_json.decode_fields(cls, content, may_lack=may_lack))
        sweep._check()
        return sweep

    def _check(self) -> None:
        """Raises ValueError unless the parts fit each other."""
        if sorted(itertools.chain(*(pack.members for pack in self.packs))) != list(range(len(self.configs))):
            raise ValueError("packs: must have each member once")
        if len(set(self.configs)) < len(self.configs) or not self.configs:
            raise ValueError("members: must be one or more different ones")
        if len(self.facts) != len(self.configs):
            raise ValueError("facts: must be as many as members")
        for i, pack in enumerate(self.packs):
            if len({tuple(config.static().values()) for config in self.members(pack)}) != 1:
                raise ValueError(f"packs[{i}]: its members must agree on all static fields")
            if pack.cost < 0 or (pack.lowering.at_once is not None and pack.lowering.at_once < 1):
                raise ValueError(f"packs[{i}]: must have a cost of at least 0 and at least 1 member at once")
        if lacking := {c.dataset for c in self.configs} - self.datasets.keys():
            raise ValueError(f"datasets: must have {min(lacking)}")
        for name, about in self.datasets.items():
            if len(about["image_shape"]) != 3 or min(*about["image_shape"], about["num_classes"]) < 1:
                raise ValueError(f"datasets.{name}: must have three sizes of images, and classes")
        if not isinstance(self.provenance.get("command"), str):
            raise ValueError("provenance.command: must be text")


# Values that all members share, and those of each.
_MEMBERS = {"shared": dict[str, Any], "members": list[dict[str, Any]]}


def _configs(shared: dict[str, Any], members: list[dict[str, Any]], complete: bool) -> list[Config]:
    """Members from their stored values; of an older format, what is missing has its default."""
    shared = _typed(shared, "members[0]")
    own = {name: default for name, default in Config.of().values().items() if name not in shared}
    configs: list[Config] = []
    for i, stored in enumerate(members):
        where = f"members[{i}]"
        values = _typed(stored, where)
        if complete and (missing := [name for name in own if name not in values]):
            raise ValueError(f"{where}.{missing[0]}: is missing")
        if twice := [name for name in values if name not in own]:
            raise ValueError(f"{where}.{twice[0]}: is among what all members share")
        values = own | values
        # All differ from the first in their own values alone.
        configs.append(configs[0].replace(**values) if configs else Config.of(**shared, **values))
    return configs


def _typed(values: dict[str, Any], where: str) -> dict[str, Any]:
    check_names(values, f"{where}, ")
    return {name: strict_json.decode(FIELDS[name].type, value, f"{where}.{name}") for name, value in values.items()}


def read_sweep(workdir: str | os.PathLike) -> Sweep:
    """Reads DIR/sweep.json.

    Raises:
      InputError: there is none, or it is damaged, was edited, or has a format of another revision.
    """
    return _read(workdir, Sweep.from_json)


def read_content(workdir: str | os.PathLike) -> dict[str, Any]:
    """What DIR/sweep.json holds, `shared`, `members`, `packs` and the rest, as it is: of thousands of members, making
    and checking the configs takes a second. Raises as `read_sweep` does."""
    return _read(workdir, formats.as_newest)


def _read(workdir: str | os.PathLike, make: Callable[[Any], T]) -> T:
    path = files.workdir_path(workdir) / "sweep.json"
    try:
        return make(strict_json.parse(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        message = f"--workdir={workdir}: holds no sweep (no sweep.json); {provenance.command('train_sweep')} makes one"
        raise InputError(message) from None
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read as a sweep: {file_reason(error)}"
        raise InputError(f"{message[:220]}; bring back a copy of the file, or train in another directory") from error


def check_workdir(workdir: str | os.PathLike, configs: Sequence[Config], *, extend: bool = False) -> Sweep | None:
    """The sweep that DIR holds already, if it is this one or, with `extend`, whatever it is; nothing if DIR is free.
    Writes nothing.

    Raises:
      InputError: DIR holds another sweep or foreign files, or cannot be written.
    """
    directory = files.workdir_path(workdir)
    try:
        existing = next(p for p in (directory, *directory.parents) if p.exists())
        if not existing.is_dir():
            raise InputError(f"--workdir={workdir}: {existing} is not a directory")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise InputError(f"--workdir={workdir}: {existing} cannot be written")
        # Listed before looking for sweep.json, which another task may be writing: it writes nothing else before.
        names = [p.name for p in directory.iterdir()] if directory.exists() else []
        if not (directory / "sweep.json").exists():
            if any(not name.startswith((files.TEMPORARY, files.JOBS)) for name in names):
                raise InputError(f"--workdir={workdir}: has files but no sweep.json; give an empty or new directory")
            return None
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be used: {file_reason(error)}") from error
    there = read_sweep(directory)
    if not extend and (differs := difference(there.configs, configs)):
        raise InputError(
            f"--workdir={workdir}: holds a different sweep: {differs}; use that command or another directory, or "
            "--extend to add members or epochs"
        )
    return there


def difference(there: Sequence[Config], here: Sequence[Config]) -> str:
    """What two sweeps disagree on, as flags; empty if they have the same members, in whatever order."""
    if set(there) == set(here):
        return ""

    def axes(configs: Sequence[Config]) -> dict[str, str]:
        values = [config.values() for config in configs]
        return {name: ",".join(str(v) for v in dict.fromkeys(value[name] for value in values)) for name in FIELDS}

    before, now = axes(there), axes(here)
    differing = [name for name in FIELDS if before[name] != now[name]]
    if not differing:
        return "the same values in another combination"
    return "; ".join(f"--{name}={before[name]} there, {now[name]} here" for name in differing)


def write_sweep(workdir: str | os.PathLike, new: Sweep, before: Sweep | None = None) -> Sweep:
    """Writes DIR/sweep.json. Of several processes that try, one wins, and all get its sweep.

    Args:
      workdir: DIR.
      new: the sweep.
      before: the one that is there, which `new` extends.

    Raises:
      InputError: DIR cannot be made or written, or another sweep won.
    """
    path = files.workdir_path(workdir) / "sweep.json"
    try:
        if before is None:
            files.write_once(path, strict_json.dump(new.to_json()))
        else:
            with locks.lock(path.with_name(f"{files.TEMPORARY}lock")):
                if read_sweep(workdir) == before:
                    files.write_whole(path, strict_json.dump(new.to_json()))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {file_reason(error)}") from error
    winner = check_workdir(workdir, new.configs)
    assert winner is not None
    return winner
