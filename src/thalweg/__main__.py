"""The ``thalweg`` command, or one sentence on what to install for it."""

import sys

from thalweg import signals

_LAB = {"cloudpickle", "filelock", "jinja2", "plotly", "rich", "scipy", "sklearn", "sqlalchemy", "typer"}


def main() -> None:
    """Run the command line; without the ``lab`` extra say how to get it and exit with 2."""
    signals.end_quietly()
    try:
        from thalweg import cli

        cli.main()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _LAB:
            raise
        print(f"thalweg: this needs {name}; install it with: pip install 'thalweg[lab]'", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
