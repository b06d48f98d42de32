// What moves on the surface in three dimensions: trails, balls and arrows.  They are painted on a canvas of their own
// over the picture of the surface, which is rendered again only when it is turned: without a graphics card a frame of
// WebGL takes a tenth of a second, and a frame of this one a few milliseconds.
import { arrowLength, drawBall, fitted, SIGN_COLOURS } from "./signs.js";
import { colour, look } from "./palette.js";
import { signs } from "./world.js";

export const TALL = 0.75; // the scene's height
export const MOST_PIXELS = 1.5; // for a point of the picture's size
const BEHIND = 0.22; // opacity of what the surface hides
const STRIDE = 0.03; // of the search for what hides a point, in units of the scene
const CLEAR = 0.005; // by so much something must stand above a line of sight to hide a point
const PIXELS = 260; // of an arrow's length in a unit of the scene
const NEAR = 0.7; // points of a trail that are closer than this, in pixels, are one

export class ReliefWalks {
  constructor(canvas, relief) {
    Object.assign(this, { canvas, relief, trails: new WeakMap() });
  }

  draw() {
    const { canvas, relief } = this;
    const { world } = relief;
    const { width, height, ratio } = fitted(canvas, MOST_PIXELS);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.lineJoin = context.lineCap = "round";
    this.size = [width, height];
    this.matrix = relief.camera.projectionMatrix.clone().multiply(relief.camera.matrixWorldInverse).elements;
    this.eye = relief.camera.position.toArray();
    if (world.trails) world.runners.forEach((runner, k) => runner.hidden || this.drawTrail(context, runner, look(world, k)));
    if (world.pointer) this.drawPointer(context);
    if (world.runner && !world.runner.hidden) this.drawSigns(context, world.runner);
    world.runners.forEach((runner, k) => {
      if (runner.hidden || !world.inside(...runner.point)) return;
      const at = relief.on(...runner.point);
      context.globalAlpha = this.seen(at) ? 1 : 2 * BEHIND;
      drawBall(context, look(world, k), ...this.projected(at), k === world.selected);
    });
    context.globalAlpha = 1;
  }

  // Where a point of the scene is in the picture, in pixels.
  projected([x, y, z]) {
    const m = this.matrix;
    const w = m[3] * x + m[7] * y + m[11] * z + m[15];
    const [width, height] = this.size;
    return [
      ((m[0] * x + m[4] * y + m[8] * z + m[12]) / w + 1) * (width / 2),
      (1 - (m[1] * x + m[5] * y + m[9] * z + m[13]) / w) * (height / 2),
    ];
  }

  // Whether nothing of the surface stands between a point and the eye.
  seen([x, y, z]) {
    const { relief, eye } = this;
    const away = [eye[0] - x, eye[1] - y, eye[2] - z];
    const length = Math.hypot(...away) || 1;
    const [a, b, c] = away.map((part) => (STRIDE * part) / length);
    for (let k = 2; k * STRIDE < length; k++) {
      const height = y + k * b;
      if (height > TALL) return true;
      const ground = relief.heightAt(x + k * a, z + k * c);
      if (ground === null) return true;
      if (ground > height + CLEAR) return false;
    }
    return true;
  }

  // The points of a trail in the picture: what was known of the same picture is kept, so a step adds only its own.
  points(runner) {
    const { relief } = this;
    let known = this.trails.get(runner);
    const { xs, ys } = runner;
    if (!known || known.picture !== relief.picture || known.xs !== xs || known.count > xs.length) {
      known = { picture: relief.picture, xs, count: 0, pieces: [], last: null };
      this.trails.set(runner, known);
    }
    for (; known.count < xs.length; known.count++) {
      const [x, y] = [xs[known.count], ys[known.count]];
      if (!relief.world.inside(x, y)) {
        known.last = null;
        continue;
      }
      const at = relief.on(x, y);
      const [px, py] = this.projected(at);
      const { last } = known;
      if (last && Math.hypot(px - last.at(-2), py - last.at(-1)) < NEAR) continue;
      const seen = this.seen(at);
      if (last && last.seen === seen) last.push(px, py);
      else {
        // A piece begins where the one before ends.
        const piece = last ? [last.at(-2), last.at(-1), px, py] : [px, py];
        piece.seen = seen;
        known.pieces.push(piece);
        known.last = piece;
      }
    }
    return known.pieces;
  }

