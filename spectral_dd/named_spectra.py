"""Spectra that were evaluated after training: a directory for each name, and the file that says their settings.

DIR/spectra/NAME/settings.json   the settings, and which sweep they are of
DIR/spectra/NAME/packs/...       records of results alone, laid out like the sweep's own
"""

import dataclasses
import os
import pathlib
import re
import types
import uuid
from collections.abc import Mapping
from typing import Any

from spectral_dd import files, formats, provenance, strict_json
from spectral_dd.config import FIELDS
from spectral_dd.errors import InputError, file_reason
from spectral_dd.sweeps import Sweep

# What training measures, and evaluation cannot.
LEFT_OUT = "optimization_variance needs the optimiser's state, which records do not keep: only training records it"


@dataclasses.dataclass(frozen=True)
class NamedSpectra:
    """What settings.json holds."""

    settings: dict[str, Any]  # values of the fields `spectrum_...` and `measure`; the others are as in training
    sweep: str  # identity of the sweep
    identity: str  # drawn when they are first evaluated; their records name it
    measures: dict[str, dict[str, str]] = dataclasses.field(
        default_factory=dict
    )  # of one's own: `own_measures.described`

    def place(self, workdir: str | os.PathLike, name: str, number: int) -> files.Place:
        """Where the records of a pack are."""
        return files.Place(files.pack_directory(_directory(workdir, name), number), self.identity, number)


def are_settled(workdir: str | os.PathLike, name: str) -> bool:
    """Whether there are settings of that name.

    Raises:
      InputError: it is no name.
    """
    return (_directory(workdir, name) / "settings.json").exists()


def settle(
    workdir: str | os.PathLike,
    name: str,
    sweep: Sweep,
    settings: Mapping[str, Any],
    measures: Mapping[str, dict[str, str]] = types.MappingProxyType({}),
) -> NamedSpectra:
    """Writes the settings of these spectra, or checks that they are those that are there.

    Raises:
      InputError: DIR has spectra of that name with other settings, or cannot be written.
    """
    path = _directory(workdir, name) / "settings.json"
    new = NamedSpectra(dict(settings), sweep.identity, uuid.uuid4().hex, dict(measures))
    try:
        files.write_once(path, strict_json.dump({"format": formats.FORMAT, **dataclasses.asdict(new)}))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {file_reason(error)}") from error
    there = read(workdir, name, sweep)
    if there.settings != new.settings:
        raise InputError(f"--name={name}: {path.parent} holds spectra with {there.settings}; give another name")
    return there


def read(workdir: str | os.PathLike, name: str, sweep: Sweep) -> NamedSpectra:
    """Reads the settings of spectra.

    Raises:
      InputError: there are none of that name, or the file is damaged, was edited, or is another sweep's.
    """
    path = _directory(workdir, name, "spectrum") / "settings.json"
    try:
        content = strict_json.parse(path.read_text())
        if not sweep.identity and isinstance(content, dict) and "format" not in content:
            there = NamedSpectra(content, "", "")  # of a former revision, which did not seal them
        else:
            content = strict_json.unseal(content)
            formats.version_of(content, formats.SEALED)
            del content["format"]
            there = NamedSpectra(**strict_json.decode_fields(NamedSpectra, content, may_lack=("measures",)))
        if there.sweep != sweep.identity:
            raise ValueError("it is another sweep's")
        for field, value in there.settings.items():
            if not (field.startswith("spectrum_") or field == "measure") or field not in FIELDS:
                raise ValueError(f"{field}: is no setting of spectra")
            strict_json.decode(FIELDS[field].type, value, field)
        return there
    except FileNotFoundError:
        known = sorted(p.parent.name for p in path.parent.parent.glob("*/settings.json"))
        raise InputError(
            f"--spectrum={name}: {workdir} has {'spectra ' + ', '.join(known) if known else 'no evaluated spectra'}; "
            f"{provenance.command('evaluate_spectrum', workdir=workdir, name=name)} ... makes them"
        ) from None
    except (OSError, ValueError) as error:
        again = provenance.command("evaluate_spectrum", workdir=workdir, name=name)
        raise InputError(
            f"{path}: cannot be read: {file_reason(error)}; delete its directory; {again} ... makes it anew"
        ) from error


def _directory(workdir: str | os.PathLike, name: str, flag: str = "name") -> pathlib.Path:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--{flag}={name}: must be letters, digits, '_', '-' and '.'")
    return files.spectrum_directory(workdir, name)
