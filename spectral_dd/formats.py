"""The formats of sweep.json and of the settings of evaluated spectra, and what an older one says in the words of the
newest.

The rule: who adds, removes or renames a field of `Config`, or of anything else that these files hold, raises `FORMAT`
by one. A file of an older format then has the default in the place of a field that it lacks; what else has changed is
translated here. A file of the newest format must be complete.
"""

from typing import Any

from spectral_dd import strict_json

# The version that is written. Version 1 had parallel lists in the place of packs; records of version 3 had an array for
# each result, however small.
FORMAT = 4
# The first one with a checksum, the identity of the sweep, and the ends of packs.
SEALED = 3


def as_newest(content: Any) -> dict[str, Any]:
    """What a sweep.json of any format holds, in the newest one, without its seal and format.

    Raises:
      ValueError: its format is unknown, or its seal is broken.
    """
    version = version_of(content)
    if version >= SEALED:
        content = strict_json.unseal(content)
    content = {name: value for name, value in content.items() if name != "format"}
    if version == 1:
        content = _from_format_1(content)
    if version < SEALED and isinstance(content.get("packs"), list):
        content["packs"] = [{**pack, "ends": []} if isinstance(pack, dict) else pack for pack in content["packs"]]
    return content


def version_of(content: Any, first: int = 1) -> int:
    """The version of a file's format.

    Raises:
      ValueError: it is not from `first` to the newest.
    """
    version = content.get("format", 1) if isinstance(content, dict) else None
    if type(version) is not int or not first <= version <= FORMAT:
        raise ValueError(f"its format is version {version}, this revision reads versions {first} to {FORMAT}")
    return version


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    parallel = {"configs": list[Any], "packs": list[Any], "lowerings": list[dict[str, Any]], "costs": list[Any]}
    configs, packs, lowerings, costs = (
        strict_json.decode(kind, content.pop(name, None), name) for name, kind in parallel.items()
    )
    platforms = [lowering.pop("platform", None) for lowering in lowerings]
    return content | {
        "shared": {},
        "members": configs,
        "packs": [
            {"members": members, "lowering": lowering, "cost": cost}
            for members, lowering, cost in zip(packs, lowerings, costs, strict=True)
        ],
        "platform": platforms[0] if platforms else None,
    }
