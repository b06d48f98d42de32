"""Animations draw the computed paths, in the colours of the lectures, in one file."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import NAMED
from pages import Page, browsed
from thalweg import problems, rules
from thalweg.report import palette, surfaces
from thalweg.rule import Rule

LECTURES = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
HOSTILE = "</script><script>alert(1)</script>"


def draw(name: str, folder: Path, texts: tuple[str | Rule, ...] = LECTURES, **settings: Any) -> Page:
    path = surfaces.write(problems.surfaces[name], texts, folder / "deep" / f"{name}.html", **settings)
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", problems.surfaces)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_animation_has_the_computed_paths(name: str, noise: float, tmp_path: Path) -> None:
    surface = problems.surfaces[name]
    texts = ("sgd(lr=5e-4)", "nesterov(lr=1e-4)", "adam(lr=0.05)")
    data = draw(name, tmp_path, texts, steps=30, noise=noise, seed=3).data
    assert data["steps"] == 30
    assert [w["name"] for w in data["walks"]] == ["sgd", "nesterov", "adam"]
    for text, walk in zip(texts, data["walks"], strict=True):
        expected = problems.path(surface, rules.parse(text), steps=30, noise=noise, seed=3)
        np.testing.assert_allclose(np.column_stack([walk["x"], walk["y"]]), expected, atol=1e-4)
        heights = surface.heights(expected[:, 0], expected[:, 1])
        np.testing.assert_allclose(np.array(walk["loss"], float), heights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", problems.surfaces)
def test_a_page_is_one_file_with_a_trail_for_every_rule(name: str, tmp_path: Path) -> None:
    page = draw(name, tmp_path, steps=40)
    assert page.loads == ["data:,"]
    assert page.styles
    assert not re.search(r"@import|url\(|https?:", page.styles)
    for figure in ("map", "relief"):
        trails = [t for t in page.data[figure]["data"] if t.get("mode") == "lines"]
        assert len(trails) == len(LECTURES)
    for text in LECTURES:
        assert text in page.words


def test_the_lectures_colours(tmp_path: Path) -> None:
    walks = draw("ravine", tmp_path, steps=5).data["walks"]
    assert [w["colour"] for w in walks] == [palette.LECTURES[text] for text in LECTURES]
    assert [w["colour"] for w in walks] == [f"var(--{c})" for c in ("cyan", "magenta", "chalk", "green", "blue")]
    assert len({w["mark"] for w in walks}) == len(walks)  # they can be told apart without colours, too


def test_entries_of_one_rule_have_different_colours(tmp_path: Path) -> None:
    walks = draw("bowl", tmp_path, ("sgd(lr=0.1)", "sgd(lr=0.2)", "sgd(lr=0.3)"), steps=5).data["walks"]
    assert len({w["colour"] for w in walks}) == 3
    assert palette.colours(["sgd(batch_size=8)", "sgd", "Adam(lr=0.1)"])[1:] == ["var(--cyan)", "var(--blue)"]


def test_lines_of_one_colour_are_dashed_differently() -> None:
    colours = palette.colours(NAMED)
    assert len(set(colours)) < len(colours)
    lines = list(zip(colours, palette.dashes(colours), strict=True))
    assert len(set(lines)) == len(lines)


def test_the_caption_says_what_is_seen_at_the_saddle(tmp_path: Path) -> None:
    said = " ".join(draw("saddle", tmp_path, steps=200).words.split())
    assert "sgd is still at a saddle point near (0, 0) after 200 steps" in said
    for text in ("momentum", "adagrad", "rmsprop", "adam"):
        assert f"{text} reached loss" in said


def test_a_diverging_path_is_drawn_as_far_as_it_is_finite(tmp_path: Path) -> None:
    (walk,) = draw("rosenbrock", tmp_path, ("sgd(lr=1)",), steps=50).data["walks"]
    assert 2 <= len(walk["x"]) < 51
    assert all(np.isfinite(walk["x"]))


def test_names_are_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("thalweg.report.walks.spelled", lambda _: HOSTILE)  # pyright: ignore
    path = surfaces.write(problems.surfaces["bowl"], [rules.SGD(lr=0.1)], tmp_path / "bowl.html", steps=3)
    text = path.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;/script&gt;" in text


def test_the_caption_names_who_zigzags_and_who_is_first(tmp_path: Path) -> None:
    said = draw("ravine", tmp_path).words
    assert said.index("momentum reached loss") < min(said.index(f"{text} reached loss") for text in ("adagrad", "sgd"))
    assert "momentum zigzags" in said
    near_the_limit = ("sgd(lr=0.97)", "momentum")
    assert "sgd zigzags" in draw("ravine", tmp_path, near_the_limit).words
    assert "zigzags" not in draw("ravine", tmp_path, near_the_limit, noise=0.1).words


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_it_without_complaint(dark: bool, tmp_path: Path) -> None:
    path = surfaces.write(problems.surfaces["saddle"], LECTURES, tmp_path / "saddle.html", steps=40)
    shown, complaints = browsed(path, dark)
    assert not complaints
    assert shown.count("js-plotly-plot") >= 3  # the relief, the map, the losses
    assert re.search(r'id="step"[^>]* max="40"', shown)  # a frame for every step
    assert re.search(r">step \d+ of 40<", shown)
