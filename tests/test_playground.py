"""The playground in headless Chromium: its numbers against Python's, and its controls operated as by a person."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from thalweg import maths, playground, rules
from thalweg.curvature import Newton
from thalweg.maths import Number, Value
from thalweg.playground import catalogue
from thalweg.playground.tour import STOPS
from thalweg.problems import Surface, surfaces
from thalweg.rule import Rate, Rule
from thalweg.schedules import parse
from thalweg.trace import evaluate, graph

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

HOSTILE = '</script><img src=x onerror="document.title=1">\u2028\'"`${x}{{x}}'
STEPS = 500
# WebGL by SwiftShader, everything else by the processor itself: SwiftShader is slow at painting pages.
FLAGS = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-rasterization",
    "--disable-gpu-compositing", "--disable-accelerated-2d-canvas",
]  # fmt: skip
SETTLED = 120_000  # milliseconds that a busy machine may take


def bent(x: Value, y: Value) -> Value:
    """A surface of the user's own, with a quotient, a power and a choice."""
    return maths.where(x > y, x * x / (1 + y * y), 2.0**x * maths.abs(y) ** 1.5) + 0.1 * maths.tanh(x) * y


class Halved(Rule):
    """Half of gradient descent, in a norm.  A rule of the user's own."""

    lr: Rate = 0.1

    def update(h, p: Value, g: Value, s: object, t: Number):
        return p - 0.5 * h.lr * g / (1 + maths.norm(g)), s


class Opened(NamedTuple):
    """A page in Chromium, and what it has complained about."""

    page: Any
    errors: list[str]

    def run(self, script: str, argument: Any = None) -> Any:
        """What a function of JavaScript returns in the page."""
        return self.page.evaluate(script, argument)

    def drawn(self) -> None:
        """Wait until what has changed is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def until(self, condition: str) -> None:
        """Wait until an expression is true; Playwright's own waiting is forbidden by the page's policy."""
        end = time.monotonic() + SETTLED / 1000
        while not self.page.evaluate(f"() => Boolean({condition})"):
            assert time.monotonic() < end, f"it never was: {condition}"
            self.drawn()

    def text(self, what: str | Any) -> str:
        """The text of an element, once what has changed is drawn."""
        self.drawn()
        return (self.page.locator(what) if isinstance(what, str) else what).text_content()

    def world(self, what: str) -> Any:
        return self.page.evaluate(f"(() => {{ const world = thalweg.page.world; return {what}; }})()")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, with a surface and a rule of the user's own whose names are hostile."""
    mine = Surface(HOSTILE, bent, (), ((-2.0, 2.0), (-2.0, 2.0)), (-1.0, 1.5), 0.1)
    path = tmp_path_factory.mktemp("play") / "play.html"
    return playground.write(
        path, mine, ["sgd", "momentum", "adam"], offer={HOSTILE: Halved()}, title=HOSTILE, schedules=["cosine(40)"]
    )


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=chromium,
            args=FLAGS,
        )
        yield made
        made.close()


@pytest.fixture(scope="module")
def shared_page(browser: Any, file: Path) -> Opened:
    return opened(browser, file, hash_of(CALM))


CALM = {
    "s": "ravine", "r": [{"r": "sgd", "h": {"lr": 0.5}}, {"r": "momentum", "h": {"lr": 0.5}}], "p": 0, "v": "contour",
}  # fmt: skip
"""Two rules at rest, without the view in 3-D, which takes long to draw without a graphics card."""


def hash_of(state: dict[str, Any]) -> str:
    return f"#{quote(json.dumps(state))}"


@pytest.fixture
def play(shared_page: Opened) -> Opened:
    at(shared_page, CALM)
    shared_page.errors.clear()
    return shared_page


def opened(browser: Any, file: Path, hash: str = "", **settings: Any) -> Opened:
    page = browser.new_page(reduced_motion="reduce", **settings)
    page.set_default_timeout(SETTLED)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(file.as_uri() + hash, wait_until="domcontentloaded")
    page.wait_for_selector("html[data-ready=yes]")
    return Opened(page, errors)


def at(play: Opened, state: dict[str, Any]) -> str:
    return play.run("(state) => thalweg.restored(thalweg.page.world, state, thalweg.page.relief)", state)


# Numbers


def reference(
    rule: Rule,
    surface: Surface,
    start: tuple[float, float],
    steps: int,
    rate: Callable[[int], float] | None = None,
    noise: Callable[[int], NDArray[np.float64]] | None = None,
    rounded: Callable[[Any], Any] = lambda x: x,
) -> NDArray[np.float64]:
    """The path of a rule in float64 by its formula on tensors, with the surface's exact gradient.

    `rate` gives the learning rate after t steps, `noise` what is added to the gradient of step t.  `rounded` changes
    the last places of the point where a gradient is taken, and of the gradient.
    """
    slope = graph({name: surface.derivatives.outputs[name] for name in ("gx", "gy")})
    p = torch.tensor(start, dtype=torch.float64)
    state = rule.init(p)
    points = [start]
    for t in range(1, steps + 1):
        now = rule if rate is None else rule.bind({"lr": rate(t - 1)})
        ahead = now.lookahead(state)
        x, y = rounded((p if ahead is None else p + ahead).numpy()).tolist()
        found = evaluate(slope, {"x": x, "y": y})
        g = rounded(np.array([found["gx"], found["gy"]], dtype=np.float64)) + (noise(t) if noise else 0.0)
        p, state = now.update(p, torch.from_numpy(g), state, t)
        point = tuple(p.tolist())
        if not np.isfinite(point).all():
            break
        points.append(point)
    return np.array(points)


