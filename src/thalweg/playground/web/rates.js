// A map of rates: the steps to the minimum for each pair of a learning rate and another setting.
import { byId, el, say } from "./dom.js";
import { colour } from "./palette.js";
import { shown } from "./numbers.js";
import { walked } from "./runner.js";
import { contraction } from "./stability.js";
import { families } from "./rules.js";

const ACROSS = 44;
const UP = 28;
const MOST = 300;
const SLICE = 12; // milliseconds of work at a time
const MARGIN = { left: 58, right: 14, top: 10, bottom: 42 };
const DOWN = 1e-3;

// Steps to the minimum, or MOST where there are more, or infinity where it diverges.
function stepsNeeded(form, numbers, surface, start, noise, seed) {
  const begin = surface.height(...start) - surface.lowest;
  const path = walked(form, numbers, surface, start, MOST, noise, seed);
  for (let k = 0; k < path.length; k++) if (surface.height(...path[k]) - surface.lowest <= DOWN * begin) return k;
  const end = surface.height(...path.at(-1)) - surface.lowest;
  return path.length <= MOST || !(end <= 10 * begin) ? Infinity : MOST;
}

export class RateMap {
  constructor(canvas, world) {
    Object.assign(this, { canvas, world, cells: null, job: 0 });
    byId("rates-draw").addEventListener("click", () => this.compute());
    canvas.addEventListener("click", (event) => this.choose(...this.cellAt(event.offsetX, event.offsetY)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("pointermove", (event) => this.tell(...this.cellAt(event.offsetX, event.offsetY)));
    world.on("runners ground look", () => this.offer());
  }

  // The settings that can be the other axis.
  offer() {
    const { runner } = this.world;
    const list = byId("rates-other");
    const names = runner ? runner.form.numbers.filter((name) => name !== "lr") : [];
    const key = `${runner?.family} ${names.join()}`;
    if (this.offered === key) return;
    this.offered = key;
    const { settings } = runner ? families.get(runner.family) : { settings: {} };
    const best = names.find((name) => settings[name]?.high === 1 && settings[name].highOpen) ?? names[0];
    list.replaceChildren(...names.map((name) => el("option", { value: name, selected: name === best }, name)));
    list.disabled = !names.length;
  }

  axes(runner, other) {
    const { low, high } = families.get(runner.family).settings[other] ?? { low: 0, high: 1 };
    const lr = runner.settings.lr || 0.01;
    const [least, most] = [Math.log10(lr) - 2, Math.log10(lr) + 1.5];
    const rate = (i) => 10 ** (least + ((i + 0.5) / ACROSS) * (most - least));
    const base = runner.settings[other];
    // A setting between bounds is drawn over all of them, others two decades around where they are.
    const value =
      high === null
        ? (j) => (base || 1e-3) * 10 ** (4 * ((j + 0.5) / UP) - 2)
        : (j) => (low ?? 0) + ((j + 0.5) / UP) * (high - (low ?? 0)) * 0.999;
    return { rate, value, least, most };
  }

  compute() {
    const { world } = this;
    const { runner, surface } = world;
    if (!runner) return;
    if (surface.lowest === null) {
      byId("rates-said").textContent = "This surface has no lowest point in the window, so nobody can reach it.";
      return;
    }
    const other = byId("rates-other").value || null;
    const form = runner.firstForm;
    const axes = other ? this.axes(runner, other) : { ...this.axes(runner, "lr"), value: () => null };
    const base = form.numbers.map((name) => runner.settings[name]);
    const at = (i, j) =>
      base.map((x, k) => (form.numbers[k] === "lr" ? axes.rate(i) : form.numbers[k] === other ? axes.value(j) : x));
    const rows = other ? UP : 1;
    const start = [...(runner.start ?? surface.start)];
    this.cells = new Float64Array(ACROSS * rows).fill(NaN);
    this.shown = {
      axes,
      other,
      at,
      rows,
      form,
      id: runner,
      start,
      bends: surface.minima.length ? surface.bends(...surface.minima[0]) : null,
      surface,
    };
    const job = (this.job += 1);
    let next = 0;
    byId("rates-said").textContent = "Computing …";
    const work = () => {
      if (job !== this.job) return;
      const until = performance.now() + SLICE;
      while (next < this.cells.length && performance.now() < until) {
        this.cells[next] = stepsNeeded(
          form,
          at(next % ACROSS, Math.floor(next / ACROSS)),
          surface,
          start,
          world.noise,
          world.seed,
        );
        next += 1;
      }
      this.draw();
      if (next < this.cells.length) setTimeout(work, 0);
      else this.conclude();
    };
    work();
  }

  conclude() {
    const best = this.cells.reduce((least, steps, k) => (steps < this.cells[least] ? k : least), 0);
    const { axes, other } = this.shown;
    const steps = this.cells[best];
    const where = `lr = ${shown(axes.rate(best % ACROSS))}${other ? `, ${other} = ${shown(axes.value(Math.floor(best / ACROSS)))}` : ""}`;
    byId("rates-said").textContent =
      steps < MOST
        ? `Quickest: ${steps} steps at ${where}. Click a place to run it there.`
        : `No place reaches the minimum in ${MOST} steps.`;
    this.cursor = best;
    byId("rates").dataset.done = String(this.job);
  }

  get box() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    return {
      x: MARGIN.left,
      y: MARGIN.top,
      w: width - MARGIN.left - MARGIN.right,
      h: height - MARGIN.top - MARGIN.bottom,
      width,
      height,
    };
  }

  cellAt(px, py) {
    const { x, y, w, h } = this.box;
    const rows = this.shown?.rows ?? 1;
    return [Math.floor(((px - x) / w) * ACROSS), rows - 1 - Math.floor(((py - y) / h) * rows)];
  }

  known(i, j) {
    return this.cells && i >= 0 && i < ACROSS && j >= 0 && j < this.shown.rows;
  }

  tell(i, j) {
    if (!this.known(i, j)) return;
    const steps = this.cells[j * ACROSS + i];
    const { axes, other } = this.shown;
    const end = steps === Infinity ? "diverges" : steps >= MOST ? `more than ${MOST} steps` : `${steps} steps`;
    this.canvas.title = `lr = ${shown(axes.rate(i))}${other ? `, ${other} = ${shown(axes.value(j))}` : ""}: ${end}`;
  }

  choose(i, j) {
    if (!this.known(i, j)) return;
    const { axes, other, id } = this.shown;
    const runner = this.world.runners.includes(id) ? id : this.world.runner;
    if (!runner) return;
    runner.settings.lr = +axes.rate(i).toPrecision(3);
    if (other) runner.settings[other] = +axes.value(j).toPrecision(3);
    runner.kept = true;
    this.cursor = j * ACROSS + i;
    runner.restart(this.world.surface);
    this.world.playing = true;
    this.world.changed("settings", "walk", "playing");
    say(this.canvas.title);
    this.draw();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!this.cells) return;
    const cursor = this.cursor ?? 0;
    const [i, j] = [cursor % ACROSS, Math.floor(cursor / ACROSS)];
    if (event.key in moves) {
      const [a, b] = moves[event.key];
      if (!this.known(i + a, j + b)) return;
      this.cursor = (j + b) * ACROSS + i + a;
      this.tell(i + a, j + b);
      say(this.canvas.title);
      this.draw();
    } else if (event.key === "Enter") this.choose(i, j);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  draw() {
    const { canvas } = this;
    const { x, y, w, h, width, height } = this.box;
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.fillStyle = colour("paper");
    context.fillRect(0, 0, width, height);
    if (!this.cells) return;
    const { axes, other, rows } = this.shown;
    for (let k = 0; k < this.cells.length; k++) {
      const steps = this.cells[k];
      if (Number.isNaN(steps)) continue;
      const share = Math.log(1 + Math.min(steps, MOST)) / Math.log(1 + MOST);
      context.fillStyle = steps === Infinity ? colour("diverged") : steps >= MOST ? colour("rule") : colour("quick");
      context.globalAlpha = steps < MOST ? 1 - 0.9 * share : 1;
      context.fillRect(
        x + (w * (k % ACROSS)) / ACROSS,
        y + h - (h * (Math.floor(k / ACROSS) + 1)) / rows,
        w / ACROSS + 0.5,
        h / rows + 0.5,
      );
    }
    context.globalAlpha = 1;
    this.drawTheory(context);
    context.strokeStyle = colour("ink");
    context.lineWidth = 1.5;
    if (this.cursor !== undefined)
      context.strokeRect(
        x + (w * (this.cursor % ACROSS)) / ACROSS,
        y + h - (h * (Math.floor(this.cursor / ACROSS) + 1)) / rows,
        w / ACROSS,
        h / rows,
      );
    context.fillStyle = colour("muted");
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "top";
    for (let k = Math.ceil(axes.least); k <= axes.most; k++)
      context.fillText(shown(10 ** k), x + ((k - axes.least) / (axes.most - axes.least)) * w, y + h + 5);
    context.fillText("learning rate", x + w / 2, y + h + 22);
    if (!other) return;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const share of [0.02, 0.25, 0.5, 0.75, 0.98])
      context.fillText(shown(axes.value(share * UP - 0.5)), x - 5, y + h - share * h);
  }

