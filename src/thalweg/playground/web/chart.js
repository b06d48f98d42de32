// Loss curves: the height above the lowest point against steps, on a logarithmic scale.
import { colour, look } from "./palette.js";
import { shown } from "./numbers.js";
import { fitted } from "./signs.js";

const MARGIN = { left: 58, right: 12, top: 10, bottom: 30 };
const LEAST = 1e-12;

export class LossChart {
  constructor(canvas, world) {
    Object.assign(this, { canvas, world });
  }

  draw() {
    const { canvas } = this;
    const fit = fitted(canvas);
    if (!fit) return;
    const { width, height, ratio } = fit;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paint(context, width, height);
  }

  // The lowest known loss: of the surface or, if it has none, of all that the runners have seen.
  get floor() {
    const { surface, runners } = this.world;
    if (surface.lowest !== null) return surface.lowest;
    let least = Infinity;
    for (const { losses } of runners) for (const loss of losses) if (loss < least) least = loss;
    return least;
  }

  paint(context, width, height) {
    const { world, floor } = this;
    const most = Math.max(50, world.step);
    let [bottom, top] = [Infinity, -Infinity];
    const start = Math.max(...world.runners.map((runner) => runner.losses[0] - floor), LEAST);
    for (const { losses, hidden } of world.runners) {
      if (hidden) continue;
      for (const loss of losses) {
        const excess = loss - floor;
        if (excess > LEAST && excess < bottom) bottom = excess;
        if (excess > top && excess < 1e4 * start) top = excess;
      }
    }
    if (!(bottom < top)) [bottom, top] = [start / 10, start * 2];
    const x = libraries
      .scaleLinear()
      .domain([0, most])
      .range([MARGIN.left, width - MARGIN.right]);
    const y = libraries
      .scaleLog()
      .domain([bottom / 1.5, top * 1.5])
      .range([height - MARGIN.bottom, MARGIN.top]);
    context.fillStyle = colour("paper");
    context.fillRect(0, 0, width, height);
    context.font = "12px system-ui, sans-serif";
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const powers = [];
    for (let k = Math.ceil(Math.log10(bottom / 1.5)); k <= Math.log10(top * 1.5); k++) powers.push(k);
    const every = Math.ceil(powers.length / 6) || 1;
    const marks = powers.filter((k) => k % every === 0).map((k) => 10 ** k);
    for (const mark of marks.length > 1 ? marks : [bottom, top]) {
      context.strokeStyle = colour("rule");
      context.beginPath();
      context.moveTo(MARGIN.left, y(mark));
      context.lineTo(width - MARGIN.right, y(mark));
      context.stroke();
      context.fillStyle = colour("muted");
      context.fillText(shown(mark), MARGIN.left - 6, y(mark));
    }
    context.textBaseline = "top";
    context.textAlign = "center";
    for (const mark of x.ticks(6)) context.fillText(shown(mark), x(mark), height - MARGIN.bottom + 6);
    context.textAlign = "right";
    context.fillText("steps", width - MARGIN.right, height - 13);
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, MARGIN.top, width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom);
    context.clip();
    context.lineWidth = 2;
    context.lineJoin = "round";
    world.runners.forEach((runner, k) => {
      if (runner.hidden) return;
      const { colour: own, dash } = look(world, k);
      context.strokeStyle = own;
      context.setLineDash(dash);
      context.beginPath();
      // No more points than there are pixels.
      const skip = Math.max(1, Math.floor(runner.losses.length / (2 * width)));
      for (let i = 0; i < runner.losses.length; i += skip) {
        const excess = Math.min(Math.max(runner.losses[i] - floor, LEAST), 1e300) || LEAST;
        if (i) context.lineTo(x(i), y(excess));
        else context.moveTo(x(i), y(excess));
      }
      context.stroke();
      if (runner.arrived !== null) {
        context.fillStyle = own;
        context.beginPath();
        context.arc(x(runner.arrived), y(Math.max(runner.losses[runner.arrived] - floor, LEAST)), 4.5, 0, 2 * Math.PI);
        context.fill();
      }
    });
    context.setLineDash([]);
    context.restore();
  }
}
