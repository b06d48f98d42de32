"""The ``thalweg`` command, or one sentence on what to install for it."""

import sys


def main() -> None:
    """Run the command line; without the ``lab`` extra say how to get it and exit with 2."""
    try:
        from thalweg import cli
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("thalweg"):
            raise
        sys.exit(_missing(error.name))
    cli.main()


def _missing(name: str | None) -> int:
    print(f"the thalweg command needs {name}; install it with: pip install 'thalweg[lab]'", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
