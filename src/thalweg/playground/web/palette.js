// Colours and marks of runners: the lectures' by default, or colours that colour-blind people can tell apart.
import { COLOURS } from "./printed.js";

// Okabe and Ito 2008, in an order in which neighbours differ most.
const SAFE = ["safe-a", "safe-b", "safe-c", "safe-d", "safe-e", "safe-f", "safe-g", "safe-h"];
const MARKS = ["circle", "diamond", "square", "cross", "triangle"];
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];

let values = new Map();

// Reads the colours of the style sheet, which differ between light and dark.
export function readColours() {
  values = new Map();
}

export function colour(name) {
  if (!values.has(name))
    values.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return values.get(name);
}

// The name of a colour that no runner has yet, the lectures' where the rule has one.
export function chosenColour(family, taken) {
  const own = COLOURS.lectures[family];
  if (own && !taken.includes(own)) return own;
  return COLOURS.others.find((name) => !taken.includes(name)) ?? COLOURS.others[taken.length % COLOURS.others.length];
}

export const colourNames = [...Object.values(COLOURS.lectures), ...COLOURS.others];

export function look(world, k) {
  const runner = world.runners[k];
  const name = world.safe ? SAFE[k % SAFE.length] : runner.colour;
  return {
    name,
    colour: colour(name),
    mark: MARKS[k % MARKS.length],
    dash: world.safe ? DASHES[k % DASHES.length] : [],
  };
}

// Outlines of the marks, around the origin, with radius r.
export function outline(context, mark, x, y, r) {
  context.beginPath();
  if (mark === "circle") context.arc(x, y, r, 0, 2 * Math.PI);
  else {
    const corners = {
      diamond: [
        [0, -1.3],
        [1.3, 0],
        [0, 1.3],
        [-1.3, 0],
      ],
      square: [
        [-1, -1],
        [1, -1],
        [1, 1],
        [-1, 1],
      ],
      triangle: [
        [0, -1.3],
        [1.2, 0.9],
        [-1.2, 0.9],
      ],
      cross: [
        [-0.45, -1.2],
        [0.45, -1.2],
        [0.45, -0.45],
        [1.2, -0.45],
        [1.2, 0.45],
        [0.45, 0.45],
        [0.45, 1.2],
        [-0.45, 1.2],
        [-0.45, 0.45],
        [-1.2, 0.45],
        [-1.2, -0.45],
        [-0.45, -0.45],
      ],
    }[mark];
    corners.forEach(([a, b], i) => (i ? context.lineTo(x + r * a, y + r * b) : context.moveTo(x + r * a, y + r * b)));
    context.closePath();
  }
}

// A colour between two, given as #rrggbb.
function between(from, to, share) {
  const channel = (text, k) => parseInt(text.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mixed = [0, 1, 2].map((k) => Math.round(channel(from, k) + share * (channel(to, k) - channel(from, k))));
  return `rgb(${mixed.join(",")})`;
}

export const shade = (share) =>
  share < 0.5
    ? between(colour("deep"), colour("slope"), 2 * share)
    : between(colour("slope"), colour("peak"), 2 * share - 1);
