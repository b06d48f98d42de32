"""The table of forms in docs/schedules.md, generated from their docstrings: ``python -m thalweg.schedules.page``."""

import inspect
import re

from thalweg.schedules.base import FORMS
from thalweg.schedules.text import spelled


def table() -> str:
    """In Markdown, each form that is called by name: its value, its name in torch, and its other sources."""
    rows = ["| Form | Value | torch.optim.lr_scheduler | Elsewhere, and source |", "| --- | --- | --- | --- |"]
    for name, usage in spelled().items():
        first, _, rest = (inspect.getdoc(FORMS[name]) or "").replace("\n\n", "\0").replace("\n", " ").partition("\0")
        value, *source = first.split("  ")  # two spaces end the sentence that describes it
        said = source[0].removesuffix(".").split("; ") if source else []
        # If the equivalent of torch's takes more than a name, a separate sentence further on gives it.
        torchs = [one.removeprefix("torch's ") for one in said if one.startswith("torch's ")]
        torchs = torchs or re.findall(r"torch's (``.+?)(?:;|\.)(?: |\0|$)", rest)[:1]
        others = [one for one in said if not one.startswith("torch's ")]
        cells = (f"`{usage}`", value, "; ".join(torchs), "; ".join(others))
        rows.append(f"| {' | '.join(cells)} |".replace("``", "`"))
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
