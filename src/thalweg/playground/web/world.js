// Everything that the page shows: the surface, the runners on it, and how they are looked at.
import { chosenColour } from "./palette.js";
import { shown } from "./numbers.js";
import { families, formOf, meant, ruleNames, suggestedRate } from "./rules.js";
import { Runner } from "./runner.js";
import { largestRate } from "./stability.js";
import { TYPED, printedSurface, surfaceNames, typedSurface } from "./surface.js";

export const MOST_RUNNERS = 13;
export const ARROWS = ["gradient", "momentum", "squares", "step", "adjusted"];

export class World {
  constructor() {
    this.surface = printedSurface(surfaceNames[0]);
    this.window = [...this.surface.window];
    this.runners = [];
    this.selected = 0;
    this.noise = 0;
    this.seed = 0;
    this.speed = 1;
    this.views = "both";
    this.trails = true;
    this.safe = false;
    this.arrows = new Set(["gradient", "momentum", "step"]);
    this.lit = null; // the line of the formula that is explained
    this.playing = false;
    this.pointer = null; // a place that both views mark
    this.listeners = new Map();
  }

  on(events, listener) {
    for (const event of events.split(" ")) this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  // ground: the surface or the window; runners: who there is; settings; walk: where they are; look: how they are shown.
  changed(...events) {
    for (const event of events) for (const listener of this.listeners.get(event) ?? []) listener();
  }

  get runner() {
    return this.runners[this.selected] ?? null;
  }

  get step() {
    return Math.max(0, ...this.runners.map((runner) => runner.taken));
  }

  // Throws FormulaError for a formula that cannot be read; then nothing changes.
  setSurface(name, { text = null, window = null, fresh = true } = {}) {
    const surface = name === TYPED ? typedSurface(text, window ?? [-5, 5, -5, 5]) : printedSurface(name);
    this.surface = surface;
    this.window = [...(window ?? surface.window)];
    if (fresh) {
      this.noise = surface.noise;
      for (const runner of this.runners) {
        runner.start = null;
        if (!runner.kept) this.rate(runner);
      }
    }
    this.restart();
    this.changed("ground", "runners");
  }

  rate(runner) {
    runner.settings.lr = suggestedRate(
      runner.family,
      formOf(runner.family, runner.options),
      runner.settings,
      this.surface,
    );
    if (runner.then) {
      const { family, options, settings } = meant(runner.then.name);
      runner.then.settings = {
        ...settings,
        lr: suggestedRate(family, formOf(family, options), settings, this.surface),
      };
    }
  }

  // given: rule, and what differs from its defaults: settings, options, schedules, start, colour, label, then.
  add(given) {
    if (this.runners.length >= MOST_RUNNERS || !ruleNames.includes(given.rule)) return null;
    const { family, settings, options } = meant(given.rule);
    const colour =
      given.colour ??
      chosenColour(
        given.rule,
        this.runners.map((runner) => runner.colour),
      );
    const runner = new Runner({
      name: given.label ?? given.rule,
      rule: given.rule,
      family,
      settings: { ...settings, ...given.settings },
      options: { ...options, ...given.options },
      schedules: { ...given.schedules },
      start: given.start ?? null,
      then: given.then ? { ...given.then } : null,
      batch: given.batch ?? 1,
      colour,
      kept: given.settings?.lr !== undefined,
    });
    if (!formOf(family, runner.options)) runner.options = options;
    if (!runner.kept) this.rate(runner);
    else if (runner.then && !runner.then.settings) {
      const then = meant(runner.then.name);
      const lr =
        runner.then.lr ?? suggestedRate(then.family, formOf(then.family, then.options), then.settings, this.surface);
      runner.then.settings = { ...then.settings, lr };
    }
    runner.restart(this.surface);
    this.runners.push(runner);
    this.changed("runners", "walk");
    return runner;
  }

  duplicate(k) {
    const { rule, settings, options, schedules, start, then, name, batch } = this.runners[k];
    const made = this.add({
      rule,
      settings: { ...settings },
      options: { ...options },
      schedules,
      start,
      then,
      batch,
      label: name,
    });
    if (made) this.selected = this.runners.length - 1;
    this.changed("runners", "walk");
  }

  remove(k) {
    this.runners.splice(k, 1);
    this.selected = Math.max(0, Math.min(this.selected, this.runners.length - 1));
    this.changed("runners", "walk");
  }

  restart() {
    for (const runner of this.runners) runner.restart(this.surface);
    this.lit = null;
    this.changed("walk");
  }

  advance() {
    let moved = false;
    for (const runner of this.runners) moved = runner.step(this.surface, this.noise, this.seed) || moved;
    return moved;
  }

  back() {
    const most = this.step;
    let moved = false;
    for (const runner of this.runners) if (runner.taken === most || runner.ended) moved = runner.back() || moved;
    return moved;
  }

  begin(x, y, all) {
    for (const runner of all ? this.runners : [this.runner]) {
      if (!runner) continue;
      runner.start = [x, y];
      runner.restart(this.surface);
    }
    this.lit = null;
    this.changed("walk", "settings");
  }

  inside(x, y) {
    const [left, right, low, high] = this.window;
    return x >= left && x <= right && y >= low && y <= high;
  }
}

// The largest stable rate of a runner for the curvature where it is: { rate, bend }, rate null if it has none.
export function limitOf(runner, surface, [x, y] = runner.point) {
  const bend = +surface.bends(x, y)[0].toPrecision(4);
  if (!Number.isFinite(bend)) return { bend, rate: null };
  // It is asked for in every frame, and takes a millisecond; where the curvature is the same, so is the rate.
  const { form, numbers } = runner;
  const key = [bend, ...form.numbers.map((name, k) => (name === "lr" ? "" : numbers[k]))].join();
  if (runner.limit?.key !== key || runner.limit.form !== form)
    runner.limit = { key, form, rate: largestRate(form, numbers, bend) };
  return { bend, rate: runner.limit.rate };
}

// What has become of a runner, in words.
export function outcome(runner, world) {
  const { surface } = world;
  if (runner.ended) {
    if (runner.ended.why) return { kind: "bad", text: `stopped at step ${runner.ended.step}: ${runner.ended.why}` };
    const place = lastInside(runner, world);
    const { rate, bend } = limitOf(runner, surface, place);
    const lr = runner.numbers[runner.form.numbers.indexOf("lr")];
    const why =
      rate !== null && lr > rate
        ? `: η = ${shown(lr)} is above ${shown(rate)}, the largest stable rate for the curvature ${shown(bend)}`
        : "";
    return { kind: "bad", text: `diverged at step ${runner.ended.step}${why}` };
  }
  if (runner.arrived !== null) return { kind: "good", text: `reached the minimum after ${runner.arrived} steps` };
  const [x, y] = runner.point;
  if (!world.inside(x, y)) {
    let since = runner.taken;
    while (since > 0 && !world.inside(runner.xs[since - 1], runner.ys[since - 1])) since -= 1;
    const far = 50 * Math.max(world.window[1] - world.window[0], world.window[3] - world.window[2]);
    return {
      kind: "bad",
      text: `${Math.hypot(x, y) > far ? "diverging: " : ""}outside the picture since step ${since}${excuse(runner, world)}`,
    };
  }
  const still = resting(runner, surface);
  return { kind: "", text: `${still ? `${still}, ` : ""}loss ${shown(runner.loss)}` };
}

function excuse(runner, world) {
  const { rate, bend } = limitOf(runner, world.surface, lastInside(runner, world));
  const lr = runner.numbers[runner.form.numbers.indexOf("lr")];
  return rate !== null && rate > 0 && lr > rate
    ? `: η = ${shown(lr)} is above ${shown(rate)}, the largest stable rate for the curvature ${shown(bend)}`
    : "";
}

function lastInside(runner, world) {
  for (let k = runner.taken; k > 0; k--)
    if (world.inside(runner.xs[k], runner.ys[k])) return [runner.xs[k], runner.ys[k]];
  return [runner.xs[0], runner.ys[0]];
}

const NEAR = 0.02; // of the window's width

// The stationary point that a runner is at, if Newton's method says that one is near.
function resting(runner, surface) {
  if (runner.taken < 5) return "";
  const [x, y] = runner.point;
  const [gx, gy] = surface.slope(x, y);
  const [a, b, c] = surface.curvature(x, y);
  const size = a * c - b * b;
  const away = Math.hypot((c * gx - b * gy) / size, (a * gy - b * gx) / size);
  if (!(away < NEAR * Math.max(surface.window[1] - surface.window[0], surface.window[3] - surface.window[2])))
    return "";
  const [most, least] = surface.bends(x, y);
  if (least < 0) return most > 0 ? "at a saddle point" : "at a maximum";
  const deep =
    surface.lowest === null || runner.loss - surface.lowest < 0.02 * Math.abs(runner.losses[0] - surface.lowest);
  return least > 0 && !deep ? "at a local minimum" : "";
}

// What is drawn at a runner's ball, for its next step: vectors, and the roots of squares for each coordinate.
export function signs(runner, world) {
  if (runner.ended) return [];
  const seen = [];
  const { gradient, p, out, at } = runner.tried(world.surface, world.noise, world.seed, seen);
  const found = [{ kind: "gradient", field: "g", from: at, vector: [-gradient[0], -gradient[1]] }];
  let place = 2;
  for (const [name, width] of Object.entries(runner.form.widths)) {
    const role = runner.form.roles[name];
    const value = [out[place], out[place + 1]];
    place += width;
    if (role === "momentum") {
      // Downhill, whether the field is a sum of gradients or a velocity.
      const along = value[0] * (out[0] - p[0]) + value[1] * (out[1] - p[1]);
      found.push({ kind: "momentum", field: `s.${name}`, from: p, vector: along < 0 ? [-value[0], -value[1]] : value });
    } else if (role === "squares")
      found.push({ kind: "squares", field: `s.${name}`, from: p, sides: value.map((x) => Math.sqrt(Math.max(x, 0))) });
    else if (role === "sizes") found.push({ kind: "squares", field: `s.${name}`, from: p, sides: value.map(Math.abs) });
  }
  const step = [out[0] - p[0], out[1] - p[1]];
  const lr = runner.numbers[runner.form.numbers.indexOf("lr")];
  if (lr > 0) found.push({ kind: "adjusted", field: "p", from: p, vector: [step[0] / lr, step[1] / lr] });
  found.push({ kind: "step", field: "p", from: p, vector: step, exact: true });
  return found.filter((sign) => world.arrows.has(sign.kind) && (sign.vector ?? sign.sides).every(Number.isFinite));
}

export const documented = (name) => families.get(meant(name).family);
