"""Every package imports only what docs/architecture.md allows, and importing thalweg stays cheap."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "thalweg"
EVERYTHING = "everything"


class Row(NamedTuple):
    """What the table allows a package to import."""

    packages: frozenset[str]
    distributions: frozenset[str]


def table() -> dict[str, Row]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows: dict[str, Row] = {}
    for package, _, packages, others in re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|(.*)\|$", text, re.MULTILINE):
        names = {EVERYTHING} if packages.strip() == EVERYTHING else set(re.findall(r"`(\w+)`", packages))
        rows[package] = Row(frozenset(names), frozenset(re.findall(r"`(\w+)`", others)))
    return rows


def owner(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def parents_of(file: Path) -> list[str]:
    return ["thalweg", *file.relative_to(SOURCE).parts[:-1]]


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere, with its line; ``from thalweg import x`` counts as thalweg.x."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents_of(file)[: -node.level + 1 or None] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "thalweg":
                yield from ((node.lineno, f"thalweg.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def imported_names(file: Path) -> Iterator[tuple[int, str]]:
    """The names that a file imports from modules, each as ``module.name``: some are modules themselves."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def wrong_imports(file: Path, row: Row) -> list[str]:
    wrong: list[str] = []
    for line, module in imports(file):
        top, _, rest = module.partition(".")
        inside = rest.partition(".")[0]
        if top == "thalweg":
            # `import thalweg` reaches every package, so it needs the row that may import everything.
            allowed = (
                inside == owner(file) or EVERYTHING in row.packages or inside in row.packages or inside == "__version__"
            )
        else:
            allowed = top in sys.stdlib_module_names or top in row.distributions
        if not allowed:
            wrong.append(f"{file.relative_to(ROOT)}:{line} imports {module}")
    return wrong


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_imports_what_its_row_allows(file: Path) -> None:
    rows = table()
    assert owner(file) in rows, f"{owner(file)} has no row in docs/architecture.md"
    assert not wrong_imports(file, rows[owner(file)])


def test_the_table_has_a_row_for_every_package_and_only_for_packages() -> None:
    assert set(table()) == {owner(file) for file in FILES}


def test_the_table_goes_one_way() -> None:
    graph = {package: row.packages - {EVERYTHING} for package, row in table().items()}
    assert set(TopologicalSorter(graph).static_order()) == set(table())


def test_no_modules_import_each_other() -> None:
    known = {".".join(["thalweg", *file.relative_to(SOURCE).with_suffix("").parts]): file for file in FILES}
    graph: dict[str, set[str]] = {}
    for module, file in known.items():
        names = {name for _, name in imports(file)} | {name for _, name in imported_names(file)}
        graph[module] = (names & known.keys()) - {module}
    assert set(TopologicalSorter(graph).static_order()) == set(known)  # a circle raises CycleError, with its modules


def test_the_table_allows_nothing_that_is_not_used() -> None:
    used: dict[str, set[str]] = {}
    for file in FILES:
        for _, module in imports(file):
            top, _, rest = module.partition(".")
            used.setdefault(owner(file), set()).add(rest.partition(".")[0] if top == "thalweg" else top)
    unused = {
        package: sorted((row.packages | row.distributions) - {EVERYTHING} - used.get(package, set()))
        for package, row in table().items()
    }
    assert {package: names for package, names in unused.items() if names} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_statement_follows_one_that_leaves_its_block(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for block in ("body", "orelse", "finalbody"):
            statements: list[ast.stmt] = getattr(node, block) if isinstance(getattr(node, block, None), list) else []
            for statement in statements[:-1]:
                assert not isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break), statement.lineno


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("import scipy.stats", True),
        ("def f():\n    from thalweg.rules import Adam", True),
        ("from thalweg import rules", True),
        ("import thalweg", True),
        ("from ..rules import Adam", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numba", True),
        ("import math, torch\nfrom thalweg.maths import sqrt\nfrom . import b\nfrom .b import c", False),
    ],
)
def test_a_wrong_import_is_caught(text: str, caught: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    file = tmp_path / "package" / "a.py"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    assert bool(wrong_imports(file, Row(frozenset({"maths"}), frozenset({"torch"})))) is caught


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import thalweg", {"torch", "numba", "numpy", "plotly", "scipy", "sklearn", "sqlalchemy", "rich", "typer"}),
        ("import thalweg; thalweg.Optimizer; thalweg.rules.Adam; thalweg.curvature.Newton",
         {"plotly", "scipy", "sklearn", "sqlalchemy", "rich", "typer"}),
        ("import thalweg.cli", {"torch", "numba", "plotly", "scipy", "sklearn", "sqlalchemy"}),
    ],
)  # fmt: skip
def test_importing_stays_light(code: str, unwanted: set[str]) -> None:
    program = f"{code}\nimport sys\nprint(*set({sorted(unwanted)!r}) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_dependency_says_why_it_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    asked = {
        "core": project["project"]["dependencies"],
        **{extra: [d for d in given if not d.startswith("thalweg")] for extra, given in extras.items()},
        "build": project["build-system"]["requires"],
    }
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    said = re.findall(r"^\| ([\w-]+) \| `\w+` \| (\w+) \| \w.*\|$", text, re.MULTILINE)
    assert sorted(said) == sorted((re.split(r"[\[<>=]", d)[0], where) for where, ds in asked.items() for d in ds)
