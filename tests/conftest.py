"""Fixtures of several files, the cache of kernels, and the selection of tests that ``THALWEG_BACKEND`` affects.

Kernels compiled by tests are cached in ``.pytest_cache`` rather than in the user's cache folder.

`.ci/run` runs the tests twice, the second time with the eager backend.  Most tests are not affected by that: they need
no optimizer, or name their backend.  Every run records in pytest's cache which tests asked for the default backend;
with ``--reaches-backend`` only those and tests without a record are run, and none of the modules `_ELSEWHERE`.
"""

import os
import signal
import sys
import threading
from collections.abc import Generator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import settings
from sqlalchemy import URL

import postgres
from clocks import Clock
from fuzz.children import Server
from thalweg import kernels

if not torch.cuda.is_available():  # printed CUDA kernels run in Triton's interpreter; it asks when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell starts what runs in its background with Ctrl-C ignored, and so would be every command that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("thalweg", settings.default, deadline=None)  # no test fails because the machine is busy
settings.load_profile("thalweg")

_NOTES = "thalweg/reaches-backend"
_STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn"}
"""Audit events of starting a process, which may ask for the default backend unnoticed."""

_ELSEWHERE = {
    "test_bad_places", "test_build", "test_cli_hostile", "test_container", "test_examples", "test_house",
    "test_imports", "test_mirrors", "test_notebook", "test_playground", "test_problems_broken", "test_processes",
    "test_race_edits", "test_race_kills", "test_race_processes", "test_ray", "test_report", "test_soak", "test_store",
    "test_store_hostile", "test_store_shared", "test_training_kills", "test_training_misbehaved",
    "test_training_strangers", "test_watch",
}  # fmt: skip
"""Modules about processes, files, stores and pages.  They start what steps, but whichever backend it is, they test the
same; what it computes is tested in the others."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden trajectories and real data, next to the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("there is no ../shared beside the repository: golden trajectories and real data are not there")
    return folder


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    """Runs programs of `fuzz` in child processes."""
    with Server() as made:
        yield made


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Generator[URL]:
    """The URL of a PostgreSQL server on loopback, where there is one; `postgres.fresh` makes a store there."""
    with postgres.server(tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store for many races: a file, and again on the server."""
    if request.param == "postgresql":
        return postgres.fresh(request.getfixturevalue("postgresql"))
    return f"sqlite:///{tmp_path / 'lab.db'}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The stopwatch of all runs in this process."""
    found = Clock()
    for module in ("steering", "training"):
        monkeypatch.setattr(f"thalweg.race.{module}.stopwatch", found)
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reaches-backend", action="store_true", help="only tests that THALWEG_BACKEND may affect")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # xdist's workers inherit it
        os.environ["THALWEG_CACHE_DIR"] = str(config.cache.mkdir("kernels"))
    config.pluginmanager.register(_Reach(config), "thalweg-reach")


class _Reach:
    """Records which tests ask for the default backend, also in their fixtures; deselects the others on request."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.asked = False
        self.fixtures: set[int] = set()
        self.notes: dict[str, bool] = cast(Any, config.cache.get(_NOTES, {}))
        backend, start = kernels.backend, BaseProcess.start

        def watched(name: str) -> kernels.Backend:
            self.asked = self.asked or name == "auto"
            return backend(name)

        def started(process: BaseProcess) -> None:
            self.asked = True
            start(process)

        def heard(event: str, _: object) -> None:
            self.asked = self.asked or event in _STARTS

        kernels.backend = watched
        cast(Any, BaseProcess).start = started
        sys.addaudithook(heard)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if config.getoption("--reaches-backend"):
            chosen = [item for item in items if self.notes.get(item.nodeid, True) and item.path.stem not in _ELSEWHERE]
            config.hook.pytest_deselected(items=[*set(items).difference(chosen)])
            items[:] = chosen

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        before, self.asked = self.asked, False
        try:
            return (yield)
        finally:
            if self.asked:
                self.fixtures.add(id(fixturedef))
            self.asked = self.asked or before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.asked = False
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        # A module's fixture is set up by the first test that uses it, but affects all of them.
        used = {id(f) for fs in cast(Any, item)._fixtureinfo.name2fixturedefs.values() for f in fs}
        report.reaches_backend = self.asked or bool(used & self.fixtures)
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "setup":  # after the call, or the teardown of a test that was not called
            self.notes[report.nodeid] = report.reaches_backend

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not hasattr(session.config, "workerinput"):  # with xdist the reports of all workers come to this process
            self.config.cache.set(_NOTES, self.notes)
