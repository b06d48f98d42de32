"""The code in README and CONTRIBUTING runs and prints what they show, and links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def blocks(file: str, language: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    environment = {**os.environ, "COLUMNS": "100", **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def with_signum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with CONTRIBUTING's example in it, as one more file."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src" / "thalweg", folder / "thalweg", ignore=shutil.ignore_patterns("__pycache__"))
    (code,) = blocks("CONTRIBUTING.md", "python")
    (folder / "thalweg" / "rules" / "signum.py").write_text(code, encoding="utf-8")
    return folder


def test_the_example_rule_is_listed_as_shown(with_signum: Path) -> None:
    printed = python("-m", "thalweg", "rules", "signum", cwd=with_signum, path=with_signum)
    (shown,) = blocks("CONTRIBUTING.md", "text")
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def test_the_example_rule_steps_by_its_formula(with_signum: Path) -> None:
    program = """
import torch, thalweg
p = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
optimizer = thalweg.Optimizer([p], thalweg.rules.parse("signum(lr=0.5, momentum=0.5)"))
for gradient in [4.0, -1.0], [-1.0, -2.0], [-6.0, 5.0]:
    p.grad = torch.tensor(gradient, dtype=torch.float64)
    optimizer.step()
    print(*p.tolist())
"""
    # m = (2, -0.5), (0.5, -1.25), (-2.75, 1.875)
    expected = "0.5 2.5\n0.0 3.0\n0.5 2.5\n"
    assert python("-c", program, cwd=with_signum, path=with_signum) == expected


def test_the_readme_runs(tmp_path: Path) -> None:
    for code in blocks("README.md", "python"):
        (tmp_path / "readme.py").write_text(code, encoding="utf-8")
        python("readme.py", cwd=tmp_path)


def test_the_problem_in_the_readme_can_be_raced(tmp_path: Path) -> None:
    (code,) = (code for code in blocks("README.md", "python") if "def make():" in code)
    (tmp_path / "my_problem.py").write_text(code, encoding="utf-8")
    small = ("--rules", "sgd", "--trials", "1", "--seeds", "1", "--steps", "5", "--workers", "1")
    printed = python("-m", "thalweg", "race", "my_problem.py:make", *small, cwd=tmp_path)
    assert "sgd reaches accuracy" in printed


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md")),
    ],
)
def test_links_lead_somewhere(file: str) -> None:
    document = ROOT / file
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
