// The whole state as text for the address bar, and back.  What comes from an address is checked piece by piece.
import { SCHEDULES } from "./printed.js";
import { clamp } from "./numbers.js";
import { families, formOf, meant, ruleNames } from "./rules.js";
import { BATCHES, MOST_STEPS } from "./runner.js";
import { TYPED, surfaceNames } from "./surface.js";
import { ARROWS, MOST_RUNNERS } from "./world.js";
import { colourNames } from "./palette.js";

const finite = (x) => typeof x === "number" && Number.isFinite(x);
const whole = (x) => Number.isInteger(x);

export function written(world, relief) {
  const state = { s: world.surface.name };
  if (world.surface.text !== undefined) state.f = world.surface.text;
  state.w = world.window.map((x) => +x.toPrecision(6));
  if (world.noise) state.n = world.noise;
  if (world.seed) state.d = world.seed;
  if (world.speed !== 1) state.q = world.speed;
  if (world.views !== "both") state.v = world.views;
  if (!world.trails) state.t = 0;
  if (world.safe) state.k = 1;
  if (world.stop !== null && world.stop !== undefined) state.x = world.stop;
  state.a = [...world.arrows].map((name) => ARROWS.indexOf(name));
  state.i = world.selected;
  state.p = world.step;
  if (relief) state.c = relief.view;
  state.r = world.runners.map((runner) => {
    const usual = meant(runner.rule);
    const differs = (now, then) => Object.fromEntries(Object.entries(now).filter(([name, x]) => x !== then[name]));
    const made = { r: runner.rule, h: { ...differs(runner.settings, usual.settings), lr: runner.settings.lr } };
    const options = differs(runner.options, usual.options);
    if (Object.keys(options).length) made.o = options;
    if (runner.name !== runner.rule) made.l = runner.name;
    if (runner.start) made.b = runner.start.map((x) => +x.toPrecision(8));
    const schedules = Object.fromEntries(Object.entries(runner.schedules).filter(([, text]) => text));
    if (Object.keys(schedules).length) made.c = schedules;
    if (runner.then) made.t = { at: runner.then.at, r: runner.then.name, lr: runner.then.settings.lr };
    if (runner.hidden) made.z = 1;
    if (runner.batch !== 1) made.m = runner.batch;
    made.u = runner.colour;
    return made;
  });
  return `#${encodeURIComponent(JSON.stringify(state))}`;
}

// Settings within their ranges, of those that there are.
export function permitted(family, name, x) {
  const setting = families.get(family).settings[name];
  if (!setting || !finite(x)) return false;
  const { low, high, lowOpen, highOpen } = setting;
  return (low === null || (lowOpen ? x > low : x >= low)) && (high === null || (highOpen ? x < high : x <= high));
}

function runner(given) {
  if (typeof given !== "object" || given === null || !ruleNames.includes(given.r)) return null;
  const { family, options } = meant(given.r);
  const known = families.get(family);
  const pairs = (object) => (typeof object === "object" && object !== null ? Object.entries(object) : []);
  const settings = Object.fromEntries(
    pairs(given.h).filter(([name, x]) => Object.hasOwn(known.settings, name) && permitted(family, name, x)),
  );
  const chosen = Object.fromEntries(
    pairs(given.o).filter(
      ([name, x]) => Object.hasOwn(known.options, name) && whole(x) && x >= 0 && x < known.options[name].values.length,
    ),
  );
  const schedules = Object.fromEntries(
    pairs(given.c).filter(([name, text]) => Object.hasOwn(known.settings, name) && Object.hasOwn(SCHEDULES, text)),
  );
  const start = Array.isArray(given.b) && given.b.length === 2 && given.b.every(finite) ? given.b : null;
  const made = {
    rule: given.r,
    settings,
    options: formOf(family, { ...options, ...chosen }) ? chosen : {},
    schedules,
    start,
  };
  if (typeof given.l === "string") made.label = given.l.slice(0, 60);
  if (colourNames.includes(given.u)) made.colour = given.u;
  if (BATCHES.includes(given.m)) made.batch = given.m;
  const then = given.t;
  if (then && ruleNames.includes(then.r) && whole(then.at) && then.at > 0)
    made.then = { at: then.at, name: then.r, lr: finite(then.lr) && then.lr >= 0 ? then.lr : undefined };
  return { made, hidden: given.z === 1 };
}

// Brings the world into a state; returns what could not be read, in words, or nothing.
export function restored(world, state, relief = null) {
  const faults = [];
  if (typeof state !== "object" || state === null) return "The address has no state of the playground.";
  const window =
    Array.isArray(state.w) &&
    state.w.length === 4 &&
    state.w.every(finite) &&
    state.w[0] < state.w[1] &&
    state.w[2] < state.w[3]
      ? state.w
      : null;
  world.playing = false;
  world.runners = [];
  world.selected = 0;
  try {
    if (state.s === TYPED && typeof state.f === "string") world.setSurface(TYPED, { text: state.f, window });
    else if (surfaceNames.includes(state.s)) world.setSurface(state.s, { window });
    else faults.push("the surface is not known");
  } catch (error) {
    faults.push(`the formula cannot be read: ${error.message}`);
    world.setSurface(surfaceNames[0]);
  }
  // A surface's own noise belongs to it, unless the state says otherwise.
  if ("n" in state || "p" in state) world.noise = finite(state.n) ? clamp(state.n, 0, 1000) : 0;
  world.seed = whole(state.d) ? clamp(state.d, 0, 2 ** 31) : 0;
  world.speed = finite(state.q) ? clamp(state.q, 0.1, 10) : 1;
  world.views = ["both", "relief", "contour"].includes(state.v) ? state.v : "both";
  world.trails = state.t !== 0;
  world.safe = state.k === 1;
  world.stop = whole(state.x) && state.x >= 0 ? state.x : null;
  if (Array.isArray(state.a))
    world.arrows = new Set(state.a.filter((k) => whole(k) && k in ARROWS).map((k) => ARROWS[k]));
  const given = Array.isArray(state.r) ? state.r.slice(0, MOST_RUNNERS) : [];
  for (const each of given) {
    const found = runner(each);
    if (!found) faults.push("a rule is not known");
    else {
      const added = world.add(found.made);
      if (added) added.hidden = found.hidden;
    }
  }
  world.selected = whole(state.i) ? clamp(state.i, 0, Math.max(0, world.runners.length - 1)) : 0;
  const steps = whole(state.p) ? clamp(state.p, 0, MOST_STEPS) : 0;
  for (let k = 0; k < steps; k++) world.advance();
  if (relief && Array.isArray(state.c) && state.c.length === 6 && state.c.every((x) => finite(x) && Math.abs(x) < 20))
    relief.view = state.c;
  world.changed("ground", "runners", "settings", "walk", "look", "playing");
  return faults.length ? `Not everything in the address could be used: ${faults.join("; ")}.` : "";
}

// The state in an address, or null.
export function read(hash) {
  if (hash.length < 2 || hash.length > 20_000) return null;
  try {
    return JSON.parse(decodeURIComponent(hash.slice(1)));
  } catch {
    return null;
  }
}
