// The lectures as a tour: stops are states of the playground with two sentences each.
import { TOUR } from "./printed.js";
import { byId } from "./dom.js";
import { restored } from "./state.js";

export class Tour {
  constructor(world, page) {
    Object.assign(this, { world, page });
    byId("tour-next").addEventListener("click", () => this.go(1));
    byId("tour-back").addEventListener("click", () => this.go(-1));
    byId("tour-start").addEventListener("click", () => this.visit(0));
    byId("tour-end").addEventListener("click", () => {
      world.stop = null;
      world.changed("look");
    });
    world.on("look runners", () => this.draw());
  }

  go(by) {
    this.visit(Math.min(Math.max((this.world.stop ?? -1) + by, 0), TOUR.length - 1));
  }

  visit(k) {
    restored(this.world, { ...TOUR[k].state, x: k, k: this.world.safe ? 1 : 0, v: this.world.views });
    this.world.playing = !this.page.still;
    this.world.changed("playing", "look");
    byId("tour-title").focus();
  }

  draw() {
    const { stop } = this.world;
    const touring = stop !== null && stop !== undefined && stop < TOUR.length;
    byId("tour").hidden = !touring;
    byId("tour-start").hidden = touring;
    if (!touring) return;
    byId("tour-title").textContent = `${stop + 1} of ${TOUR.length}: ${TOUR[stop].title}`;
    byId("tour-text").textContent = TOUR[stop].text;
    byId("tour-back").disabled = stop === 0;
    byId("tour-next").disabled = stop === TOUR.length - 1;
  }
}