WALK = """([name, key, surface, steps]) => {
  const known = thalweg.meant(name);
  const options = key.split(",");
  const names = Object.keys(known.options);
  const form = thalweg.formOf(name, Object.fromEntries(names.map((option, k) => [option, +options[k]])));
  const land = thalweg.printedSurface(surface);
  const settings = { ...known.settings };
  settings.lr = thalweg.suggestedRate(name, form, settings, land);
  const numbers = form.numbers.map((setting) => settings[setting]);
  const path = thalweg.walked(form, numbers, land, land.start, steps);
  return [Object.fromEntries(form.numbers.map((setting, k) => [setting, numbers[k]])), path];
}"""

FAMILIES: dict[str, Rule] = {
    cls.__name__.lower(): cls.example() for cls in rules.all().values() if cls.__module__.startswith("thalweg.")
}
MATRICES = ("muon", "shampoo")


def rounded_otherwise(seed: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Numbers each of which is off by one unit in the last place, up or down, or not at all."""
    generator = np.random.default_rng(seed)
    return lambda x: x * (1 + generator.choice([-1.0, 0.0, 1.0], 2) * 2.0**-52)


def difference(path: Any, expected: NDArray[np.float64], surface: Surface) -> NDArray[np.float64]:
    """How far two walks have been apart until each step, relative to the point or, near the origin, to the window."""
    size = np.maximum(np.abs(expected).max(axis=1), np.ptp(surface.window[0]))
    count = min(len(path), len(expected))
    apart = np.full(len(expected), np.inf)
    apart[:count] = np.abs(np.asarray(path)[:count] - expected[:count]).max(axis=1) / size[:count]
    return np.maximum.accumulate(apart)


AGREE = 1e-9
ROUNDINGS = 2
"""How many walks of the reference itself are taken where the page parts from it."""
FACTOR = 30.0
"""How much further apart than these the page may be: they are few, and every operation may round otherwise."""


def test_rules_that_need_a_matrix_are_left_out_with_the_reason(play: Opened) -> None:
    said = play.text("#left-out")
    assert "muon: Muon steps matrices, and a parameter of shape (2,) is none" in said
    assert re.search("shampoo: it computes with .*, which needs a matrix", said)
    there = play.page.locator("#add option").all_text_contents()
    assert {name for name in FAMILIES if name not in there} == set(MATRICES)
    known = {name: cls for name, (cls, _) in rules.names().items() if cls.__module__.startswith("thalweg.")}
    ours = {name for name, cls in known.items() if cls.__name__.lower() not in MATRICES}
    assert ours <= set(there)
    assert {"nesterov", "newton", "line_search", HOSTILE} <= set(there)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in MATRICES])
def test_500_steps_of_every_rule_form_and_surface_are_pythons(name: str, play: Opened) -> None:
    """Every rule on every surface, and every form of it on one of them in turn, to 1e-9.

    Two libraries round cosines, cube roots and powers differently in the last place, and some walks are chaotic: they
    enlarge that until it is as large as the walk.  Where the page parts from the reference, the reference must part
    from itself as far, and as soon, when its points and gradients are rounded otherwise.
    """
    forms = catalogue.forms(FAMILIES[name])
    names = list(surfaces)
    default, *others = forms
    cases = [(default, surface) for surface in names]
    cases += [(key, names[k % len(names)]) for k, key in enumerate(others)]
    for key, surface in cases:
        settings, path = play.run(WALK, [name, key, surface, STEPS])
        about = forms[key].rule.bind(settings), surfaces[surface], surfaces[surface].start, STEPS
        expected = reference(*about)
        apart = difference(path, expected, surfaces[surface])
        if apart[-1] <= AGREE and len(path) == len(expected):
            continue
        own = np.max([
            difference(reference(*about, rounded=rounded_otherwise(k)), expected, surfaces[surface])
            for k in range(ROUNDINGS)
        ], axis=0)  # fmt: skip
        # Compared with a little later, since the roundings of one walk may begin to matter some steps before another's.
        later = np.concatenate([own[5:], np.repeat(own[-1], 5)])
        np.testing.assert_array_less(apart, np.maximum(AGREE, FACTOR * later), err_msg=f"{key} {surface}")
    assert not play.errors


def test_a_surface_and_a_rule_of_ones_own_run_unchanged(play: Opened) -> None:
    settings, path = play.run(WALK, [HOSTILE, "", HOSTILE, STEPS])
    mine = Surface("mine", bent, (), ((-2.0, 2.0), (-2.0, 2.0)), (-1.0, 1.5), 0.1)
    expected = reference(Halved(lr=settings["lr"]), mine, (-1.0, 1.5), STEPS)
    np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text", ["warmup(0.1).then(cosine(0.9))", "cosine(40)", "step(0.2, factor=0.5)"])
def test_a_schedule_is_pythons(text: str, play: Opened) -> None:
    at(play, {"s": "beale", "r": [{"r": "nesterov", "h": {"lr": 0.001}, "c": {"lr": text}}], "p": STEPS})
    schedule = parse(text).resolve(STEPS)
    rule = rules.parse("nesterov(lr=0.001)")
    expected = reference(rule, surfaces["beale"], (1.0, 1.5), STEPS, lambda t: schedule.value(0.001, t))
    np.testing.assert_allclose(play.world("world.runner.xs"), expected[:, 0], rtol=1e-9)


def test_newton_is_that_of_curvature_and_says_where_it_cannot_step(play: Opened) -> None:
    for surface, start, damping in (("rosenbrock", (-1.2, 1.0), 0.0), ("himmelblau", (4.0, 4.0), 3.0)):
        at(play, {"s": surface, "r": [{"r": "newton", "h": {"lr": 0.9, "damping": damping}, "b": start}], "p": 30})
        p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
        newton = Newton([p], lr=0.9, damping=damping)

        def loss(surface: str = surface, p: torch.Tensor = p) -> torch.Tensor:
            return surfaces[surface].f(p[0], p[1])

        for _ in range(30):
            newton.step(loss)
        np.testing.assert_allclose(play.world("world.runner.point"), p.detach(), rtol=1e-9)
    at(play, {"s": "saddle", "r": [{"r": "newton"}], "p": 3})
    play.page.locator(".status.bad", has_text="stopped at step 1: the curvature here is negative").wait_for()


def test_the_line_search_is_armijos(play: Opened) -> None:
    at(play, {"s": "rosenbrock", "r": [{"r": "line_search", "h": {"lr": 1, "share": 1e-4}}], "p": 200})
    surface = surfaces["rosenbrock"]
    p = (-1.2, 1.0)
    for _ in range(200):
        g, rate = surface.gradient(*p), 1.0
        square = g[0] * g[0] + g[1] * g[1]
        while surface.f(p[0] - rate * g[0], p[1] - rate * g[1]) > surface.f(*p) - 1e-4 * rate * square:
            rate /= 2
        p = (p[0] - rate * g[0], p[1] - rate * g[1])
    np.testing.assert_allclose(play.world("world.runner.point"), p, rtol=1e-9)


def test_a_switch_begins_the_second_rule_anew(play: Opened) -> None:
    state = {"r": "adam", "h": {"lr": 0.1}, "t": {"at": 20, "r": "momentum", "lr": 0.01}}
    at(play, {"s": "beale", "r": [state], "p": 60})
    first = reference(rules.parse("adam(lr=0.1)"), surfaces["beale"], (1.0, 1.5), 20)
    then = reference(rules.parse("momentum(lr=0.01)"), surfaces["beale"], tuple(first[-1]), 40)
    np.testing.assert_allclose(play.world("world.runner.ys"), [*first[:, 1], *then[1:, 1]], rtol=1e-9)


TYPED: dict[str, Callable[[Any, Any], Any]] = {
    "x**2 + 10*sin(y)": lambda x, y: x**2 + 10 * maths.sin(y),
    "-x^2*y/3 - -2**-y": lambda x, y: -(x**2) * y / 3 - -(2 ** (-y)),
    "exp(-(x*x + y*y)/2)*max(x, abs(y)) + 1e-3*x": lambda x, y: (
        maths.exp(-(x * x + y * y) / 2) * maths.maximum(x, maths.abs(y)) + 1e-3 * x
    ),
    "where(x < y, sqrt(x*x + 1), cbrt(y + 9)) * tanh(x*y) + ln(2 + cos(y))": lambda x, y: (
        maths.where(x < y, maths.sqrt(x * x + 1), maths.cbrt(y + 9)) * maths.tanh(x * y) + maths.log(2 + maths.cos(y))
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", TYPED)
def test_a_typed_formula_has_the_derivatives_of_pythons_graph(text: str, play: Opened) -> None:
    surface = Surface("typed", TYPED[text], (), ((-2.0, 2.0), (-2.0, 2.0)), (0.0, 0.0), 0.1)
    points = [(-1.3, 0.4), (0.7, -1.9), (1.5, 1.1)]
    found = play.run(
        """([text, points]) => { const land = thalweg.typedSurface(text, [-2, 2, -2, 2]);
        return points.map(([x, y]) => [land.height(x, y), ...land.slope(x, y), ...land.curvature(x, y)]); }""",
        [text, points],
    )
    names = ("f", "gx", "gy", "hxx", "hxy", "hyy")
    for point, got in zip(points, found, strict=True):
        expected = evaluate(surface.derivatives, dict(zip("xy", map(torch.tensor, point), strict=True)) | {
            "x": torch.tensor(point[0], dtype=torch.float64), "y": torch.tensor(point[1], dtype=torch.float64),
        })  # fmt: skip
        np.testing.assert_allclose(got, [float(expected[name]) for name in names], rtol=1e-12, atol=1e-14)


def test_noise_is_normal_independent_and_the_same_for_a_seed(play: Opened) -> None:
    drawn = "([seed, n]) => Array.from({ length: n }, (_, t) => thalweg.normals(seed, t + 1))"
    noise = np.array(play.run(drawn, [3, 20_000]))
    assert noise.mean() == pytest.approx(0, abs=0.02)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.04)
    later = (noise[1:] * noise[:-1]).mean()
    assert later == pytest.approx(0, abs=0.02)
    assert (np.abs(noise) < 1).mean() == pytest.approx(0.6827, abs=0.01)
    assert (noise[:100] == play.run(drawn, [3, 100])).all()
    assert (noise[:100] != play.run(drawn, [4, 100])).all()
    for seed in (0, 3, 2**31):
        expected = [normals(seed, t) for t in range(1, 300)]
        np.testing.assert_allclose(play.run(drawn, [seed, 299]), expected, rtol=1e-12, atol=1e-15)


def mixed(h: int) -> int:
    """The last steps of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ (h >> shift)) * factor) % 2**32
    return h ^ (h >> 16)


