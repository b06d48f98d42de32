"""Results in notebooks, as a kernel of Jupyter shows them, and as a table of pandas."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thalweg import Problem, Race
from thalweg.race import Results

CELLS = (
    """
import torch, thalweg
from torch import nn

x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

def train(run):  # defined here, in no file
    model = nn.Linear(3, 1)
    optimizer = run.optimizer(model)
    for step in run.steps(10):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
        print("never seen")
        run.report(error=loss.item(), norm=float(model.weight.norm()))
""",
    'results = thalweg.Race(train, ["sgd", "adam(lr=0.1)"], trials=2, seeds=2, workers=1).run()',
    "results",
    'results.report("report.html")',
    "results.frame()",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Mapping[str, Any]]]:
    """What each cell shows, after a real kernel has executed the notebook."""
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    folder: Path = tmp_path_factory.mktemp("notebook")
    made: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client.NotebookClient(made, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert (folder / "report.html").is_file()
    return [cell.outputs for cell in made.cells]


def html(outputs: list[Mapping[str, Any]]) -> str:
    return "".join(output["data"].get("text/html", "") for output in outputs if "data" in output)


pytestmark = pytest.mark.filterwarnings("default:::(nbclient|jupyter_client|zmq|asyncio|traitlets)")


def test_a_race_shows_its_progress_below_the_cell_in_one_place(outputs: list[Any]):
    [shown] = outputs[1]
    assert shown["output_type"] == "display_data"
    found = html([shown])
    total = found.partition('max="')[2].partition('"')[0]
    assert f'<progress value="{total}" max="{total}"></progress>' in found
    assert "best error so far" in found
    assert not any(output["output_type"] == "stream" for output in outputs[1])


def test_results_show_as_a_table_with_the_verdict(outputs: list[Any]):
    found = html(outputs[2])
    assert found.startswith("<pre")
    for text in ("test error", "norm", "sgd", "adam(lr=0.1)"):
        assert text in found
    assert "test error" in outputs[2][0]["data"]["text/plain"]


def test_a_report_shows_the_page(outputs: list[Any]):
    found = html(outputs[3])
    assert found.startswith("<iframe srcdoc=")
    assert "Leaderboard" in found
    assert "report.html" in outputs[3][0]["data"]["text/plain"]


def test_a_frame_shows_as_a_table(outputs: list[Any]):
    found = html(outputs[4])
    assert "<table" in found
    assert "validation_norm" in found


def absolute(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs().mean()


def line() -> Problem:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    pair = x, x.sum(1, keepdim=True)
    loss = nn.functional.mse_loss
    both = {"error": loss, "mean": absolute}
    return Problem("line", lambda: nn.Linear(3, 1), loss, pair, pair, pair, both, higher_is_better=False, batch_size=8)


def test_a_frame_has_a_row_for_every_run_or_for_every_point():
    pytest.importorskip("pandas", reason="pandas is not installed")
    results: Results = Race(line(), ["sgd", "momentum(lr=1e9)"], trials=2, seeds=2, steps=10, workers=1).run()
    frame: Any = results.frame()
    curves: Any = results.frame(curves=True)
    about = ["entry", "phase", "trial", "seed", "status"]
    assert [*frame.columns[:5]] == [*curves.columns[:5]] == about
    assert {*frame.columns[5:]} == {
        "lr", "momentum", "dampening", "best_step", "validation_metric", "validation_loss", "test_metric", "test_loss",
        "seconds", "message", "key", "validation_mean", "test_mean",
    }  # fmt: skip
    assert [*frame["key"]] == [run.key for run in results.runs]
    np.testing.assert_array_equal(frame["test_metric"], [run.test_metric for run in results.runs])
    lost = frame[frame["entry"] == "momentum(lr=1e9)"]
    assert {*lost["status"]} == {"diverged"}
    assert lost["validation_metric"].isna().all()
    finals = frame[frame["phase"] == "final"].set_index("key")["test_mean"]
    kept = [finals[run.key] for run in results.replicates("sgd")]
    assert results.verdict.rows[0].others["mean"] == np.median(kept) > 0
    assert len(curves) == sum(len(run.curve.step) for run in results.runs)
    first = curves[(curves["phase"] == "tune") & (curves["trial"] == 0) & (curves["entry"] == "sgd")]
    run = results.of("sgd", "tune")[0]
    for name in ("step", "examples", "validation_loss", "validation_metric"):
        assert tuple(first[name]) == getattr(run.curve, name)
    assert tuple(first["validation_mean"]) == run.others["mean"]