  // On a quadratic: where the rule becomes unstable for its largest curvature, from the rule's own step.
  drawTheory(context) {
    const { bends, form, at, rows, surface } = this.shown;
    if (!bends || !quadratic(surface)) return;
    const { x, y, w, h } = this.box;
    context.strokeStyle = colour("ink");
    context.lineWidth = 2;
    context.setLineDash([5, 4]);
    context.beginPath();
    let begun = false;
    for (let j = 0; j < rows; j++) {
      let [low, high] = [0, ACROSS];
      const stable = (i) => contraction(form, at(i - 0.5, j), bends[0]) <= 1 + 1e-9;
      if (contraction(form, at(0, j), bends[0]) === null) break;
      if (!stable(low) || stable(high)) continue;
      for (let k = 0; k < 20; k++) {
        const middle = (low + high) / 2;
        if (stable(middle)) low = middle;
        else high = middle;
      }
      for (const edge of rows === 1 ? [0, 1] : [0.5]) {
        const at = [x + (w * low) / ACROSS, y + h - (h * (j + edge)) / rows];
        if (begun) context.lineTo(...at);
        else context.moveTo(...at);
        begun = true;
      }
    }
    context.stroke();
    context.setLineDash([]);
  }
}

// Whether the curvature is the same everywhere.
function quadratic(surface) {
  const [left, right, low, high] = surface.window;
  const first = surface.curvature(left, low);
  return [
    [right, high],
    [(left + right) / 3, (low + high) / 5],
  ].every((place) => surface.curvature(...place).every((value, k) => Math.abs(value - first[k]) < 1e-9));
}
