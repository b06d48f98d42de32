// The surface in three dimensions, by three.js: it can be turned, zoomed and moved, and clicked to start there.
import { Ground } from "./ground.js";
import { colour, look, shade } from "./palette.js";
import { el } from "./dom.js";
import { shown } from "./numbers.js";
import { arrowLength, SIGN_COLOURS } from "./contour.js";
import { listenToRelief } from "./relief_input.js";
import { signs } from "./world.js";

const GRID = 81;
const LIFT = 0.012;
const TALL = 0.75;
const EYE = [-2.25, 1.95, 1.05];
const PIXELS = 260; // of an arrow's length in a unit of the scene

export class ReliefView {
  // Throws where the browser has no WebGL.
  constructor(canvas, world) {
    Object.assign(this, { canvas, world, trails: [], balls: [] });
    const L = libraries;
    this.renderer = new L.WebGLRenderer({ canvas, antialias: true, alpha: true, preserveDrawingBuffer: true });
    this.scene = new L.Scene();
    this.camera = new L.PerspectiveCamera(36, 1, 0.05, 50);
    this.camera.position.set(...EYE);
    this.controls = new L.OrbitControls(this.camera, canvas);
    this.controls.target.set(0, 0.15, 0);
    this.controls.minDistance = 0.6;
    this.controls.maxDistance = 8;
    this.controls.addEventListener("change", () => world.changed("camera"));
    this.controls.update();
    this.land = new L.Group();
    this.walkers = new L.Group();
    this.pointing = new L.Group();
    this.scene.add(this.land, this.walkers, this.pointing);
    // Light is computed here and painted on: one shader for all solids is compiled sooner than several, which matters
    // where there is no graphics card.
    this.paint = new L.MeshBasicMaterial({
      vertexColors: true,
      side: L.DoubleSide,
      polygonOffset: true,
      polygonOffsetFactor: 1,
      polygonOffsetUnits: 1,
    });
    this.renderer.debug.checkShaderErrors = false;
    this.marks = [];
    this.fresh = false;
    world.on("ground", () => (this.fresh = false));
    world.on("runners", () => this.forgetTrails());
    listenToRelief(this);
  }

  recoloured() {
    this.fresh = false;
    this.forgetTrails();
  }

  // From the surface's coordinates to the scene's, whose y points up.
  placed(x, y, z) {
    const [left, right, low, high] = this.world.window;
    const longest = Math.max(right - left, high - low);
    const [a, b] = [Math.max((right - left) / longest, 0.45), Math.max((high - low) / longest, 0.45)];
    return [((2 * (x - left)) / (right - left) - 1) * a, z * TALL, -((2 * (y - low)) / (high - low) - 1) * b];
  }

  unplaced({ x, z }) {
    const [left, right, low, high] = this.world.window;
    const [a, , b] = this.placed(right, low, 0);
    return [left + ((x / a + 1) / 2) * (right - left), low + ((-z / b + 1) / 2) * (high - low)];
  }

  on(x, y) {
    return this.placed(x, y, this.ground.at(x, y) + LIFT);
  }

  build() {
    const L = libraries;
    const { world } = this;
    this.ground = new Ground(world.surface, world.window, GRID);
    dispose(this.land);
    const [left, right, low, high] = world.window;
    const n = GRID;
    const positions = new Float32Array(3 * n * n);
    const colours = new Float32Array(3 * n * n);
    const tint = new L.Color();
    for (let j = 0; j < n; j++) {
      for (let i = 0; i < n; i++) {
        const k = j * n + i;
        const z = this.ground.drawn[k];
        positions.set(this.placed(left + ((right - left) * i) / (n - 1), low + ((high - low) * j) / (n - 1), z), 3 * k);
        tint.setStyle(shade(z), L.SRGBColorSpace).toArray(colours, 3 * k);
      }
    }
    const index = [];
    for (let j = 0; j < n - 1; j++) {
      for (let i = 0; i < n - 1; i++) {
        const k = j * n + i;
        index.push(k, k + 1, k + n, k + 1, k + n + 1, k + n);
      }
    }
    const geometry = new L.BufferGeometry();
    geometry.setAttribute("position", new L.BufferAttribute(positions, 3));
    geometry.setAttribute("color", new L.BufferAttribute(colours, 3));
    geometry.setIndex(index);
    geometry.computeVertexNormals();
    this.mesh = new L.Mesh(lit(geometry), this.paint);
    this.land.add(this.mesh);
    const segments = [];
    for (const { level, rings } of this.ground.contours()) {
      for (const ring of rings) {
        for (let k = 1; k < ring.length; k++) {
          // Around the window, where polygons are closed, there are no contours.
          const [a, b] = [ring[k - 1], ring[k]];
          if (![a, b].every(([x, y]) => x >= left && x <= right && y >= low && y <= high)) continue;
          segments.push(...this.placed(...a, level + 0.002), ...this.placed(...b, level + 0.002));
        }
      }
    }
    this.land.add(this.lines(segments, colour("contour"), 1));
    this.frame();
    for (const [x, y] of world.surface.minima) {
      if (!world.inside(x, y)) continue;
      const star = new L.Mesh(lit(new L.OctahedronGeometry(0.02), colour("ink"), 0), this.paint);
      star.position.set(...this.on(x, y));
      this.land.add(star);
    }
    this.fresh = true;
    this.forgetTrails();
  }

