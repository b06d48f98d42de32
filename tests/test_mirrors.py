"""Curves mirrored by other trackers' own clients, and read back by those; a mirror that fails costs a race nothing."""

import dataclasses
import importlib
import json
import math
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

import thalweg
from thalweg.cli import main
from thalweg.mirrors import Mirror, MirrorError, Mirrors, MirrorWarning, opened
from thalweg.mirrors.mirror import COLUMNS, Sent, label
from thalweg.race import Results
from thalweg.store import Curve, Points, Run, Store

HOSTILE = "../../</script>\n\x1b[31m\u202e'\";drop " + "x" * 10_000


@pytest.fixture(scope="module")
def results() -> Results:
    return thalweg.Race("logistic", ["sgd", "sgd(lr=1e9)"], trials=2, seeds=1, steps=20, workers=1).run()


def parts(run: Run, *cuts: int) -> Iterable[Points]:
    """A run's points as it streams them."""
    n = len(run.curve.step)
    for first, end in zip((0, *cuts), (*cuts, n), strict=True):
        columns = {f.name: getattr(run.curve, f.name)[first:end] for f in dataclasses.fields(Curve)}
        about = (run.key, run.entry, run.phase, run.trial, run.seed, run.settings)
        yield Points(*about, first, Curve(**columns))


def mirror(text: str, results: Results, folder: Path) -> None:
    """The first run streams all its points, the second some and begins again, of others only the end is heard."""
    with opened([text], results.plan, "race", folder) as mirrors:
        one, other, *_ = results.runs
        mirrors.hear(list(parts(one, 2)))
        mirrors.keep(one)
        mirrors.hear(list(parts(other, 2))[:1])
        mirrors.hear(list(parts(other, 1))[:1])
        for run in results.runs[1:]:
            mirrors.keep(run)


def expected(run: Run, name: str) -> list[tuple[int, Any]]:
    column = zip(run.curve.step, getattr(run.curve, name), strict=True)
    return [(step, pytest.approx(x, rel=1e-6)) for step, x in column if math.isfinite(x)]


def test_tensorboard_reads_its_files(results: Results, tmp_path: Path) -> None:
    loading: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mirror(f"tensorboard:{tmp_path / 'tb'}", results, tmp_path)
    for run in results.runs:
        found = loading.EventAccumulator(str(tmp_path / "tb" / label(run)), size_guidance={"scalars": 0})
        found.Reload()
        tags = found.Tags()["scalars"]
        for name in COLUMNS:
            points = [(event.step, event.value) for event in found.Scalars(name)] if name in tags else []
            assert points == expected(run, name)
        if run.phase == "final" and run.status == "finished":
            [tested] = found.Scalars("test_metric")
            assert (tested.step, tested.value) == (run.best_step, pytest.approx(run.test_metric, rel=1e-6))


