// The contour view under pointer and keys: dragging moves the window, wheel and pinch zoom, a click starts there; with
// keys, a cursor does the same.
import { say } from "./dom.js";
import { clamp, shown } from "./numbers.js";

export function listenToContour(view) {
  const { canvas, world } = view;
  const down = new Map();
  let moved = 0;
  const place = (event) => [event.offsetX, event.offsetY];
  canvas.addEventListener("pointerdown", (event) => {
    down.set(event.pointerId, place(event));
    moved = down.size > 1 ? Infinity : 0;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (!down.has(event.pointerId)) {
      world.pointer = world.inside(...view.unproject(...at)) ? view.unproject(...at) : null;
      world.changed("look");
      return;
    }
    const before = down.get(event.pointerId);
    if (down.size === 2) {
      const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const size = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoom(view, size(before) / size(at), other);
    } else {
      moved += Math.hypot(at[0] - before[0], at[1] - before[1]);
      if (moved > 5) pan(view, at[0] - before[0], at[1] - before[1]);
    }
    down.set(event.pointerId, at);
  });
  const up = (event) => {
    if (event.type === "pointerup" && moved <= 5 && down.size === 1) {
      const [x, y] = view.unproject(...place(event));
      if (world.inside(x, y)) world.begin(x, y, world.together);
    }
    down.delete(event.pointerId);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => {
    world.pointer = null;
    world.changed("look");
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(view, Math.exp(clamp(event.deltaY, -100, 100) / 400), place(event));
    },
    { passive: false },
  );
  canvas.addEventListener("blur", () => {
    view.cursor = null;
    world.changed("look");
  });
  canvas.addEventListener("keydown", (event) => key(view, event));
}

function key(view, event) {
  const { world } = view;
  const [left, right, low, high] = world.window;
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.key in moves && !event.altKey && !event.ctrlKey) {
    const [a, b] = moves[event.key];
    const [x, y] = view.cursor ?? [(left + right) / 2, (low + high) / 2];
    const fine = event.shiftKey ? 0.005 : 0.025;
    view.cursor = [clamp(x + a * fine * (right - left), left, right), clamp(y + b * fine * (high - low), low, high)];
    say(
      `cursor at x ${shown(view.cursor[0])}, y ${shown(view.cursor[1])}, height ${shown(world.surface.height(...view.cursor))}`,
    );
    world.changed("look");
  } else if (event.key === "Enter" && view.cursor) {
    world.begin(...view.cursor, world.together);
    say(`starts at x ${shown(view.cursor[0])}, y ${shown(view.cursor[1])}`);
  } else if (event.key === "+" || event.key === "=") zoom(view, 0.8);
  else if (event.key === "-") zoom(view, 1.25);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function pan(view, dx, dy) {
  const { world } = view;
  const { w, h } = view.plot(view.canvas.clientWidth, view.canvas.clientHeight);
  const [left, right, low, high] = world.window;
  const [a, b] = [(-dx / w) * (right - left), (dy / h) * (high - low)];
  world.window = [left + a, right + a, low + b, high + b];
  world.changed("ground");
}

function zoom(view, factor, about = null) {
  const { world } = view;
  const [left, right, low, high] = world.window;
  const [x, y] = about ? view.unproject(...about) : [(left + right) / 2, (low + high) / 2];
  const next = [x + (left - x) * factor, x + (right - x) * factor, y + (low - y) * factor, y + (high - y) * factor];
  const span = Math.max(next[1] - next[0], next[3] - next[2]);
  if (span < 1e-6 || span > 1e6) return;
  world.window = next;
  world.changed("ground");
}