def normals(seed: int, t: int) -> tuple[float, float]:
    """The page's noise of a step: two hashes of seed and step as uniform numbers, made normal by Box and Muller."""
    first, second = (
        (mixed((mixed(mixed((seed + 0x9E3779B9) % 2**32) ^ (2 * t + k + 0x7F4A7C15)) + t) % 2**32) + 0.5) / 2**32
        for k in range(2)
    )
    radius = math.sqrt(-2 * math.log(first))
    return radius * math.cos(2 * math.pi * second), radius * math.sin(2 * math.pi * second)


@pytest.mark.parametrize("batch", [1, 16])
def test_a_walk_in_noise_is_pythons(batch: int, play: Opened) -> None:
    state = {"r": "adam", "h": {"lr": 0.05}, "m": batch}
    at(play, {"s": "noisy", "n": 1.5, "d": 7, "r": [state], "p": STEPS})
    expected = reference(
        rules.parse("adam(lr=0.05)"), surfaces["noisy"], surfaces["noisy"].start, STEPS,
        noise=lambda t: 1.5 / math.sqrt(batch) * np.array(normals(7, t)),
    )  # fmt: skip
    assert difference(play.world("world.runner.xs.map((x, k) => [x, world.runner.ys[k]])"), expected,
                      surfaces["noisy"])[-1] < AGREE  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "limit"),
    [
        ("sgd", lambda mu: 2 / 5),
        ("momentum", lambda mu: 2 * (1 + mu) / 5),
        ("nesterov", lambda mu: 2 * (1 + mu) / (1 + 2 * mu) / 5),
        ("newton", None),
        ("adam", None),
    ],
)
def test_the_largest_stable_rate_is_that_of_theory(rule: str, limit: Any, play: Opened) -> None:
    for mu in (0.0, 0.5, 0.9):
        found = play.run(
            """([rule, mu]) => { const { family, settings, options } = thalweg.meant(rule);
            const form = thalweg.formOf(family, options);
            const numbers = form.numbers.map((name) => (name === "momentum" ? mu : settings[name]));
            return thalweg.largestRate(form, numbers, 5); }""",
            [rule, mu],
        )
        assert found == (None if limit is None else pytest.approx(limit(mu), rel=1e-6))


