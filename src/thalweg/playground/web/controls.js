// The runners' cards: settings, options, schedules, and what has become of each.
import { LEFT_OUT, SCHEDULES } from "./printed.js";
import { button, byId, checkbox, el, select } from "./dom.js";
import { look } from "./palette.js";
import { clamp, shown } from "./numbers.js";
import { families, formOf, ruleNames } from "./rules.js";
import { BATCHES } from "./runner.js";
import { permitted } from "./state.js";
import { documented, limitOf, MOST_RUNNERS, outcome } from "./world.js";

const FINE = 1000;

// How a setting lies on its slider, from 0 to 1, and back.
function scaleOf({ low, high, highOpen, search, value }) {
  if (high === 1 && highOpen && (low ?? 0) === 0) {
    // Close to 1 is where a decay matters: 0, 0.9, 0.99, 0.999 at equal distances.
    return {
      to: (x) => clamp(-Math.log10(1 - Math.min(x, 1 - 1e-9)) / 4, 0, 1),
      from: (u) => (u <= 0 ? 0 : +(1 - 10 ** (-4 * u)).toFixed(5)),
    };
  }
  if (high !== null && low !== null)
    return { to: (x) => (x - low) / (high - low), from: (u) => +(low + u * (high - low)).toPrecision(3) };
  if (low !== null && low >= 0) {
    const least = Math.log10(search ? search[0] / 100 : Math.min(value || 1e-3, 1) / 1e4);
    const most = Math.log10(search ? search[1] * 10 : Math.max(value || 1, 1e-2) * 1e3);
    return {
      to: (x) => (x > 0 ? clamp((Math.log10(x) - least) / (most - least), 0, 1) : 0),
      from: (u) => (u <= 0 && low === 0 ? 0 : +(10 ** (least + u * (most - least))).toPrecision(3)),
    };
  }
  const width = Math.max(1, 4 * Math.abs(value));
  return { to: (x) => clamp((x / width + 1) / 2, 0, 1), from: (u) => +((2 * u - 1) * width).toPrecision(3) };
}

export class Controls {
  constructor(world) {
    this.world = world;
    this.cards = [];
    this.opened = new WeakSet();
    byId("add").append(...ruleNames.map((name) => el("option", { value: name }, name)));
    byId("add").addEventListener("change", (event) => this.describe(event.target.value));
    byId("add-button").addEventListener("click", () => {
      if (world.add({ rule: byId("add").value })) {
        world.selected = world.runners.length - 1;
        world.changed("runners", "walk");
      }
    });
    byId("left-out").append(
      ...Object.entries(LEFT_OUT).map(([name, why]) => el("li", {}, el("b", {}, name), `: ${why}`)),
    );
    this.describe(byId("add").value);
    world.on("runners", () => this.build());
    world.on("walk settings", () => (this.stale = true));
    world.on("look", () => (this.stale = true));
  }

  describe(name) {
    const { doc, source } = documented(name);
    byId("add-doc").textContent = `${doc} ${source}`;
  }

  build() {
    const { world } = this;
    this.cards = world.runners.map((runner, k) => this.card(runner, k));
    byId("runners").replaceChildren(...this.cards.map((card) => card.root));
    byId("add-button").disabled = world.runners.length >= MOST_RUNNERS;
    this.stale = true;
  }

  card(runner, k) {
    const { world } = this;
    const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
    const title = button(
      runner.name,
      `select ${runner.name}`,
      () => {
        world.selected = k;
        world.changed("look", "walk");
      },
      { class: "name" },
    );
    const status = el("p", { class: "status" });
    const settings = Object.keys(families.get(runner.family).settings).filter((name) =>
      runner.firstForm.numbers.includes(name),
    );
    const rows = settings.map((name) => this.setting(runner, name));
    const options = Object.entries(families.get(runner.family).options).map(([name, option]) =>
      this.option(runner, name, option),
    );
    const shownBox = checkbox("shown", !runner.hidden, (on) => {
      runner.hidden = !on;
      world.changed("look", "walk");
    });
    const batches = select(
      `samples of a gradient of ${runner.name}`,
      BATCHES.map((m) => [
        String(m),
        m === 0 ? "exact gradient" : m === 1 ? "noise of 1 sample" : `noise of ${m} samples`,
      ]),
      String(runner.batch),
      (m) => {
        runner.batch = +m;
        world.changed("settings", "walk");
      },
      { class: "batch" },
    );
    const panel = el(
      "details",
      {
        open: this.opened.has(runner),
        ontoggle: (event) => {
          if (event.target.open) this.opened.add(runner);
          else this.opened.delete(runner);
          this.world.changed("look");
        },
      },
      el("summary", {}, "settings"),
      ...rows.map((row) => row.root),
      ...options,
      runner.then
        ? el(
            "p",
            { class: "small" },
            `then ${runner.then.name} with η = ${shown(runner.then.settings.lr)} from step ${runner.then.at} on`,
          )
        : null,
    );
    const root = el(
      "li",
      { class: "card", "data-runner": k },
      el(
        "div",
        { class: "head" },
        swatch,
        title,
        button("copy", `duplicate ${runner.name}`, () => world.duplicate(k)),
        button("remove", `remove ${runner.name}`, () => world.remove(k)),
      ),
      status,
      el("div", { class: "row small" }, shownBox, batches),
      panel,
    );
    return { root, runner, swatch, title, status, rows };
  }

