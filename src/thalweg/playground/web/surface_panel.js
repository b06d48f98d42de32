// The surface: which, its window, where to start, noise; and the formula that somebody types.
import { byId, el } from "./dom.js";
import { TYPED, surfaceNames } from "./surface.js";

export class SurfacePanel {
  constructor(world) {
    this.world = world;
    byId("surface").append(
      ...[...surfaceNames, TYPED].map((name) =>
        el("option", { value: name }, name === TYPED ? "your own formula" : name.replaceAll("_", " ")),
      ),
    );
    byId("surface").addEventListener("change", (event) => {
      if (event.target.value === TYPED) this.typed();
      else {
        byId("formula-fault").textContent = "";
        world.setSurface(event.target.value);
      }
    });
    byId("formula-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.typed();
    });
    for (const [id, name] of [
      ["noise", "noise"],
      ["seed", "seed"],
    ]) {
      byId(id).addEventListener("change", (event) => {
        const x = Number(event.target.value);
        const allowed =
          Number.isFinite(x) &&
          x >= 0 &&
          x <= 1000 * (name === "seed" ? 1e6 : 1) &&
          (name === "noise" || Number.isInteger(x));
        event.target.setCustomValidity(allowed ? "" : "not allowed");
        if (allowed) world[name] = x;
        world.changed("settings", "walk");
      });
    }
    byId("together").addEventListener("change", (event) => (world.together = event.target.value === "all"));
    world.together = true;
    for (const id of ["start-x", "start-y"]) {
      byId(id).addEventListener("change", () => {
        const [x, y] = [Number(byId("start-x").value), Number(byId("start-y").value)];
        if (Number.isFinite(x) && Number.isFinite(y)) world.begin(x, y, world.together);
      });
    }
    for (const id of ["left", "right", "low", "high"])
      byId(`window-${id}`).addEventListener("change", () => this.framed());
  }

  framed() {
    const found = ["left", "right", "low", "high"].map((id) => Number(byId(`window-${id}`).value));
    if (!found.every(Number.isFinite) || found[0] >= found[1] || found[2] >= found[3]) return;
    if (this.world.surface.name === TYPED) this.typed(found);
    else {
      this.world.window = found;
      this.world.changed("ground");
    }
  }

  typed(window = null) {
    try {
      this.world.setSurface(TYPED, {
        text: byId("formula").value,
        window: window ?? (this.world.surface.name === TYPED ? this.world.window : null),
      });
      byId("formula-fault").textContent = "";
    } catch (error) {
      byId("formula-fault").textContent = error.message;
      byId("surface").value = this.world.surface.name;
    }
  }

  draw() {
    const { world } = this;
    const { surface } = world;
    const fill = (id, x) => {
      if (document.activeElement !== byId(id)) byId(id).value = x;
    };
    fill("surface", surface.name);
    if (surface.text !== undefined) fill("formula", surface.text);
    byId("surface-doc").textContent =
      surface.doc || (surface.minima.length ? "" : "It has no lowest point in this window, so nobody reaches it.");
    fill("noise", world.noise);
    fill("seed", world.seed);
    ["left", "right", "low", "high"].forEach((id, k) => fill(`window-${id}`, +world.window[k].toPrecision(4)));
    const start = world.runner?.start ?? surface.start;
    fill("start-x", +start[0].toPrecision(4));
    fill("start-y", +start[1].toPrecision(4));
  }
}
