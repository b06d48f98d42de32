// The surface as both views draw it: heights on a grid, their scale, and contour lines.
import { drawnScale, heights } from "./surface.js";

const LEVELS = 22;

export class Ground {
  constructor(surface, window, n) {
    this.n = n;
    this.window = [...window];
    const z = heights(surface, window, n);
    this.scale = drawnScale(z);
    // From 0 to 1; where there is no height, the top.
    this.drawn = z.map((x) => (Number.isFinite(x) ? this.scale(x) : 1));
  }

  // Contour polygons in the coordinates of the surface: [{ level, rings }], each covering what is above its level.
  contours() {
    const [left, right, low, high] = this.window;
    const { n } = this;
    const levels = Array.from({ length: LEVELS }, (_, k) => (k + 0.5) / LEVELS);
    const place = ([i, j]) => [
      left + ((i - 0.5) / (n - 1)) * (right - left),
      low + ((j - 0.5) / (n - 1)) * (high - low),
    ];
    return libraries
      .contours()
      .size([n, n])
      .thresholds(levels)(this.drawn)
      .map(({ value, coordinates }) => ({
        level: value,
        rings: coordinates.flat().map((ring) => ring.map(place)),
      }));
  }

  // The drawn height of a place, from 0 to 1, between the points of the grid.
  at(x, y) {
    const { n } = this;
    const [left, right, low, high] = this.window;
    const u = Math.min(Math.max(((x - left) / (right - left)) * (n - 1), 0), n - 1.000001);
    const v = Math.min(Math.max(((y - low) / (high - low)) * (n - 1), 0), n - 1.000001);
    const [i, j] = [Math.floor(u), Math.floor(v)];
    const [a, b] = [u - i, v - j];
    const z = this.drawn;
    const k = j * n + i;
    return (1 - b) * ((1 - a) * z[k] + a * z[k + 1]) + b * ((1 - a) * z[k + n] + a * z[k + n + 1]);
  }
}
