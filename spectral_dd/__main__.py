"""The command `spectral-dd`, or `python -m spectral_dd`: the scripts of experiments/ as verbs, and --version."""

import ast
import pathlib
import sys

from spectral_dd import cli
from spectral_dd.errors import InputError, nearest

HERE = pathlib.Path(__file__).parent
# In the package where it was installed from a wheel, and beside it in a source tree.
SCRIPTS = next(path for path in (HERE / "experiments", HERE.parent / "experiments") if path.is_dir())
# What writes the documentation of the source tree.
NO_VERBS = ("results",)


def verbs() -> dict[str, str]:
    """The first line of each script, by its name."""
    scripts = {path.stem: path for path in sorted(SCRIPTS.glob("*.py")) if path.stem not in NO_VERBS}
    return {name: (ast.get_docstring(ast.parse(p.read_text())) or "").partition("\n")[0] for name, p in scripts.items()}


def version() -> str:
    """This project, what it runs on, and with which devices.

    Raises:
      InputError: JAX has no such platform as $JAX_PLATFORMS here.
    """
    # Here, so that scripts answer what is wrong with a flag, and Ctrl-C, before JAX is imported.
    from spectral_dd import devices
    from spectral_dd.provenance import provenance

    devices.set_up()
    made_by = provenance()
    versions = [f"{name} {number}" for name, number in made_by["versions"].items() if number]
    kinds = {kind: made_by["devices"].count(kind) for kind in made_by["devices"]}
    return "\n".join(
        [
            f"spectral_dd at {HERE}, revision {made_by['git_revision'] or 'unknown'}",
            f"python {made_by['python']}, {', '.join(versions)}",
            f"devices: {', '.join(f'{count} x {kind}' for kind, count in kinds.items())}",
        ]
    )


def main() -> int:
    known = verbs()
    match sys.argv[1:]:
        case ["--version"]:
            try:
                print(version())
            except InputError as error:
                print(f"spectral-dd: {error}", file=sys.stderr)
                return 2
            return 0
        case [verb, *arguments] if verb in known:
            cli.main([str(SCRIPTS / f"{verb}.py"), *arguments])
        case [] | ["--help" | "-h" | "help"]:
            width = max(map(len, known))
            print("spectral-dd VERB --flag=value ...; `spectral-dd VERB --help` lists the flags. Also: --version\n")
            print(*(f"  {name:{width}}  {line}" for name, line in known.items()), sep="\n")
            return 0
        case [other, *_]:
            message = f"{other}: must be --version, --help or one of {', '.join(known)}.{nearest(other, known)}"
            print(f"spectral-dd: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