def test_mlflow_reads_its_store(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    where = (tmp_path / "mlruns").as_uri()
    for _ in range(2):  # the second time there is nothing to write
        mirror(f"mlflow:{where}", results, tmp_path)
    client = mlflow.MlflowClient(where)
    [experiment] = [one for one in client.search_experiments() if one.name == "race"]
    found = {run.data.tags["thalweg.key"]: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {run.key for run in results.runs}
    for run in results.runs:
        there = found[run.key]
        assert there.info.status == ("FINISHED" if run.status == "finished" else "FAILED")
        assert there.data.params["lr"] == str(run.settings["lr"])
        for name in COLUMNS:
            history = client.get_metric_history(there.info.run_id, name)
            assert sorted((point.step, point.value) for point in history) == expected(run, name)


def logged(file: Path) -> list[bytes]:
    """The records of a file of W&B's, which is a log of LevelDB's: blocks of 32 KiB, records in parts."""
    data, at, found, whole = file.read_bytes(), 7, list[bytes](), b""
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(whole)
            whole = b""
    return found


@pytest.fixture
def wandb() -> Generator[Any]:
    """The client, which reads its settings from the environment anew."""
    client: Any = pytest.importorskip("wandb", reason="wandb is not installed")
    client.teardown()
    yield client
    client.teardown()


@pytest.mark.usefixtures("wandb")
def test_wandb_writes_its_files_offline(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    monkeypatch.setenv("WANDB_MODE", "offline")
    mirror("wandb:mine", results, tmp_path)
    files = {file.stem.removeprefix("run-"): file for file in tmp_path.glob("wandb/*/run-*.wandb")}
    assert files.keys() == {run.key for run in results.runs}
    for run in results.runs:
        history: list[dict[str, Any]] = []
        for data in logged(files[run.key]):
            record: Any = records.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        for name in COLUMNS:
            assert [(row["step"], row[name]) for row in history if name in row] == expected(run, name)


@pytest.mark.usefixtures("wandb")
def test_wandb_without_a_key_is_told_before_the_race(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises(MirrorError, match="wandb login"), opened(["wandb"], results.plan, "race", tmp_path):
        pass


class Resumed:
    """A run as W&B's server has it."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary, self.resumed = summary, bool(summary)
        self.steps: list[int] = []
        self.ended: int | None = None

    def define_metric(self, name: str, step_metric: str) -> None: ...

    def log(self, row: dict[str, Any]) -> None:
        self.steps.append(row["step"])

    def finish(self, exit_code: int) -> None:
        self.ended = exit_code


def test_wandb_writes_only_what_its_server_lacks(
    results: Results, wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    new, begun, whole = runs = [run for run in results.runs if run.status == "finished"][:3]
    third = begun.curve.step[2]
    there = {
        new.key: Resumed({}),
        begun.key: Resumed({"step": third}),
        whole.key: Resumed({"step": whole.curve.step[-1], "status": "finished", "best_step": -7}),
    }

    def init(**given: Any) -> Resumed:
        return there[given["id"]]

    monkeypatch.setattr(wandb, "init", init)
    with opened(["wandb"], results.plan, "race", tmp_path) as mirrors:
        mirrors.hear(list(parts(begun, 1)))
        for run in runs:
            mirrors.keep(run)
    assert there[new.key].steps == list(new.curve.step)
    assert there[begun.key].steps == list(begun.curve.step[3:])
    assert there[begun.key].summary["status"] == "finished"
    assert there[whole.key].steps == []
    assert there[whole.key].summary["best_step"] == -7
    assert {run.ended for run in there.values()} == {0}


def test_hostile_names_stay_in_their_folder(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = dataclasses.replace(results.runs[0], entry=HOSTILE, message=HOSTILE)
    folder = tmp_path / "deep" / "tb"
    with opened([f"tensorboard:{folder}"], results.plan, HOSTILE, tmp_path) as mirrors:
        mirrors.keep(run)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 1
    assert files[0].is_relative_to(folder)
    assert all(part.isprintable() for part in files[0].parts)


class Broken:
    """A mirror that fails at the second message, or never returns."""

    def __init__(self, held: threading.Event | None = None) -> None:
        self.heard, self.held = 0, held

    def points(self, some: Points) -> None:
        self.heard += 1
        if self.held:
            self.held.wait()
        if self.heard > 1:
            raise ConnectionError("no route to http://me:secret@server\nat all")

    def ended(self, run: Run) -> None:
        self.points(Points(run.key, run.entry, run.phase, run.trial, run.seed))

    def close(self) -> None:
        raise AssertionError("it has failed before")


def test_a_mirror_that_fails_is_told_once_and_the_race_goes_on(tmp_path: Path) -> None:
    broken = Broken()
    mirrors = Mirrors([("mine", broken)])
    race = thalweg.Race("logistic", ["sgd"], trials=3, seeds=1, steps=20, workers=1, store=tmp_path / "race.db")

    def run() -> Results:
        found = race.run(mirrors=mirrors)
        mirrors.close()
        return found

    why = r"the mirror mine has failed \(no route to http://me:\*\*\*@server at all\)"
    with pytest.warns(MirrorWarning, match=why) as warned:
        found = run()
    assert len(warned) == 1
    assert broken.heard == 2
    assert found.complete


def test_a_mirror_that_fails_stops_nothing_where_warnings_are_errors(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def show(message: Warning | str, *where: Any) -> None:
        shown.append(str(message))

    monkeypatch.setattr(warnings, "showwarning", show)
    mirrors = Mirrors([("mine", Broken())])
    for run in results.runs:
        mirrors.keep(run)
    assert list(mirrors.close()) == shown
    assert len(shown) == 1


class Warns:
    """A mirror whose client warns of something."""

    def points(self, some: Points) -> None: ...

    def ended(self, run: Run) -> None:
        warnings.warn("this client is old", DeprecationWarning, stacklevel=1)

    def close(self) -> None: ...


@pytest.mark.parametrize(("made", "code"), [(Warns, 0), (Broken, 2)])
def test_export_tells_a_warning_from_a_failure(
    made: type[Mirror],
    code: int,
    results: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Store.open(tmp_path / "race.db", results.plan) as store:
        for run in results.runs:
            store.add(run)

    def open_(*given: Any) -> Mirror:
        return made()

    monkeypatch.setattr("thalweg.mirrors.mirror._open", open_)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always" if code == 0 else "ignore")
        with pytest.raises(SystemExit) as end:
            main(["export", str(tmp_path), "--mirror", "mlflow:http://me:secret@server"])
    assert end.value.code == code
    said = capsys.readouterr()
    assert ("mlflow:http://me:***@server: " in said.out) == (code == 0)
    assert ("the mirror mlflow has failed" in said.err) == (code == 2)
    assert "secret" not in said.out + said.err


def test_nobody_waits_for_a_mirror_that_hangs(results: Results) -> None:
    held = threading.Event()
    mirrors = Mirrors([("mine", Broken(held))])
    for run in results.runs:
        mirrors.keep(run)
    with pytest.warns(MirrorWarning, match="too slow"):
        assert mirrors.close(0.05)
    held.set()


HANGING = """
import atexit, sys, time
from thalweg import __main__
from thalweg.mirrors import mirror

class Hanging:
    def points(self, some): pass
    def ended(self, run): pass
    def close(self): time.sleep(600)

atexit.register(time.sleep, 600)  # as clients wait for their servers
mirror._open = lambda *given: Hanging()
mirror.Mirrors.close.__defaults__ = (0.1,)
__main__._PATIENCE = 0.1
sys.argv[1:] = ["race", "logistic", "--rules", sys.argv[1], "--trials", "1", "--seeds", "1", "--steps", "5",
                "--workers", "1", "--mirror", "wandb"]
__main__.main()
"""


@pytest.mark.parametrize(("rules", "code"), [("sgd", 0), ("sgd(lr=1e9)", 2)])
def test_the_command_ends_while_a_mirror_hangs(rules: str, code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING, rules], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    assert "wandb is too slow" in " ".join((done.stdout + done.stderr).split())
    assert (tmp_path / "races/logistic/report.html").is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere", "there is no mirror 'nowhere'"),
        ("wandb", "pip install 'thalweg[wandb]'"),
        ("tensorboard:a/b", "a/b"),
        ("tensorboard:a/http://me:secret@b", "http://me:***@b"),
    ],
)
def test_a_mirror_that_cannot_be_opened_is_one_sentence(
    text: str, said: str, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text == "wandb":
        monkeypatch.setitem(sys.modules, "wandb", None)
        there: dict[str, None] = {}
        monkeypatch.setattr("importlib.util.find_spec", there.get)
    if text.startswith("tensorboard"):
        pytest.importorskip("tensorboard")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a").write_text("a file in the way")
    with pytest.raises(MirrorError) as error, opened([text], results.plan, "race", tmp_path):
        pass
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_points_are_told_once() -> None:
    sent = Sent()
    curve = Curve((0, 1, 2), (0, 1, 2), (0.0, 0.1, 0.2), (math.nan, 1.0, 1.0), (1.0,) * 3, (0.5,) * 3)
    first = Curve(*(column[:2] for column in vars(curve).values()))
    rest = Curve(*(column[2:] for column in vars(curve).values()))
    assert [step for step, _, _ in sent.new("a", 0, first)] == [0, 1]
    assert [step for step, _, _ in sent.new("a", 2, rest)] == [2]
    assert sent.new("a", 0, curve) == []
    assert sent.new("b", 2, rest) == []  # what is before it comes at the end
    assert sent.new("b", 0, curve)[0][2].keys() == {"validation_metric", "validation_loss"}


def test_race_and_export_have_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    race = ["race", "logistic", "--rules", "sgd", "--trials", "1", "--seeds", "1", "--steps", "10", "--workers", "1"]
    with pytest.raises(SystemExit) as end:
        main([*race, "--out", str(tmp_path / "race"), "--mirror", "tensorboard"])
    assert end.value.code == 0
    own = sorted(str(file.parent.relative_to(tmp_path)) for file in tmp_path.rglob("events.*"))
    assert len(own) == 2
    with pytest.raises(SystemExit) as end:
        main(["export", str(tmp_path / "race"), "--mirror", f"tensorboard:{tmp_path / 'race' / 'again'}"])
    assert end.value.code == 0
    assert len([*tmp_path.rglob("again/**/events.*")]) == len(own)
    assert "2 runs" in capsys.readouterr().out


def test_a_mirror_is_what_the_protocol_says() -> None:
    mirror: Mirror = Broken()
    assert mirror
