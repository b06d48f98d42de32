// What both views have in common of balls, arrows and canvases.
import { colour, outline } from "./palette.js";

export const SIGN_COLOURS = {
  gradient: "sign-gradient",
  momentum: "sign-momentum",
  squares: "sign-squares",
  step: "ink",
  adjusted: "sign-adjusted",
};

// Lengths of arrows: logarithmic, since gradients differ by many orders of magnitude.
export const arrowLength = (size) => 12 + 11 * Math.log10(1 + size / 1e-3);

// A runner's ball; the selected one has a ring.
export function drawBall(context, { colour: own, mark }, x, y, selected) {
  context.fillStyle = own;
  context.strokeStyle = colour("halo");
  context.lineWidth = 1.5;
  outline(context, mark, x, y, selected ? 7.5 : 6);
  context.fill();
  context.stroke();
  if (!selected) return;
  context.strokeStyle = colour("ink");
  context.lineWidth = 1.2;
  outline(context, "circle", x, y, 12);
  context.stroke();
}

// Gives a canvas as many pixels as it has on the screen, `most` for a point of its size; returns its size in points and
// the pixels for one, and whether that has changed; null if it is not shown.
export function fitted(canvas, most = 2) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return null;
  const ratio = Math.min(devicePixelRatio || 1, most);
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  const changed = canvas.width !== wide || canvas.height !== high;
  if (changed) [canvas.width, canvas.height] = [wide, high];
  return { width, height, ratio, changed };
}

// A line through points of a picture.
export function traced(context, points) {
  points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
}