  // The edges of the box, with numbers.
  frame() {
    const [left, right, low, high] = this.world.window;
    const corners = [
      [left, low],
      [right, low],
      [right, high],
      [left, high],
      [left, low],
    ];
    const segments = [];
    for (const { node } of this.marks) node.remove();
    this.marks = [];
    for (let k = 0; k < 4; k++) segments.push(...this.placed(...corners[k], 0), ...this.placed(...corners[k + 1], 0));
    this.land.add(this.lines(segments, colour("rule"), 1.2));
    const ticks = (from, to) =>
      libraries
        .scaleLinear()
        .domain([from, to])
        .ticks(4)
        .filter((x) => x > from + 0.05 * (to - from) && x < to - 0.05 * (to - from));
    const away = 0.06;
    for (const x of ticks(left, right)) this.label(shown(x), this.placed(x, low - away * (high - low), 0));
    for (const y of ticks(low, high)) this.label(shown(y), this.placed(left - away * (right - left), y, 0));
    this.label("x", this.placed(right, low - away * (high - low), 0));
    this.label("y", this.placed(left - away * (right - left), high, 0));
  }

  // Numbers are text over the picture, so that they are sharp, and need no shader.
  label(text, at) {
    const node = el("span", { class: "mark", "aria-hidden": "true" }, text);
    this.canvas.parentElement.append(node);
    this.marks.push({ node, text, at });
  }