# The page


def test_it_is_one_small_file_that_may_load_and_evaluate_nothing(play: Opened, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_size < 6e6
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=(?![\"']?data:)", text.split("<script>")[0])
    tried = """async () => {
      const fails = async (act) => { try { await act(); return false; } catch { return true; } };
      const image = new Promise((done) => { const made = new Image(); made.onload = () => done(false);
        made.onerror = () => done(true); made.src = "http://127.0.0.1:9/x.png"; });
      return [await fails(() => fetch("http://127.0.0.1:9/")), await fails(() => (0, eval)("1")),
        await fails(() => new Function("return 1")()), await image];
    }"""
    # Playwright's own scripts are exempt from the policy; a timer's is not.
    assert all(play.run(f"() => new Promise((done) => setTimeout(() => ({tried})().then(done), 0))"))
    assert play.run("() => document.querySelectorAll('img, iframe').length") == 0


@pytest.mark.parametrize(
    "typed",
    ["constructor", "fetch(x)", "x.constructor", "__proto__ + x", "'x'", 'alert("x")', HOSTILE, "toString(x)", "x[0]",
     "((" * 200, "-" * 250 + "x", "sin(" * 70 + "x" + ")" * 70, "x+", "sin x", "max(x)", "", "x" * 400, "1..2"],
)  # fmt: skip
def test_a_hostile_formula_is_refused_in_words(typed: str, play: Opened) -> None:
    page = play.page
    page.fill("#formula", typed)
    page.click("#formula-form button")
    play.until("document.getElementById('formula-fault').textContent !== ''")
    assert play.world("world.surface.name") == "ravine"
    assert not play.errors
    page.fill("#formula", "x**2 + y**2")
    page.click("#formula-form button")
    assert play.text("#formula-fault") == ""
    assert play.world("world.surface.minima.length") == 1


def test_hostile_names_are_text(play: Opened) -> None:
    page = play.page
    assert page.title() == HOSTILE
    page.select_option("#surface", HOSTILE)
    page.select_option("#add", HOSTILE)
    page.click("#add-button")
    assert play.text(page.locator(".card .name").last) == HOSTILE
    assert page.locator("img").count() == 0
    assert not play.errors


def test_a_hostile_address_is_checked_piece_by_piece(play: Opened) -> None:
    said = at(play, {
        "s": "constructor", "w": [1, 0, 0, 0], "n": "x", "d": -3, "q": 1e9, "v": "__proto__", "i": 99,
        "a": ["x", 0, 99],
        "p": 1e9, "c": [1e9], "x": 1e9,
        "r": [None, {"r": "__proto__"}, {"r": "sgd", "h": {"lr": -1, "__proto__": 3, "toString": 1}, "o": {"x": 1},
              "c": {"lr": "valueOf"}, "b": ["a", 1], "l": "<b>" * 50, "u": "url(x)", "m": 7, "t": {"r": "x", "at": 1}},
              {"r": "adam", "h": {"beta1": 1}, "o": {"eps_at": 99}}],
    })  # fmt: skip
    assert "the surface is not known" in said
    assert play.world("world.runners.map((runner) => [runner.rule, runner.settings.lr > 0, runner.name.length])") == [
        ["sgd", True, 60], ["adam", True, 4],
    ]  # fmt: skip
    assert play.world("world.runners[1].settings.beta1") == 0.9
    assert play.world("[world.seed, world.speed, [...world.arrows]]") == [0, 10, ["gradient"]]
    assert not play.errors


def test_the_address_holds_the_whole_state(play: Opened, browser: Any, file: Path) -> None:
    page = play.page
    page.fill("#formula", "x**2 + 3*y**2 + sin(3*x)")
    page.click("#formula-form button")
    page.select_option("#add", "rmsprop_nesterov")
    page.click("#add-button")
    page.click("#play")
    play.until("thalweg.page.world.step > 3")
    page.click("#play")
    play.until('decodeURIComponent(location.hash).includes(`"p":${thalweg.page.world.step},`)')
    page.check("#safe")
    play.until("decodeURIComponent(location.hash).includes('\"k\":1')")
    told = "[world.surface.text, world.step, world.runners.map((r) => [r.name, r.settings, r.options, r.xs])]"
    before, hash = play.world(told), page.evaluate("location.hash")
    again = opened(browser, file, hash)
    assert again.world(told) == before
    assert not again.errors
    again.page.close()
    odd = opened(browser, file, "#%7Bnothing")
    assert odd.text("#notice") == "The address has no state that can be read."
    odd.page.close()


# Controls


def test_transport(play: Opened) -> None:
    page = play.page
    page.click("#step")
    page.click("#step")
    assert play.text("#now") == "step 2"
    two = play.world("world.runner.point")
    page.click("#step")
    page.click("#back")
    assert play.world("world.runner.point") == two
    page.keyboard.press(".")
    page.keyboard.press(",")
    page.keyboard.press(",")
    play.until("document.getElementById('now').textContent === 'step 1'")
    page.locator("#speed").focus()
    page.keyboard.press("End")
    assert play.text("#speed-now") == "10×"
    page.keyboard.press("Home")
    assert play.world("world.speed") == 0.1
    page.locator("#speed").evaluate("(slider) => slider.blur()")
    page.locator("#speed").fill("1")
    page.locator("#now").click()
    page.keyboard.press("Space")
    play.until("thalweg.page.world.step > 10")
    page.keyboard.press("Space")
    assert not play.world("world.playing")
    page.keyboard.press("r")
    play.until("document.getElementById('now').textContent === 'step 0'")
    assert play.world("world.runners.map((runner) => runner.xs.length)") == [1, 1]
    assert not play.errors


def test_runners_are_added_duplicated_changed_and_removed(play: Opened) -> None:
    page = play.page
    page.select_option("#add", "rmsprop")
    assert "Hinton" in play.text("#add-doc")
    page.click("#add-button")
    card = page.locator(".card").last
    assert play.text(card.locator(".name")) == "rmsprop"
    card.locator("summary").click()
    slider = card.locator("input[type=range][data-setting=decay]")
    slider.focus()
    page.keyboard.press("Home")
    assert play.world("world.runner.settings.decay") == 0
    page.keyboard.press("End")
    assert play.world("world.runner.settings.decay") == 0.9999
    exact = card.get_by_label("lr of rmsprop, exactly")
    exact.fill("0.0125")
    exact.press("Enter")
    assert play.world("world.runner.settings.lr") == 0.0125
    exact.fill("-1")
    exact.press("Enter")
    assert play.world("world.runner.settings.lr") == 0.0125
    assert "wrong" in (exact.get_attribute("class") or "")
    card.get_by_label("eps_at of rmsprop").select_option("inside")
    assert play.world("world.runner.form.lines.at(-1)[1]").endswith("√(rₜ + ε)")
    page.locator(".card").last.get_by_label("momentum of rmsprop").select_option(NUMBER)
    assert play.world("Object.keys(world.runner.form.widths)") == ["square_avg", "momentum_buffer"]
    page.locator(".card").last.get_by_label("duplicate rmsprop").click()
    assert page.locator(".card").count() == 4
    assert play.world("world.runners[3].settings.lr") == 0.0125
    assert play.world("world.runners[3].options") == play.world("world.runners[2].options")
    page.locator(".card").nth(2).get_by_label("remove rmsprop").click()
    page.locator(".card").nth(0).get_by_label("shown").uncheck()
    assert play.world("world.runners.map((runner) => runner.hidden)") == [True, False, False]
    page.locator(".card").nth(1).locator(".name").click()
    assert play.world("world.selected") == 1
    page.locator("#now").click()
    page.keyboard.press("3")
    play.until("document.querySelectorAll('.card')[2].classList.contains('selected')")
    assert not play.errors


NUMBER = catalogue.NUMBER


def test_a_changed_rate_counts_from_the_next_step(play: Opened) -> None:
    page = play.page
    card = page.locator(".card").first
    card.locator("summary").click()
    page.click("#step")
    x, y = play.world("world.runner.point")
    slider = card.locator("input[type=range][data-setting=lr]")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    rate = play.world("world.runner.settings.lr")
    assert 0.4 < rate < 0.5
    page.click("#step")
    gx, gy = surfaces["ravine"].gradient(x, y)
    assert play.world("world.runner.point") == pytest.approx([x - rate * gx, y - rate * gy], rel=1e-12)
    assert "stable up to 1 for the curvature 2 here" in play.text(card.locator(".limit"))
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert play.world("world.runner.settings.lr") > 10
    assert "above 1 for" in play.text(card.locator(".limit"))
    page.click("#restart")
    page.locator("#speed").fill("1")
    page.click("#play")
    page.locator(".status.bad", has_text="the largest stable rate for the curvature 2").wait_for()
    assert not play.errors


def middle(play: Opened, id: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
    play.page.locator(id).scroll_into_view_if_needed()
    box = play.page.locator(id).bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


@pytest.mark.parametrize("view", ["#contour", "#relief"])
def test_a_click_starts_there_a_drag_moves_the_wheel_zooms(view: str, play: Opened) -> None:
    page = play.page
    at(play, {**CALM, "v": view.removeprefix("#")})
    play.drawn()
    page.mouse.click(*middle(play, view, 0.5, 0.55))
    assert play.world("world.runners.map((runner) => runner.start !== null)") == [True, True]
    first = play.world("world.runner.start")
    assert play.world("world.inside(...world.runner.start)")
    page.select_option("#together", "one")
    page.mouse.click(*middle(play, view, 0.48, 0.5))
    assert play.world("world.runners[1].start") == first
    assert play.world("world.runners[0].start") != first
    page.select_option("#together", "all")
    looked = "[world.window, thalweg.page.relief.view]"
    before = play.world(looked)
    x, y = middle(play, view)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 30, steps=4)
    page.mouse.up()
    moved = play.world(looked)
    assert (moved[0] != before[0]) == (view == "#contour")
    assert (moved[1] != before[1]) == (view == "#relief")
    page.mouse.wheel(0, -200)
    before = json.dumps(json.dumps(moved, separators=(",", ":")))
    play.until(f"JSON.stringify([thalweg.page.world.window, thalweg.page.relief.view]) !== {before}")
    page.click("#home")
    assert play.world("world.window") == [-10, 10, -4, 4]
    page.mouse.move(*middle(play, view, 0.52, 0.52))
    play.until("thalweg.page.world.pointer !== null")  # which the other view marks, too
    page.locator(view).focus()
    state = play.world(looked)
    for key in ("ArrowRight", "ArrowUp", "+", "-", "Enter"):
        page.keyboard.press(key)
    if view == "#contour":
        assert play.world("world.runner.start") == pytest.approx([0.5, 0.2], abs=1e-9)
    else:
        assert play.world(looked)[1] != state[1]
    assert not play.errors


def test_views_arrows_trails_and_colours(play: Opened) -> None:
    page = play.page
    page.click("#views-contour")
    page.wait_for_selector("#relief", state="hidden")
    page.click("#views-relief")
    page.wait_for_selector("#contour", state="hidden")
    page.click("#views-both")
    page.wait_for_selector("#contour", state="visible")
    page.locator(".card .name").nth(1).click()
    for name in ("gradient", "momentum", "squares", "step", "adjusted"):
        box = page.locator(f"#arrow-{name}")
        was = box.is_checked()
        box.set_checked(not was)
        assert play.world(f"world.arrows.has('{name}')") is not was
    seen = page.locator("#contour").screenshot()
    page.locator("#trails").uncheck()
    page.click("#step")
    page.check("#safe")
    page.wait_for_timeout(200)
    assert page.locator("#contour").screenshot() != seen
    page.uncheck("#safe")
    page.check("#trails")
    assert not play.errors


def test_surface_window_noise_and_seed(play: Opened) -> None:
    page = play.page
    page.select_option("#surface", "noisy")
    assert play.world("world.noise") == 1
    page.locator(".batch").first.wait_for(state="visible")
    page.locator("aside summary").first.click()
    for id, value in (("noise", "0.5"), ("seed", "7"), ("window-left", "-3"), ("start-x", "2")):
        page.fill(f"#{id}", value)
        page.press(f"#{id}", "Enter")
        page.locator(f"#{id}").blur()
    assert play.world("[world.noise, world.seed, world.window[0], world.runner.start[0]]") == [0.5, 7, -3, 2]
    page.fill("#noise", "-1")
    page.locator("#noise").blur()
    assert play.world("world.noise") == 0.5
    page.click("#step")
    page.click("#step")
    path = play.world("world.runner.xs")
    page.click("#back")
    page.click("#step")
    assert play.world("world.runner.xs") == path  # the same noise again
    page.locator(".batch").first.select_option("0")
    page.click("#restart")
    page.click("#step")
    x, y = 2, play.world("world.runner.ys[0]")
    assert play.world("world.runner.point[0]") == pytest.approx(
        x - play.world("world.runner.settings.lr") * surfaces["noisy"].gradient(x, y)[0]
    )
    page.locator("aside summary").first.click()
    assert not play.errors


def test_the_rest_of_the_window_and_the_start(play: Opened) -> None:
    page = play.page
    page.locator("aside summary").first.click()
    for id, value in (("window-right", "8"), ("window-low", "-3"), ("window-high", "3.5"), ("start-y", "1.5")):
        page.fill(f"#{id}", value)
        page.press(f"#{id}", "Enter")
        page.locator(f"#{id}").blur()
    assert play.world("world.window") == [-10, 8, -3, 3.5]
    assert play.world("world.runners.map((runner) => runner.start[1])") == [1.5, 1.5]
    page.fill("#window-right", "-11")  # left of the left edge
    page.locator("#window-right").blur()
    assert play.world("world.window") == [-10, 8, -3, 3.5]
    page.locator("aside summary").first.click()
    page.locator("summary", has_text="rules that cannot walk here").click()
    assert page.locator("#left-out li").first.is_visible()
    page.locator("summary", has_text="rules that cannot walk here").click()
    page.locator("#losses-panel summary").click()
    assert not page.locator("#losses").is_visible()
    page.locator("#losses-panel summary").click()
    assert page.locator("#losses").is_visible()
    assert not play.errors


def test_a_schedule_is_chosen_from_the_list_of_a_setting(play: Opened) -> None:
    page = play.page
    card = page.locator(".card").nth(1)
    card.locator("summary").click()
    card.get_by_label("schedule of lr of momentum").select_option("step(0.2, factor=0.5)")
    card.get_by_label("schedule of momentum of momentum").select_option("anneal(0.5, 0.9, 0.5)")
    schedules = [parse(text).resolve(STEPS) for text in ("step(0.2, factor=0.5)", "anneal(0.5, 0.9, 0.5)")]
    for _ in range(130):
        play.run("() => thalweg.page.world.advance()")
    numbers = dict(
        zip(play.world("world.runners[1].form.numbers"), play.world("world.runners[1].numbers"), strict=True)
    )
    assert numbers["lr"] == pytest.approx(0.5 * schedules[0](130), rel=1e-12)
    assert numbers["momentum"] == pytest.approx(schedules[1](130), rel=1e-12)
    card.get_by_label("schedule of lr of momentum").select_option("constant")
    assert play.world("world.runners[1].numbers[world.runners[1].form.numbers.indexOf('lr')]") == 0.5
    assert not play.errors


def test_two_fingers_zoom_a_right_drag_pans_and_the_speed_is_dragged(play: Opened) -> None:
    page = play.page
    play.drawn()
    x, y = middle(play, "#contour")
    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, *apart: float) -> None:
        points = [{"x": x + side * d, "y": y, "id": k} for d in apart for k, side in enumerate((-1, 1))]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 20)
    for apart in (30, 40, 60):
        touch("touchMove", apart)
    touch("touchEnd")
    left, right, low, high = play.world("world.window")
    assert (right - left) / 20 == pytest.approx((high - low) / 8, rel=1e-9)
    assert (right - left) / 20 == pytest.approx(1 / 3, rel=0.05)
    assert play.world("world.runners.map((runner) => runner.start)") == [None, None]  # it was no click
    at(play, {**CALM, "v": "relief"})
    play.drawn()
    before = play.world("thalweg.page.relief.view")
    x, y = middle(play, "#relief")
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x + 50, y + 20, steps=3)
    page.mouse.up(button="right")
    after = play.world("thalweg.page.relief.view")
    moved = np.subtract(after, before)
    assert np.abs(moved).max() > 0.01
    np.testing.assert_allclose(moved[:3], moved[3:], atol=2e-3)  # the eye and what it looks at, alike
    assert play.world("world.runners.map((runner) => runner.start)") == [None, None]
    x, y = middle(play, "#speed")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 500, y)
    page.mouse.up()
    assert play.world("world.speed") == 10
    assert not play.errors


