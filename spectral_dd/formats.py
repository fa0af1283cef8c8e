"""The formats of sweep.json, and what an older one says in the words of the newest."""

from typing import Any

from spectral_dd import strict_json

# The version of sweep.json's format that is written. Version 1 had parallel lists in the place of packs; neither it nor
# version 2 had a checksum.
FORMAT = 3


def as_newest(content: Any) -> dict[str, Any]:
    """What a sweep.json of any format holds, in the newest one, without its seal and format.

    Raises:
      ValueError: its format is unknown, or its seal is broken.
    """
    version = version_of(content)
    if version == FORMAT:
        content = strict_json.unseal(content)
    content = {name: value for name, value in content.items() if name != "format"}
    if version == 1:
        content = _from_format_1(content)
    if version < FORMAT and isinstance(content.get("packs"), list):
        content["packs"] = [{**pack, "ends": []} if isinstance(pack, dict) else pack for pack in content["packs"]]
    return content


def version_of(content: Any) -> int:
    version = content.get("format", 1) if isinstance(content, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise ValueError(f"its format is version {version}, this revision reads versions 1 to {FORMAT}")
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