  // Where the numbers are in the picture, in pixels.
  placedMarks() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const point = new libraries.Vector3();
    return this.marks.map(({ node, text, at }) => {
      point.set(...at).project(this.camera);
      return { node, text, x: ((point.x + 1) / 2) * width, y: ((1 - point.y) / 2) * height };
    });
  }

  lines(segments, own, width) {
    const L = libraries;
    const geometry = new L.LineSegmentsGeometry();
    geometry.setPositions(segments.length ? segments : [0, 0, 0, 0, 0, 0]);
    const made = new L.LineSegments2(geometry, new L.LineMaterial({ color: own, linewidth: width }));
    made.frustumCulled = false;
    return made;
  }

  forgetTrails() {
    dispose(this.walkers);
    this.trails = [];
    this.balls = [];
  }

  // A trail with room for more segments than there are, so that a step adds only its own.
  trail(k) {
    const { runners } = this.world;
    const wanted = runners[k].xs.length;
    let trail = this.trails[k];
    if (!trail || trail.room < wanted || trail.runner !== runners[k]) {
      if (trail) this.walkers.remove(trail.line);
      const room = Math.max(256, 2 * wanted);
      const line = this.lines(new Float32Array(6 * room), look(this.world, k).colour, 3);
      this.walkers.add(line);
      trail = { line, room, runner: runners[k], filled: 0, count: 0, xs: null };
      this.trails[k] = trail;
    }
    const { xs, ys } = runners[k];
    // What was taken back, or started elsewhere, is drawn anew.
    if (trail.xs !== xs || trail.filled > xs.length) [trail.filled, trail.count, trail.last] = [0, 0, null];
    trail.xs = xs;
    const buffer = trail.line.geometry.attributes.instanceStart.data;
    const begin = trail.count;
    for (; trail.filled < xs.length; trail.filled++) {
      const [x, y] = [xs[trail.filled], ys[trail.filled]];
      const at = this.world.inside(x, y) ? this.on(x, y) : null;
      if (at && trail.last) {
        buffer.array.set(trail.last, 6 * trail.count);
        buffer.array.set(at, 6 * trail.count + 3);
        trail.count += 1;
      }
      trail.last = at;
    }
    if (trail.count !== begin) {
      buffer.clearUpdateRanges();
      buffer.addUpdateRange(6 * begin, 6 * (trail.count - begin));
      buffer.needsUpdate = true;
    }
    trail.line.geometry.instanceCount = trail.count;
    trail.line.visible = this.world.trails && !runners[k].hidden && trail.count > 0;
  }

  draw() {
    const { canvas, world, renderer } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio || 1, 1.5);
    if (this.size !== `${width} ${height} ${ratio}`) {
      this.size = `${width} ${height} ${ratio}`;
      renderer.setPixelRatio(ratio);
      renderer.setSize(width, height, false);
      this.camera.aspect = width / height;
      this.camera.fov = width < height * 1.15 ? 46 : 36;
      this.camera.updateProjectionMatrix();
    }
    if (!this.fresh) this.build();
    world.runners.forEach((runner, k) => {
      this.trail(k);
      if (!this.balls[k]) {
        const L = libraries;
        this.balls[k] = new L.Mesh(lit(new L.SphereGeometry(0.026, 18, 12), look(world, k).colour), this.paint);
        this.walkers.add(this.balls[k]);
      }
      const [x, y] = runner.point;
      this.balls[k].visible = !runner.hidden && world.inside(x, y);
      if (this.balls[k].visible) this.balls[k].position.set(...this.on(x, y));
      this.balls[k].scale.setScalar(k === world.selected ? 1.35 : 1);
    });
    this.drawSigns();
    renderer.render(this.scene, this.camera);
    for (const { node, x, y } of this.placedMarks())
      node.style.setProperty("transform", `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px) translate(-50%, -50%)`);
  }

  // Arrows lie on the surface.
  drawSigns() {
    const { world } = this;
    dispose(this.pointing);
    const mark = (points, own, width) => {
      const segments = [];
      for (let k = 1; k < points.length; k++) segments.push(...points[k - 1], ...points[k]);
      if (segments.length) this.pointing.add(this.lines(segments, own, width));
    };
    if (world.pointer) {
      const [left, right] = world.window;
      const r = 0.012 * (right - left);
      mark(
        Array.from({ length: 13 }, (_, k) =>
          this.on(
            world.pointer[0] + r * Math.cos((k * Math.PI) / 6),
            world.pointer[1] + r * Math.sin((k * Math.PI) / 6),
          ),
        ),
        colour("ink"),
        1.5,
      );
    }
    const { runner } = world;
    if (!runner || runner.hidden) return;
    for (const sign of signs(runner, world)) {
      if (!world.inside(...sign.from)) continue;
      const own = colour(SIGN_COLOURS[sign.kind]);
      const lit = world.lit === sign.field;
      const from = this.placed(...sign.from, 0);
      const along = (a, b) => this.on(sign.from[0] + a, sign.from[1] + b);
      if (sign.sides) {
        const unit = this.unit();
        const [a, b] = sign.sides.map((size, k) => (arrowLength(size) / PIXELS / 2) * unit[k]);
        mark([along(-a, -b), along(a, -b), along(a, b), along(-a, b), along(-a, -b)], own, lit ? 4 : 2);
        continue;
      }
      const tip = this.placed(sign.from[0] + sign.vector[0], sign.from[1] + sign.vector[1], 0);
      const length = Math.hypot(tip[0] - from[0], tip[2] - from[2]);
      if (!(length > 0)) continue;
      const share = sign.exact ? 1 : arrowLength(Math.hypot(...sign.vector)) / PIXELS / length;
      const points = [];
      for (let k = 0; k <= 10; k++) {
        const at = [(sign.vector[0] * share * k) / 10, (sign.vector[1] * share * k) / 10];
        if (!world.inside(sign.from[0] + at[0], sign.from[1] + at[1])) break;
        points.push(along(...at));
      }
      mark(points, own, lit ? 6 : 3);
      const end = points.at(-1);
      if (points.length > 10) mark(barb(points.at(-2), end), own, lit ? 6 : 3);
    }
  }

  // How much of x and of y a unit of the scene is.
  unit() {
    const [left, right, low, high] = this.world.window;
    const [a, , b] = this.placed(right, low, 0);
    return [(right - left) / (2 * a), (high - low) / (2 * Math.abs(b))];
  }

  get view() {
    return [...this.camera.position.toArray(), ...this.controls.target.toArray()].map((x) => +x.toFixed(3));
  }

  set view(numbers) {
    this.camera.position.set(...numbers.slice(0, 3));
    this.controls.target.set(...numbers.slice(3));
    this.controls.update();
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

// A geometry with the light of a sun painted on, on its own colours or on one.
function lit(geometry, own = null, shadow = 0.32) {
  const L = libraries;
  const normals = geometry.attributes.normal.array;
  const colours = geometry.attributes.color?.array ?? new Float32Array(normals.length);
  if (own) {
    const tint = new L.Color().setStyle(own);
    for (let k = 0; k < colours.length; k += 3) tint.toArray(colours, k);
  }
  for (let k = 0; k < colours.length; k += 3) {
    const facing = Math.abs(-0.45 * normals[k] + 0.8 * normals[k + 1] + 0.4 * normals[k + 2]);
    const light = 1 - shadow + shadow * Math.min(1, facing);
    for (let i = 0; i < 3; i++) colours[k + i] *= light;
  }
  geometry.setAttribute("color", new L.BufferAttribute(colours, 3));
  return geometry;
}

function dispose(group) {
  for (const child of [...group.children]) {
    group.remove(child);
    child.geometry.dispose();
    if (child.isLineSegments2) child.material.dispose();
  }
}