  drawTrail(context, runner, { colour: own, dash }) {
    const pieces = this.points(runner);
    context.strokeStyle = own;
    context.lineWidth = 2.6;
    context.setLineDash(dash);
    for (const seen of [false, true]) {
      context.globalAlpha = seen ? 1 : BEHIND;
      context.beginPath();
      for (const piece of pieces) {
        if (piece.seen !== seen) continue;
        context.moveTo(piece[0], piece[1]);
        for (let k = 2; k < piece.length; k += 2) context.lineTo(piece[k], piece[k + 1]);
      }
      context.stroke();
    }
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  // A line through points of the scene.
  line(context, points, own, width) {
    context.strokeStyle = own;
    context.lineWidth = width;
    context.beginPath();
    for (const point of points) context.lineTo(...this.projected(point));
    context.stroke();
  }

  drawPointer(context) {
    const { relief } = this;
    const { pointer, window } = relief.world;
    const r = 0.012 * (window[1] - window[0]);
    const around = Array.from({ length: 13 }, (_, k) =>
      relief.on(pointer[0] + r * Math.cos((k * Math.PI) / 6), pointer[1] + r * Math.sin((k * Math.PI) / 6)),
    );
    this.line(context, around, colour("ink"), 1.5);
  }

  // Arrows lie on the surface.
  drawSigns(context, runner) {
    const { relief } = this;
    const { world } = relief;
    for (const sign of signs(runner, world)) {
      if (!world.inside(...sign.from)) continue;
      const own = colour(SIGN_COLOURS[sign.kind]);
      const lit = world.lit === sign.field;
      context.globalAlpha = lit || !world.lit ? 1 : 0.3;
      const from = relief.placed(...sign.from, 0);
      const along = (a, b) => relief.on(sign.from[0] + a, sign.from[1] + b);
      if (sign.sides) {
        const unit = relief.unit();
        const [a, b] = sign.sides.map((size, k) => (arrowLength(size) / PIXELS / 2) * unit[k]);
        this.line(context, [along(-a, -b), along(a, -b), along(a, b), along(-a, b), along(-a, -b)], own, lit ? 4 : 2);
        continue;
      }
      const tip = relief.placed(sign.from[0] + sign.vector[0], sign.from[1] + sign.vector[1], 0);
      const length = Math.hypot(tip[0] - from[0], tip[2] - from[2]);
      if (!(length > 0)) continue;
      const share = sign.exact ? 1 : arrowLength(Math.hypot(...sign.vector)) / PIXELS / length;
      const points = [];
      for (let k = 0; k <= 10; k++) {
        const at = [(sign.vector[0] * share * k) / 10, (sign.vector[1] * share * k) / 10];
        if (!world.inside(sign.from[0] + at[0], sign.from[1] + at[1])) break;
        points.push(along(...at));
      }
      this.line(context, points, own, lit ? 5 : 2.5);
      if (points.length > 10) this.line(context, barb(points.at(-2), points.at(-1)), own, lit ? 5 : 2.5);
    }
    context.globalAlpha = 1;
  }
}

// The two short lines of an arrow's head.
function barb(before, tip) {
  const [a, b] = [tip[0] - before[0], tip[2] - before[2]];
  const length = Math.hypot(a, b) || 1;
  const [u, v] = [(0.035 * a) / length, (0.035 * b) / length];
  const side = (s) => [tip[0] - u + s * 0.6 * v, tip[1], tip[2] - v - s * 0.6 * u];
  return [side(1), tip, side(-1)];
}