  setting(runner, name) {
    const { world } = this;
    const setting = families.get(runner.family).settings[name];
    const scale = scaleOf(setting);
    const slider = el("input", {
      type: "range",
      min: 0,
      max: FINE,
      step: 1,
      "aria-label": `${name} of ${runner.name}`,
      "data-setting": name,
    });
    const exact = el("input", {
      type: "text",
      inputmode: "decimal",
      size: 7,
      "aria-label": `${name} of ${runner.name}, exactly`,
    });
    const limit = name === "lr" ? el("span", { class: "limit" }) : null;
    const set = (x, from) => {
      const allowed = permitted(runner.family, name, x);
      exact.setCustomValidity(allowed ? "" : "not allowed");
      exact.classList.toggle("wrong", !allowed);
      if (!allowed) return;
      runner.settings[name] = x;
      if (name === "lr") runner.kept = true;
      update(from);
      world.changed("settings");
    };
    const update = (from = null) => {
      const x = runner.settings[name];
      if (from !== slider) slider.value = Math.round(FINE * scale.to(x));
      if (from !== exact && document.activeElement !== exact) exact.value = String(x);
      slider.setAttribute("aria-valuetext", shown(x));
      if (limit) limit.textContent = said(runner, world);
    };
    slider.addEventListener("input", () => set(scale.from(slider.value / FINE), slider));
    exact.addEventListener("change", () => set(Number(exact.value.replace("−", "-").replace(",", ".")), exact));
    const absolute = (text) => SCHEDULES[text].absolute;
    const fitting = Object.keys(SCHEDULES).filter((text) => absolute(text) === (name !== "lr"));
    const schedules =
      name === "lr" || (setting.high === 1 && setting.highOpen)
        ? select(
            `schedule of ${name} of ${runner.name}`,
            [["", "constant"], ...fitting.map((text) => [text, text])],
            runner.schedules[name] ?? "",
            (text) => {
              runner.schedules = { ...runner.schedules, [name]: text };
              world.changed("settings");
            },
            { class: "schedule" },
          )
        : null;
    const root = el(
      "div",
      { class: "setting" },
      el("label", {}, el("i", {}, setting.symbol), ` ${name}`),
      slider,
      exact,
      schedules,
      limit,
    );
    return { root, update };
  }

  option(runner, name, option) {
    const { world } = this;
    const choices = option.values.map((value, k) => [
      String(k),
      value,
      !formOf(runner.family, { ...runner.options, [name]: k }),
    ]);
    return el(
      "div",
      { class: "setting" },
      el("label", {}, name),
      select(`${name} of ${runner.name}`, choices, String(runner.options[name]), (k) => {
        runner.reform({ ...runner.options, [name]: +k });
        world.changed("runners", "walk", "settings");
      }),
    );
  }

  draw() {
    if (!this.stale) return;
    this.stale = false;
    const { world } = this;
    this.cards.forEach(({ root, runner, swatch, title, status, rows }, k) => {
      const { colour, mark } = look(world, k);
      swatch.style.setProperty("background", colour);
      swatch.dataset.mark = mark;
      root.classList.toggle("noisy", world.noise > 0);
      root.classList.toggle("selected", k === world.selected);
      title.setAttribute("aria-pressed", String(k === world.selected));
      const { kind, text } = outcome(runner, world);
      if (status.textContent !== text) status.textContent = text;
      status.className = `status ${kind}`;
      if (this.opened.has(runner)) for (const row of rows) row.update();
    });
  }
}

// The largest stable rate where the runner is, for beside its slider.
function said(runner, world) {
  const { rate, bend } = limitOf(runner, world.surface);
  if (!Number.isFinite(bend)) return "";
  if (rate === null)
    return runner.form.numbers.includes("lr") ? "rescales gradients, or looks itself: curvature sets no limit" : "";
  if (rate === 0) return "here the surface curves downwards only: every rate moves away";
  const now = runner.numbers[runner.form.numbers.indexOf("lr")];
  return `${now > rate ? "⚠ above" : "stable up to"} ${shown(rate)} for the curvature ${shown(bend)} here`;
}
