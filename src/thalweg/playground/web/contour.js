// The surface from above: contours, trails, balls and arrows.  Drawn on a canvas, or as SVG for export.
import { Ground } from "./ground.js";
import { colour, look, shade } from "./palette.js";
import { shown } from "./numbers.js";
import { listenToContour } from "./contour_input.js";
import { arrowLength, drawBall, fitted, SIGN_COLOURS, traced } from "./signs.js";
import { signs } from "./world.js";

const GRID = 129;
const MARGIN = { left: 46, right: 12, top: 12, bottom: 32 };

export class ContourView {
  constructor(canvas, world) {
    Object.assign(this, { canvas, world, cursor: null });
    this.ground = null;
    world.on("ground", () => {
      this.ground = null;
      this.backdrop = null;
    });
    listenToContour(this);
  }

  recoloured() {
    this.backdrop = null;
  }

  // The rectangle of the picture, at equal scales where the window is not too long: steepest descent then crosses
  // contours at right angles.
  plot(width, height) {
    const [left, right, low, high] = this.world.window;
    let w = Math.max(width - MARGIN.left - MARGIN.right, 10);
    let h = Math.max(height - MARGIN.top - MARGIN.bottom, 10);
    const aspect = (right - left) / (high - low);
    if (aspect >= 0.4 && aspect <= 2.6) [w, h] = [Math.min(w, h * aspect), Math.min(h, w / aspect)];
    const x = MARGIN.left + (width - MARGIN.left - MARGIN.right - w) / 2;
    const y = MARGIN.top + (height - MARGIN.top - MARGIN.bottom - h) / 2;
    return { x, y, w, h };
  }

  project([x, y], { x: px, y: py, w, h }) {
    const [left, right, low, high] = this.world.window;
    return [px + ((x - left) / (right - left)) * w, py + ((high - y) / (high - low)) * h];
  }

  unproject(px, py) {
    const { x, y, w, h } = this.plot(this.canvas.clientWidth, this.canvas.clientHeight);
    const [left, right, low, high] = this.world.window;
    return [left + ((px - x) / w) * (right - left), high - ((py - y) / h) * (high - low)];
  }

  draw() {
    const { canvas } = this;
    const fit = fitted(canvas);
    if (!fit) return;
    const { width, height, ratio } = fit;
    if (fit.changed) this.backdrop = null;
    if (!this.backdrop) {
      this.backdrop = document.createElement("canvas");
      [this.backdrop.width, this.backdrop.height] = [canvas.width, canvas.height];
      const context = this.backdrop.getContext("2d");
      context.scale(ratio, ratio);
      this.drawGround(context, width, height);
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.backdrop, 0, 0);
    context.scale(ratio, ratio);
    this.drawWalks(context, width, height);
  }

