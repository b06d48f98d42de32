"""``thalweg race init``: a file to start from."""

from importlib import resources
from pathlib import Path

from thalweg.cli.exits import Mistake, users_input
from thalweg.hyperparameters import nearest

KINDS = ("tensors", "loader", "loop", "lightning", "transformers")
"""What there is a file for."""


def init(kind: str | None, out: Path | None) -> None:
    """Write the file of this kind; `out` is the file, by default ``my_problem.py`` or ``my_training.py``."""
    kind = kind or "loop"
    if kind not in KINDS:
        raise Mistake(f"there is no start for {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
    path = out or Path("my_problem.py" if kind == "tensors" else "my_training.py")
    if path.suffix != ".py":
        path /= "my_problem.py" if kind == "tensors" else "my_training.py"
    if path.exists():
        raise Mistake(f"{path} exists already; name another file with --out")
    text = resources.files("thalweg.cli").joinpath("starts", f"{kind}.txt").read_text(encoding="utf-8")
    with users_input():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{file}", str(path)), encoding="utf-8")
    function = "make" if kind == "tensors" else "train"
    print(f"{path} runs as it is; put your own in, and race it:\n\nthalweg race {path}:{function} --rules sgd,adam")
