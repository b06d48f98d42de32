// Surfaces: those printed from Python, and those that somebody typed.
import { SURFACES } from "./printed.js";
import { understood } from "./expression.js";

export const TYPED = "formula";

class Surface {
  constructor(name, data, functions) {
    Object.assign(this, data, { name });
    this.height = (x, y) => functions.height(x, y)[0];
    this.slope = functions.slope;
    this.curvature = functions.curvature;
    this.lowest = this.minima.length ? Math.min(...this.minima.map(([x, y]) => this.height(x, y))) : null;
  }

  // The largest curvature at a point, in magnitude of either sign, and the smallest.
  bends(x, y) {
    const [a, b, c] = this.curvature(x, y);
    const [middle, spread] = [(a + c) / 2, Math.hypot((a - c) / 2, b)];
    return [middle + spread, middle - spread];
  }
}

export const surfaceNames = Object.keys(SURFACES);

export function printedSurface(name) {
  const { data, ...functions } = SURFACES[name];
  return new Surface(name, data, functions);
}

// A surface from text in the window [left, right, low, high]; throws FormulaError.
export function typedSurface(text, window) {
  const functions = understood(text);
  const [left, right, low, high] = window;
  const start = [left + 0.15 * (right - left), high - 0.2 * (high - low)];
  const data = { doc: "", minima: lowestPoints(functions, window), window, start, lr: 0.01, noise: 0 };
  const surface = new Surface(TYPED, data, functions);
  surface.text = text;
  surface.lr = steadyRate(surface, window);
  return surface;
}

// A rate at which plain descent is stable nearly everywhere: one over the largest curvature of most places.
function steadyRate(surface, [left, right, low, high]) {
  const bends = [];
  for (let i = 0; i < 15; i++) {
    for (let j = 0; j < 15; j++) {
      const found = surface.bends(left + ((right - left) * (i + 0.5)) / 15, low + ((high - low) * (j + 0.5)) / 15);
      bends.push(Math.max(...found.map(Math.abs)));
    }
  }
  const sorted = bends.filter((x) => Number.isFinite(x) && x > 0).sort((a, b) => a - b);
  return sorted.length ? +(0.5 / sorted[Math.floor(0.9 * (sorted.length - 1))]).toPrecision(2) : 0.01;
}

// The global minima inside a window, as far as descent from a grid of places finds them; none if the lowest is at its edge.
function lowestPoints({ height, slope }, [left, right, low, high]) {
  const ends = [];
  for (let i = 0; i < 9; i++) {
    for (let j = 0; j < 9; j++) {
      const end = descended(
        height,
        slope,
        left + ((right - left) * (i + 0.5)) / 9,
        low + ((high - low) * (j + 0.5)) / 9,
      );
      if (end) ends.push(end);
    }
  }
  const inside = ([x, y]) => x > left && x < right && y > low && y < high;
  if (!ends.length) return [];
  const best = Math.min(...ends.map((end) => end[2]));
  const scale = Math.max(1, Math.abs(best));
  const lowest = ends.filter((end) => end[2] - best < 1e-9 * scale);
  if (!lowest.every(inside)) return [];
  const apart = [];
  const near = 1e-3 * Math.max(right - left, high - low);
  for (const [x, y] of lowest) if (apart.every(([a, b]) => Math.hypot(a - x, b - y) > near)) apart.push([x, y]);
  return apart.length > 12 ? [] : apart;
}

function descended(height, slope, x, y) {
  let [z] = height(x, y);
  let rate = 0.1;
  for (let k = 0; k < 400 && Number.isFinite(z); k++) {
    const [gx, gy] = slope(x, y);
    const square = gx * gx + gy * gy;
    if (!(square > 1e-24)) return Number.isFinite(square) ? [x, y, z] : null;
    let next = height(x - rate * gx, y - rate * gy)[0];
    for (let tries = 0; !(next <= z - 0.3 * rate * square) && tries < 60; tries++) {
      rate /= 2;
      next = height(x - rate * gx, y - rate * gy)[0];
    }
    if (!(next < z)) return [x, y, z];
    [x, y, z] = [x - rate * gx, y - rate * gy, next];
    rate *= 3;
  }
  return Number.isFinite(z) ? [x, y, z] : null;
}

// Heights on a grid of n × n points of a window, row by row from the lowest y.
export function heights(surface, [left, right, low, high], n) {
  const z = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    const y = low + ((high - low) * j) / (n - 1);
    for (let i = 0; i < n; i++) z[j * n + i] = surface.height(left + ((right - left) * i) / (n - 1), y);
  }
  return z;
}

// How heights are drawn, from 0 to 1: linearly or, where a few would dwarf all others, by the logarithm of 1 + excess.
export function drawnScale(z) {
  const sorted = Float64Array.from(z.filter(Number.isFinite)).sort();
  if (!sorted.length) return () => 0;
  const bottom = sorted[0];
  const top = sorted.at(-1);
  const unit = sorted[Math.floor(sorted.length / 2)] - bottom;
  const flat = top - bottom < 8 * unit || unit <= 0;
  const raw = flat ? (x) => x - bottom : (x) => Math.log10(1 + Math.max(x - bottom, 0) / (unit / 10));
  const most = raw(top) || 1;
  return (x) => raw(x) / most;
}