def test_the_address_is_copied_and_a_key_goes_to_the_next_line(play: Opened) -> None:
    page = play.page
    page.locator("#steps summary").click()
    page.locator("#now").click()
    page.keyboard.press("l")
    assert play.world("world.lit") == "p"
    page.locator("#steps summary").click()
    page.click("#step")
    page.click("#link")
    play.until("document.getElementById('export-said').textContent !== ''")
    assert play.text("#export-said") in ("The address is copied.", "Copy it from the address bar.")
    assert '"p":1,' in play.run("() => decodeURIComponent(thalweg.page.own)")
    assert not play.errors


def test_line_by_line_lights_the_symbol_and_its_arrow_and_then_steps(play: Opened) -> None:
    page = play.page
    page.locator(".card .name").nth(1).click()
    page.locator("#steps summary").click()
    page.click("#line-next")
    play.drawn()
    assert "lit" in (page.locator("#lines li").first.get_attribute("class") or "")
    assert play.world("world.lit") == "s.momentum_buffer"
    text = play.text(page.locator("#lines li").first)
    assert text.startswith("vₜ = ")
    gx, gy = surfaces["ravine"].gradient(-9, 2.5)
    assert text.endswith(f"= ({str(round(gx, 4)).replace('-', '−')}, {gy:g})")
    page.click("#line-next")
    assert play.world("world.lit") == "p"
    page.click("#line-back")
    assert play.world("world.lit") == "s.momentum_buffer"
    page.click("#line-next")
    page.click("#line-next")
    assert play.world("world.step") == 1
    page.locator("#lines li").nth(1).hover()
    assert play.world("world.lit") == "p"
    page.locator("#steps summary").click()
    assert not play.errors


