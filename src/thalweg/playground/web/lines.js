// Step by step: the formula of the selected rule, line by line, with the numbers of the next step.
import { byId, el, say } from "./dom.js";
import { shown } from "./numbers.js";

const written = (value) => (Array.isArray(value) ? `(${value.map(shown).join(", ")})` : shown(value));

export class Lines {
  constructor(world) {
    this.world = world;
    this.line = null;
    byId("line-next").addEventListener("click", () => this.forward());
    byId("line-back").addEventListener("click", () => this.move(-1));
    world.on("walk runners settings", () => (this.stale = true));
  }

  // To the next line; after the last, the step is taken.
  forward() {
    const { runner } = this.world;
    if (!runner) return;
    if (this.line !== null && this.line >= runner.form.lines.length - 1) {
      this.line = null;
      this.world.lit = null;
      this.world.advance();
      this.world.changed("walk");
      say(`step ${this.world.step} taken`);
    } else this.move(1);
  }

  move(by) {
    const { runner } = this.world;
    if (!runner) return;
    const last = runner.form.lines.length - 1;
    this.line = Math.min(Math.max((this.line ?? (by > 0 ? -1 : last + 1)) + by, 0), last);
    this.world.lit = runner.form.fields[this.line] || null;
    this.world.playing = false;
    this.world.changed("look", "playing");
    this.stale = true;
    const [left, right] = runner.form.lines[this.line];
    say(`${left} = ${right} = ${written(this.values[this.line])}`);
  }

  draw() {
    if (!this.stale || !byId("steps").open) return;
    this.stale = false;
    const { world } = this;
    const { runner } = world;
    const list = byId("lines");
    list.replaceChildren();
    byId("lines-of").textContent = runner ? `${runner.name}, step ${runner.taken + 1}` : "no rule";
    if (!runner) return;
    if (world.lit === null) this.line = null;
    const seen = [];
    const { gradient, p, h, at } = runner.tried(world.surface, world.noise, world.seed, seen);
    // A lookahead method's first line says where the gradient is taken; the form does not compute it.
    if (runner.form.ahead) seen.unshift(gradient);
    this.values = seen;
    const known = [
      `θₜ₋₁ = ${written(p)}`,
      `${runner.form.ahead ? `∇f at ${written(at)}` : "gₜ = ∇f(θₜ₋₁)"}${world.noise > 0 ? " with noise" : ""} = ${written(gradient)}`,
      `t = ${runner.taken - runner.from + 1}`,
    ];
    const settings = runner.form.numbers.map((name, k) => `${runner.symbol(name)} = ${shown(h[k])}`);
    byId("lines-given").textContent = [...known, ...settings].join("   ");
    runner.form.lines.forEach(([left, right], k) => {
      const field = runner.form.fields[k];
      const item = el(
        "li",
        {
          class: k === this.line ? "lit" : "",
          "data-field": field,
          onmouseenter: () => this.hover(field),
          onmouseleave: () => this.hover(null),
        },
        el("b", {}, left),
        ` = ${right}`,
        el("span", { class: "value" }, `= ${seen[k] === undefined ? "–" : written(seen[k])}`),
      );
      list.append(item);
    });
  }

  hover(field) {
    const fields = this.world.runner?.form.fields ?? [];
    this.world.lit = field || (this.line === null ? null : fields[this.line] || null);
    this.world.changed("look");
  }
}
