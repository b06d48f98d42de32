// A rule that walks: its point, its state, and all steps so far, so that they can be taken back.
import { SCHEDULES } from "./printed.js";
import { normals } from "./numbers.js";
import { families, formOf, meant, places } from "./rules.js";

export const MOST_STEPS = 5000;
export const BATCHES = [1, 16, 0]; // samples of a gradient: one, some, all
const DOWN = 1e-3; // arrived: only this share of the start's height above the lowest is left

function scheduled(schedule, base, t) {
  const known = SCHEDULES[schedule];
  if (!known) return base;
  const value = known.values[Math.min(t, known.values.length - 1)];
  return known.absolute ? value : base * value;
}

export class Runner {
  // given: name, family, settings, options, schedules {setting: text}, start [x, y] or null, then {at, name, settings} or null,
  // batch: of so many samples, 0 for all
  constructor(given) {
    Object.assign(this, { schedules: {}, start: null, then: null, hidden: false, batch: 1 }, given);
  }

  get form() {
    return this.current === "then" ? this.thenForm : this.firstForm;
  }

  // The numbers of the next step, in the order in which the form takes them.
  get numbers() {
    return this.numbersAt(this.taken);
  }

  // The letter of a setting in the formula.
  symbol(name) {
    const family = this.current === "then" ? meant(this.then.name).family : this.family;
    return families.get(family).settings[name]?.symbol ?? name;
  }

  get taken() {
    return this.xs.length - 1;
  }

  get point() {
    return [this.xs.at(-1), this.ys.at(-1)];
  }

  get loss() {
    return this.losses.at(-1);
  }

  restart(surface) {
    this.firstForm = formOf(this.family, this.options);
    if (this.then) {
      const { family, options } = meant(this.then.name);
      this.thenForm = formOf(family, options);
    }
    this.current = "first";
    this.from = 0;
    const [x, y] = this.start ?? surface.start;
    this.xs = [x];
    this.ys = [y];
    this.losses = [surface.height(x, y)];
    this.states = [this.begun([x, y])];
    this.arrived = null;
    this.ended = null;
    this.gradient = null;
  }

  begun(point) {
    const out = new Float64Array(2 + places(this.form).size);
    this.form.init(point, null, out, 0, this.numbersAt(0), out);
    return out.slice(2);
  }

  numbersAt(t) {
    const settings = this.current === "then" ? this.then.settings : this.settings;
    return this.form.numbers.map((name) =>
      scheduled(this.current === "then" ? null : this.schedules[name], settings[name], t),
    );
  }

  // A form chosen while it walks: the point stays, the state begins anew if it has other fields.
  reform(options) {
    const form = formOf(this.family, options);
    if (!form) return false;
    const before = Object.keys(this.firstForm.widths).join();
    this.options = options;
    this.firstForm = form;
    if (this.current === "first" && Object.keys(form.widths).join() !== before) {
      this.states[this.states.length - 1] = this.begun(this.point);
      this.from = this.taken;
    }
    return true;
  }

  // The gradient that the next step gets, and where it is taken.
  sighted(surface, noise, seed) {
    const t = this.taken - this.from + 1;
    let at = this.point;
    if (this.form.ahead) {
      const out = new Float64Array(2 + this.states.at(-1).length);
      this.form.ahead(at, null, this.states.at(-1), t, this.numbers, out);
      at = [out[0], out[1]];
    }
    const gradient = surface.slope(at[0], at[1]);
    // The mean over a batch has a smaller deviation, by the root of its size; over all samples, none.
    if (noise > 0 && this.batch) {
      const [a, b] = normals(seed, this.taken + 1);
      gradient[0] += (noise / Math.sqrt(this.batch)) * a;
      gradient[1] += (noise / Math.sqrt(this.batch)) * b;
    }
    return { at, gradient, t };
  }

  // The next step without taking it: the new point and state in one array, and what the formula's lines come to.
  tried(surface, noise, seed, seen = null) {
    const { at, gradient, t } = this.sighted(surface, noise, seed);
    const out = new Float64Array(2 + this.states.at(-1).length);
    const p = this.point;
    const h = this.numbers;
    this.form.step(p, gradient, this.states.at(-1), t, h, out, seen, surface);
    return { at, gradient, t, p, h, out };
  }

  step(surface, noise, seed) {
    if (this.ended || this.taken >= MOST_STEPS) return false;
    if (this.then && this.current === "first" && this.taken >= this.then.at) {
      this.current = "then";
      this.from = this.taken;
      this.states[this.states.length - 1] = this.begun(this.point);
    }
    const { gradient, out } = this.tried(surface, noise, seed);
    const loss = surface.height(out[0], out[1]);
    if (!Number.isFinite(out[0]) || !Number.isFinite(out[1])) {
      this.ended = { step: this.taken + 1, why: out.why ?? null };
      return false;
    }
    this.gradient = gradient;
    this.xs.push(out[0]);
    this.ys.push(out[1]);
    this.losses.push(loss);
    this.states.push(out.slice(2));
    const { lowest } = surface;
    if (this.arrived === null && lowest !== null && loss - lowest <= DOWN * (this.losses[0] - lowest))
      this.arrived = this.taken;
    return true;
  }

  back() {
    if (this.ended) {
      this.ended = null;
      return true;
    }
    if (!this.taken) return false;
    for (const list of [this.ys, this.losses, this.states]) list.pop();
    this.xs = this.xs.slice(0, -1); // a list of its own, so that views see that it is another walk
    if (this.arrived > this.taken) this.arrived = null;
    if (this.current === "then" && this.taken <= this.then.at && this.taken < this.from) this.current = "first";
    if (this.taken < this.from) this.from = 0;
    return true;
  }
}

// A whole walk at once, as for the map of rates and the tests: the points, of shape (steps + 1) × 2.
export function walked(form, numbers, surface, start, steps, noise = 0, seed = 0) {
  const size = places(form).size;
  const out = new Float64Array(2 + size);
  form.init(start, null, out, 0, numbers, out);
  let p = [...start];
  let s = out.slice(2);
  const path = [[...p]];
  for (let t = 1; t <= steps; t++) {
    let at = p;
    if (form.ahead) {
      form.ahead(p, null, s, t, numbers, out);
      at = [out[0], out[1]];
    }
    const g = surface.slope(at[0], at[1]);
    if (noise > 0) {
      const [a, b] = normals(seed, t);
      g[0] += noise * a;
      g[1] += noise * b;
    }
    form.step(p, g, s, t, numbers, out, null, surface);
    p = [out[0], out[1]];
    s = out.slice(2);
    if (!Number.isFinite(p[0]) || !Number.isFinite(p[1])) break;
    path.push([...p]);
  }
  return path;
}