def test_the_map_of_rates_is_right_and_a_click_runs_it(play: Opened) -> None:
    page = play.page
    page.locator(".card .name").nth(1).click()
    page.locator("#rates-panel summary").click()
    page.select_option("#rates-other", "momentum")
    page.click("#rates-draw")
    play.until("document.getElementById('rates').dataset.done")
    cells, rates, momenta = play.run("""() => { const { cells, shown } = thalweg.page.rates;
      return [[...cells].map((x) => (x === Infinity ? -1 : x)),
        Array.from({ length: 44 }, (_, i) => shown.axes.rate(i)),
        Array.from({ length: 28 }, (_, j) => shown.axes.value(j))]; }""")
    for i, j in ((5, 3), (25, 20), (30, 10), (43, 5), (20, 26)):
        rule = rules.parse(f"momentum(lr={rates[i]!r}, momentum={momenta[j]!r})")
        path = reference(rule, surfaces["ravine"], (-9.0, 2.5), 300)
        heights = surfaces["ravine"].heights(*path.T)
        below = np.flatnonzero(heights <= 1e-3 * heights[0])
        diverges = len(path) <= 300 or heights[-1] > 10 * heights[0]
        expected = below[0] if len(below) else -1 if diverges else 300
        assert cells[j * 44 + i] == expected, (i, j)
        # Theory's border for the larger curvature, 2: beyond it nothing arrives.
        if rates[i] > 1 + momenta[j]:
            assert cells[j * 44 + i] in (-1, 300)
    assert "Quickest" in play.text("#rates-said")
    page.mouse.click(*middle(play, "#rates", 0.5, 0.3))
    play.until("thalweg.page.world.step > 2")
    assert play.world("world.runner.settings.momentum") != 0.9
    page.locator("#now").click()
    page.keyboard.press("Space")
    page.locator("#rates").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert play.world("world.runner.kept")
    page.locator("#rates-panel summary").click()
    assert not play.errors


