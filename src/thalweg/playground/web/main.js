// The page: connects the views and controls to the world, and draws when something has changed.
import { START } from "./printed.js";
import { byId, checkbox, say } from "./dom.js";
import { LossChart } from "./chart.js";
import { ContourView } from "./contour.js";
import { Controls } from "./controls.js";
import { gif, png, svgFile, webm } from "./exports.js";
import { Lines } from "./lines.js";
import { clamp, normals, shown } from "./numbers.js";
import { readColours } from "./palette.js";
import { RateMap } from "./rates.js";
import { ReliefView } from "./relief.js";
import { formOf, meant, suggestedRate } from "./rules.js";
import { MOST_STEPS, walked } from "./runner.js";
import { contraction, largestRate } from "./stability.js";
import { read, restored, written } from "./state.js";
import { printedSurface, typedSurface } from "./surface.js";
import { SurfacePanel } from "./surface_panel.js";
import { Tour } from "./tour.js";
import { ARROWS, World } from "./world.js";

const PER_SECOND = 20; // steps at speed 1
const REMEMBER = 400; // milliseconds until a change is in the address

class Page {
  constructor() {
    this.world = new World();
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.contour = new ContourView(byId("contour"), this.world);
    try {
      this.relief = new ReliefView(byId("relief"), byId("relief-walks"), this.world);
    } catch {
      this.relief = null;
      byId("no-relief").hidden = false;
      byId("relief").hidden = true;
    }
    this.views = [this.relief, this.contour].filter(Boolean);
    this.chart = new LossChart(byId("losses"), this.world);
    this.rates = new RateMap(byId("rates"), this.world);
    this.lines = new Lines(this.world);
    this.controls = new Controls(this.world);
    this.tour = new Tour(this.world, this);
    this.owed = 0;
    this.frames = [];
    this.buttons();
    this.land = new SurfacePanel(this.world);
    this.keys();
    this.world.on("ground runners settings walk look camera playing", () => {
      this.dirty = true;
      this.remember();
    });
    this.world.on("ground walk look playing runners", () => (this.behind = true));
    this.world.on("ground", () => this.rates.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
    new ResizeObserver(() => (this.dirty = true)).observe(byId("stage"));
    new ResizeObserver(() => {
      this.dirty = true;
      this.rates.draw();
    }).observe(byId("panels"));
    addEventListener("hashchange", () => this.load());
    this.load();
    requestAnimationFrame((time) => this.tick(time));
  }

  load() {
    const given = read(location.hash);
    if (location.hash === this.own) return;
    const faults = restored(this.world, given ?? START, this.relief);
    byId("notice").textContent =
      location.hash.length > 1 && !given ? "The address has no state that can be read." : faults;
    this.world.playing = !given && !this.still;
    this.world.changed("playing");
  }

  // The address follows a little later, so that dragging does not fill the history.
  remember() {
    clearTimeout(this.reminder);
    this.reminder = setTimeout(() => {
      this.own = written(this.world, this.relief);
      try {
        history.replaceState(null, "", this.own);
      } catch {
        // A page inside another, as in a notebook, has no address of its own.
      }
    }, REMEMBER);
  }

  tick(time) {
    const { world } = this;
    if (world.playing) {
      this.owed += Math.min((time - (this.last ?? time)) / 1000, 0.25) * PER_SECOND * world.speed;
      const steps = Math.min(Math.floor(this.owed), 50);
      this.owed -= steps;
      let moved = steps === 0;
      for (let k = 0; k < steps; k++) moved = world.advance() || moved;
      if (steps) world.changed("walk");
      if (!moved || world.step >= MOST_STEPS) {
        world.playing = false;
        world.changed("playing");
      }
      this.frames.push(time);
      if (this.frames.length > 120) this.frames.shift();
    }
    this.last = time;
    if (this.dirty) {
      this.dirty = false;
      this.draw();
    }
    requestAnimationFrame((next) => this.tick(next));
  }

  // Frames in a second, of those drawn while playing.
  get rate() {
    const count = this.frames.length - 1;
    return count > 0 ? (1000 * count) / (this.frames.at(-1) - this.frames[0]) : 0;
  }

  draw() {
    const { world } = this;
    byId("stage").dataset.views = this.relief ? world.views : "contour";
    for (const view of this.views) if (view.canvas.clientWidth) view.draw();
    if (byId("losses-panel").open) this.chart.draw();
    this.controls.draw();
    this.lines.draw();
    if (!this.behind) return;
    this.behind = false;
    byId("now").textContent = `step ${world.step}`;
    byId("play").textContent = world.playing ? "Pause" : "Play";
    byId("speed").value = Math.log10(world.speed);
    byId("speed-now").textContent = `${shown(world.speed)}×`;
    byId("trails").checked = world.trails;
    byId("safe").checked = world.safe;
    for (const name of ARROWS) byId(`arrow-${name}`).checked = world.arrows.has(name);
    for (const name of ["both", "relief", "contour"])
      byId(`views-${name}`).setAttribute("aria-pressed", String(world.views === name));
    this.land.draw();
  }

  recolour() {
    readColours();
    for (const view of this.views) view.recoloured();
    this.rates.draw();
    this.world.changed("look");
  }

  buttons() {
    const { world } = this;
    const does = {
      play: () => this.play(),
      step: () => this.move(() => world.advance()),
      back: () => this.move(() => world.back()),
      restart: () => this.move(() => world.restart()),
      png: () => png(this),
      svg: () => svgFile(this),
      webm: () => webm(this),
      gif: () => gif(this),
      link: () => this.copy(),
      home: () => {
        world.window = [...world.surface.window];
        world.changed("ground");
      },
    };
    for (const [id, act] of Object.entries(does)) byId(id).addEventListener("click", act);
    for (const name of ["both", "relief", "contour"]) {
      byId(`views-${name}`).addEventListener("click", () => {
        world.views = name;
        world.changed("look");
      });
    }
    byId("speed").addEventListener("input", (event) => {
      world.speed = +(10 ** event.target.value).toPrecision(2);
      world.changed("look");
    });
    const toggle = (id, act) =>
      byId(id).addEventListener("change", (event) => {
        act(event.target.checked);
        world.changed("look");
      });
    toggle("trails", (on) => (world.trails = on));
    toggle("safe", (on) => (world.safe = on));
    const words = {
      gradient: "gradient",
      momentum: "momentum",
      squares: "√ sum of squares",
      step: "step",
      adjusted: "adjusted gradient",
    };
    byId("arrows").append(
      ...ARROWS.map((name) =>
        checkbox(
          words[name],
          true,
          (on) => {
            if (on) world.arrows.add(name);
            else world.arrows.delete(name);
            world.changed("look");
          },
          { id: `arrow-${name}`, class: `arrow-${name}` },
        ),
      ),
    );
    for (const id of ["losses-panel", "steps", "rates-panel"]) {
      byId(id).addEventListener("toggle", () => {
        this.lines.stale = true;
        this.rates.draw();
        this.dirty = true;
      });
    }
  }

  play() {
    const { world } = this;
    world.playing = !world.playing;
    this.owed = 0;
    this.frames = [];
    world.lit = null;
    world.changed("playing", "walk");
    say(world.playing ? "playing" : `paused at step ${world.step}`);
  }

  move(act) {
    this.world.playing = false;
    this.world.lit = null;
    act();
    this.world.changed("walk", "playing");
    say(`step ${this.world.step}`);
  }

  async copy() {
    this.own = written(this.world, this.relief);
    const address = location.href.split("#")[0] + this.own;
    try {
      await navigator.clipboard.writeText(address);
      byId("export-said").textContent = "The address is copied.";
    } catch {
      byId("export-said").textContent = "Copy it from the address bar.";
    }
  }

  // Space plays, full stop and comma step, R restarts: unless something else is to have the key.
  keys() {
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName))
        return;
      if (event.key === " " && /^(BUTTON|SUMMARY)$/.test(event.target.tagName)) return;
      const { world } = this;
      const acts = {
        " ": () => this.play(),
        ".": () => this.move(() => world.advance()),
        ",": () => this.move(() => world.back()),
        r: () => this.move(() => world.restart()),
        l: () => this.lines.forward(),
      };
      const number = clamp(+event.key - 1, -1, world.runners.length);
      if (event.key in acts) acts[event.key]();
      else if (event.key >= "1" && event.key <= "9" && world.runners[number]) {
        world.selected = number;
        world.changed("look", "walk");
      } else return;
      event.preventDefault();
    });
  }
}

// For scripts: the page itself, and what it computes with.
globalThis.thalweg = {
  page: new Page(),
  contraction,
  formOf,
  largestRate,
  meant,
  normals,
  printedSurface,
  restored,
  suggestedRate,
  typedSurface,
  walked,
};
document.documentElement.dataset.ready = "yes";