  drawGround(context, width, height) {
    const { world } = this;
    const plot = this.plot(width, height);
    this.ground ??= new Ground(world.surface, world.window, GRID);
    context.fillStyle = colour("paper");
    context.fillRect(0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(plot.x, plot.y, plot.w, plot.h);
    context.clip();
    context.fillStyle = shade(0);
    context.fillRect(plot.x, plot.y, plot.w, plot.h);
    context.strokeStyle = colour("contour");
    context.lineWidth = 0.7;
    for (const { level, rings } of this.ground.contours()) {
      context.beginPath();
      for (const ring of rings) {
        traced(
          context,
          ring.map((point) => this.project(point, plot)),
        );
        context.closePath();
      }
      context.fillStyle = shade(level);
      context.fill("evenodd");
      context.stroke();
    }
    context.restore();
    this.drawAxes(context, plot);
    context.fillStyle = colour("ink");
    for (const minimum of world.surface.minima) {
      if (!world.inside(...minimum)) continue;
      const [x, y] = this.project(minimum, plot);
      context.beginPath();
      const star = Array.from({ length: 10 }, (_, k) => {
        const r = k % 2 ? 2.6 : 6;
        const angle = -Math.PI / 2 + (k * Math.PI) / 5;
        return [x + r * Math.cos(angle), y + r * Math.sin(angle)];
      });
      traced(context, star);
      context.closePath();
      context.fill();
    }
  }

  drawAxes(context, plot) {
    const [left, right, low, high] = this.world.window;
    context.fillStyle = colour("muted");
    context.strokeStyle = colour("rule");
    context.lineWidth = 1;
    context.font = "12px system-ui, sans-serif";
    context.strokeRect(plot.x, plot.y, plot.w, plot.h);
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const x of libraries
      .scaleLinear()
      .domain([left, right])
      .ticks(Math.max(2, plot.w / 80))) {
      const [px] = this.project([x, low], plot);
      context.fillText(shown(x), px, plot.y + plot.h + 6);
    }
    context.fillText("x", plot.x + plot.w - 4, plot.y + plot.h + 18);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const y of libraries
      .scaleLinear()
      .domain([low, high])
      .ticks(Math.max(2, plot.h / 60))) {
      const [, py] = this.project([left, y], plot);
      context.fillText(shown(y), plot.x - 6, py);
    }
    context.fillText("y", plot.x - 28, plot.y + 6);
  }

  drawWalks(context, width, height) {
    const { world } = this;
    const plot = this.plot(width, height);
    context.save();
    context.beginPath();
    context.rect(plot.x, plot.y, plot.w, plot.h);
    context.clip();
    context.lineJoin = context.lineCap = "round";
    if (world.trails)
      world.runners.forEach((runner, k) => !runner.hidden && this.drawTrail(context, plot, runner, look(world, k)));
    if (world.runner && !world.runner.hidden) this.drawSigns(context, plot, world.runner);
    world.runners.forEach((runner, k) => {
      const [x, y] = this.project(runner.point, plot);
      if (!runner.hidden && Math.abs(x) < 1e6 && Math.abs(y) < 1e6)
        drawBall(context, look(world, k), x, y, k === world.selected);
    });
    if (world.pointer) this.drawCross(context, this.project(world.pointer, plot), colour("muted"));
    if (this.cursor) this.drawCross(context, this.project(this.cursor, plot), colour("ink"));
    context.restore();
  }

  drawTrail(context, plot, runner, { colour: own, dash }) {
    context.strokeStyle = own;
    context.lineWidth = 2.2;
    context.setLineDash(dash);
    context.beginPath();
    let broken = true;
    for (let k = 0; k < runner.xs.length; k++) {
      const [x, y] = this.project([runner.xs[k], runner.ys[k]], plot);
      // Far outside there is nothing to see, and canvases draw strangely there.
      if (!(Math.abs(x) < 2e4 && Math.abs(y) < 2e4)) {
        broken = true;
        continue;
      }
      if (broken) context.moveTo(x, y);
      else context.lineTo(x, y);
      broken = false;
    }
    context.stroke();
    context.setLineDash([]);
  }

  drawSigns(context, plot, runner) {
    const { world } = this;
    for (const sign of signs(runner, world)) {
      const lit = !world.lit || world.lit === sign.field;
      context.globalAlpha = lit ? 1 : 0.25;
      context.strokeStyle = context.fillStyle = colour(SIGN_COLOURS[sign.kind]);
      context.lineWidth = world.lit === sign.field ? 4 : 2;
      const from = this.project(sign.from, plot);
      if (sign.sides) {
        const [a, b] = sign.sides.map((size) => arrowLength(size));
        context.strokeRect(from[0] - a / 2, from[1] - b / 2, a, b);
        continue;
      }
      const tip = this.project([sign.from[0] + sign.vector[0], sign.from[1] + sign.vector[1]], plot);
      const length = Math.hypot(tip[0] - from[0], tip[1] - from[1]);
      if (!(length > 0)) continue;
      const drawn = sign.exact ? length : arrowLength(Math.hypot(...sign.vector));
      if (drawn < 1 || drawn > 1e5) continue;
      arrow(context, from, [
        from[0] + ((tip[0] - from[0]) * drawn) / length,
        from[1] + ((tip[1] - from[1]) * drawn) / length,
      ]);
    }
    context.globalAlpha = 1;
  }

  drawCross(context, [x, y], own) {
    context.strokeStyle = own;
    context.lineWidth = 1.2;
    context.beginPath();
    for (const [a, b] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ]) {
      context.moveTo(x + 3 * a, y + 3 * b);
      context.lineTo(x + 9 * a, y + 9 * b);
    }
    context.stroke();
  }
}

function arrow(context, [x, y], [u, v]) {
  const length = Math.hypot(u - x, v - y);
  const head = Math.min(9, 0.6 * length);
  const [a, b] = [(u - x) / length, (v - y) / length];
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(u - a * head, v - b * head);
  context.stroke();
  context.beginPath();
  context.moveTo(u, v);
  context.lineTo(u - a * head - b * head * 0.5, v - b * head + a * head * 0.5);
  context.lineTo(u - a * head + b * head * 0.5, v - b * head - a * head * 0.5);
  context.closePath();
  context.fill();
}