def test_the_tour_has_twelve_stops_that_can_be_shown(play: Opened) -> None:
    page = play.page
    assert len(STOPS) == 12
    page.click("#tour-start")
    for k, stop in enumerate(STOPS):
        assert play.text("#tour-title") == f"{k + 1} of 12: {stop['title']}"
        assert play.text("#tour-text") == stop["text"]
        assert len(re.findall(r"[.?!](?= |$)", stop["text"])) == 2, stop["title"]
        assert play.world("world.runners.map((runner) => runner.rule)") == [each["r"] for each in stop["state"]["r"]]
        told = "world.runners.map(({ settings, options, schedules }) => ({ settings, options, schedules }))"
        for runner, given in zip(play.world(told), stop["state"]["r"], strict=True):
            assert runner["settings"] | given["h"] == runner["settings"], stop["title"]
            assert runner["options"] | given.get("o", {}) == runner["options"]
            assert runner["schedules"] == given.get("c", {})
        assert play.text("#notice") == ""
        if k < 11:
            page.click("#tour-next")
    page.click("#tour-back")
    assert play.text("#tour-title").startswith("11 of 12")
    page.click("#tour-end")
    page.wait_for_selector("#tour", state="hidden")
    assert not play.errors


SHOWN = {
    "the ravine": "r[0].arrived < r[1].arrived / 2",
    "what momentum damps": "r[0].arrived === null || r[1].arrived < r[0].arrived / 2",
    "looking ahead": "r[1].arrived < r[0].arrived",
    "AdaGrad's dying rate": "r[0].losses.at(-1) > 10 * r[1].losses.at(-1)",
    "RMSProp's forgetting": "r[0].states.at(-1)[0] >= r[0].states[40][0] && r[1].states.at(-1)[0] < r[1].states[40][0]",
    "the saddle": "r[0].arrived === null && r.slice(2).every((runner) => runner.arrived !== null)",
    "the plateau": "r.slice(2).every((runner) => runner.arrived < r[0].arrived / 2 && runner.arrived < r[1].arrived)",
    "schedules": "Math.max(...r[0].losses.slice(-50)) > 5 * Math.max(...r[1].losses.slice(-50))",
    "switching": "r[1].arrived !== null",
    "Newton": "Math.abs(r[1].xs[8] - 1.86081) < 1e-4 && Math.abs(r[0].xs[8] - 1.86081) > 0.1",
}
"""What a stop says, as a condition on the runners after 400 steps."""


