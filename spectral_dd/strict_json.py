"""JSON of our own files: sealed with a CRC32, and decoded by the annotations of dataclasses.

Every fault is a ValueError of one line that names the place, such as 'packs[0].cost: must be a number'.
"""

import dataclasses
import functools
import json
import math
import types
import typing
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

# JSON has one kind of numbers, but a flag is no number and a fraction no whole number.
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", types.NoneType: "null"}


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the CRC32 of it all, under 'crc'."""
    return {**content, "crc": zlib.crc32(json.dumps(content, sort_keys=True, allow_nan=False).encode())}


def unseal(sealed: Any) -> dict[str, Any]:
    """The inverse of `seal`.

    Raises:
      ValueError: something has changed since, or there is no seal.
    """
    if not isinstance(sealed, dict) or type(sealed.get("crc")) is not int:
        raise ValueError("has no checksum")
    content = {name: value for name, value in sealed.items() if name != "crc"}
    if seal(content) != sealed:
        raise ValueError("its checksum differs: it is damaged, or was edited")
    return content


def dump(content: Mapping[str, Any]) -> str:
    """The sealed text of a file."""
    return json.dumps(seal(content), indent=1)


def parse(text: str) -> Any:
    """The content of a JSON text without NaN, infinities and names that are there twice.

    Raises:
      ValueError: it is none.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("is nested too deep") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name is there twice")
    return content


def decode(kind: Any, value: Any, where: str) -> Any:
    """`value` as an annotation describes it: numbers, text, lists, tuples of one kind, unions, dataclasses ...

    Raises:
      ValueError: it is something else.
    """
    if kind in _PLAIN:
        return _plain(kind, value, where)
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kind = types.NoneType if value is None else next(k for k in arguments if k is not types.NoneType)
        return decode(kind, value, where)
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return kind(**decode_fields(kind, value, where))
    if origin in (list, tuple):
        items = _of_type(list, "a list", value, where)
        return origin(decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        content = _of_type(dict, "an object", value, where)
        return {name: decode(arguments[1], item, f"{where}.{name}") for name, item in content.items()}
    raise TypeError(f"{where}: no rule for {kind}")


def decode_fields(kind: Any, value: Any, where: str = "", *, may_lack: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass or TypedDict, all of them but those that an older format `may_lack`.

    Raises:
      ValueError: a field is missing or unknown, or is something else than its annotation says.
    """
    content = _of_type(dict, "an object", value, where or "the file")
    kinds = _kinds(kind)
    optional = {*may_lack, *getattr(kind, "__optional_keys__", ())}
    prefix = f"{where}." if where else ""
    if unknown := sorted(content.keys() - kinds.keys()):
        raise ValueError(f"{prefix}{unknown[0]}: is unknown")
    if missing := sorted(kinds.keys() - content.keys() - optional):
        raise ValueError(f"{prefix}{missing[0]}: is missing")
    return {name: decode(kinds[name], item, f"{prefix}{name}") for name, item in content.items()}


_kinds = functools.cache(typing.get_type_hints)  # of thousands of members there are the same facts


def _plain(kind: type, value: Any, where: str) -> Any:
    ok = type(value) is kind or (kind is float and type(value) is int)
    if ok and kind is float:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        ok = math.isfinite(value)
    if not ok:
        raise ValueError(f"{where}: must be {_PLAIN[kind]}")
    return value


def _of_type(kind: type, name: str, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where}: must be {name}")
    return value
