"""Axes, or a table of members -> `Config`s."""

import csv
import itertools
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from spectral_dd import files
from spectral_dd.config import FIELDS, Config, check_names, check_value
from spectral_dd.errors import InputError, file_reason
from spectral_dd.presets import AUTO, preset_axes

# Where a row of a table of members stands, and its values.
Row = tuple[str, Mapping[str, Any]]


def sweep(preset: str | None = AUTO, *, members: Any = None, **axes: Any) -> list[Config]:
    """The members of a sweep.

    >>> len(sweep("digits", width=[2, 4, 8], seed=range(3), label_noise=0.15))
    9

    Args:
      preset: values that the others override, see `presets.preset_axes`; by default 'digits' with its own data set and
        model, else none; None: the defaults of `Config`.
      members: a table that ties values to each other, a row a group of members: a CSV file with a column a field, a
        list of dictionaries, or a pandas.DataFrame.
      **axes: a value, or several (an axis), by field. Axes multiply.

    Raises:
      InputError: a name is unknown, or a value is not allowed.
    """
    axes = {name: _axis(name, values) for name, values in axes.items()}
    rows = table_rows(members)
    given = given_values(rows, axes)
    _, preset_values = preset_axes(preset, given)
    configs = expand({**preset_values, **axes}, rows)
    for name in given:
        other, needed = FIELDS[name].metadata.get("of", (name, None))
        there = sorted({getattr(config, other) for config in configs}) if needed else ()
        if needed and needed not in there:
            value = ",".join(map(str, given[name]))
            raise InputError(f"--{name}={value}: says nothing with --{other}={','.join(there)}; it is for {needed}")
    return configs


def given_values(rows: Iterable[Row], axes: Mapping[str, Collection[Any]]) -> dict[str, Collection[Any]]:
    """All values of a table's columns and of axes, by field."""
    given: dict[str, set[Any]] = {}
    for _, row in rows:
        for name, value in row.items():
            given.setdefault(name, set()).add(value)
    if both := sorted(given.keys() & axes.keys()):
        raise InputError(f"--{both[0]}: is a column of the table of members too; give it once")
    return {**given, **axes}


def expand(axes: Mapping[str, Any], rows: Iterable[Row] = (("", {}),)) -> list[Config]:
    """Every combination of the axes' values, the last field varying fastest, for each row of a table.

    Raises:
      InputError: a name is unknown, a value is not allowed, an axis has one twice, or two members are the same.
    """
    check_names(axes)
    names = [name for name in FIELDS if name in axes]
    values = [_axis(name, axes[name]) for name in names]
    configs: dict[Config, str] = {}
    for where, row in rows:
        for combination in itertools.product(*values):
            try:
                config = Config.of(**row, **dict(zip(names, combination, strict=True)))
            except InputError as error:
                raise InputError(f"{where}{error}") from error
            if config in configs:
                raise InputError(f"{where}is the same member as {configs[config].rstrip(': ')}")
            configs[config] = where
    return list(configs)


def _axis(name: str, values: Any) -> list[Any]:
    """The values of a field, checked."""
    check_names([name])
    axis = [check_value(name, FIELDS[name], value) for value in _several(values)]
    if not axis or len(set(axis)) < len(axis):
        raise InputError(f"--{name}={','.join(map(str, axis))}: must be one or more different values")
    return axis


def _several(values: Any) -> Iterable[Any]:
    return values if isinstance(values, Iterable) and not isinstance(values, str) else (values,)


def table_rows(members: Any) -> list[Row]:
    """The rows of a table of members; see `sweep`."""
    if members is None:
        return [("", {})]
    if isinstance(members, str | os.PathLike):
        return _csv_rows(files.expanded(members))
    if hasattr(members, "to_dict"):  # a pandas.DataFrame
        members = members.to_dict("records")
    return [_checked_row(f"members[{i}]", row) for i, row in enumerate(members)]


def _csv_rows(path: pathlib.Path) -> list[Row]:
    about = f"--members={path}: "
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, skipinitialspace=True)
            table = [(lines.line_num, [cell.strip() for cell in cells]) for cells in lines if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{about}cannot be read: {file_reason(error)}") from error
    if len(table) < 2:
        raise InputError(f"{about}must have a line of field names and a line a member")
    header = table[0][1]
    check_names(header, f"{about}line {table[0][0]}, column ")
    if len(set(header)) < len(header):
        raise InputError(f"{about}line {table[0][0]}: a column is there twice")
    rows = []
    for number, cells in table[1:]:
        if len(cells) != len(header):
            raise InputError(f"{about}line {number}: has {len(cells)} cells, not {len(header)} as the first line")
        rows.append(_checked_row(f"{about}line {number}", dict(zip(header, cells, strict=True))))
    return rows


def _checked_row(where: str, row: Mapping[str, Any]) -> Row:
    check_names(row, f"{where}, column ")
    checked = {}
    for name, value in row.items():
        if value == "":
            raise InputError(f"{where}, column {name}: is empty")
        try:
            checked[name] = check_value(name, FIELDS[name], value)
        except InputError as error:
            raise InputError(f"{where}, column {name}: {error}") from error
    return f"{where}: ", checked