def test_what_the_stops_say_is_what_is_seen(play: Opened) -> None:
    for stop in STOPS:
        at(play, {**stop["state"], "p": 400, "v": "contour"})
        condition = SHOWN.get(stop["title"], "true")
        told = "world.runners.map(({ name, arrived, ended, loss }) => ({ name, arrived, ended, loss }))"
        assert play.world(f"((r) => {condition})(world.runners)"), (stop["title"], play.world(told))
    at(play, {**STOPS[6]["state"], "p": 1, "v": "contour"})
    first, uncorrected = play.world("world.runners.map((r) => Math.hypot(r.xs[1] - r.xs[0], r.ys[1] - r.ys[0]))")
    assert uncorrected / first == pytest.approx(0.1 / 0.001**0.5, rel=1e-3)


def test_pictures_and_animations_are_written(play: Opened, tmp_path: Path) -> None:
    page = play.page
    for _ in range(4):
        page.click("#step")
    begins = {"png": b"\x89PNG", "svg": b"<svg xmlns", "gif": b"GIF89a", "webm": b"\x1aE\xdf\xa3"}
    for kind, magic in begins.items():
        with page.expect_download() as waiting:
            page.click(f"#{kind}")
        waiting.value.save_as(tmp_path / f"thalweg.{kind}")
        data = (tmp_path / f"thalweg.{kind}").read_bytes()
        assert data.startswith(magic), kind
        assert len(data) > 3000
    text = (tmp_path / "thalweg.svg").read_text(encoding="utf-8")
    assert "momentum" in text
    assert text.count("<path") > 20
    assert not play.errors


@pytest.mark.parametrize(("width", "height", "scheme"), [(1400, 900, "dark"), (390, 800, "light")])
def test_it_fits_wide_and_narrow_windows(width: int, height: int, scheme: str, browser: Any, file: Path) -> None:
    made = opened(browser, file, viewport={"width": width, "height": height}, color_scheme=scheme)
    assert made.run("() => document.documentElement.scrollWidth") <= width
    for id in ("#play", "#contour", "#relief", "#add-button"):
        assert made.page.locator(id).is_visible()
    unlabelled = """() => [...document.querySelectorAll("button, input, select, canvas")].filter((node) =>
      !(node.ariaHidden || node.ariaLabel || node.textContent.trim() || node.labels?.length))
      .map((node) => node.outerHTML)"""
    assert made.run(unlabelled) == []
    assert not made.world("world.playing")  # reduced motion
    assert not made.errors
    made.page.close()


def test_a_notebook_shows_it_in_a_frame(browser: Any, file: Path, tmp_path: Path) -> None:
    shown = playground.Playground(file.read_text(encoding="utf-8"), height=500)
    (tmp_path / "notebook.html").write_text(f"<!doctype html>{shown._repr_html_()}", encoding="utf-8")  # pyright: ignore[reportPrivateUsage]
    page = browser.new_page(reduced_motion="reduce")
    page.goto((tmp_path / "notebook.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready=yes]").wait_for(state="attached", timeout=SETTLED)
    frame.locator("#step").click()
    assert frame.locator("#now", has_text="step 1").text_content() == "step 1"
    page.close()
