// The surface in three dimensions, by three.js: it can be turned, zoomed and moved, and clicked to start there.
import { Ground } from "./ground.js";
import { colour, shade } from "./palette.js";
import { el } from "./dom.js";
import { shown } from "./numbers.js";
import { listenToRelief } from "./relief_input.js";
import { MOST_PIXELS, ReliefWalks, TALL } from "./relief_walks.js";

const GRID = 81;
const SLOW = 30; // milliseconds between two pictures
const TOGETHER = 2000; // milliseconds within which they belong to one turn
const REST = 400; // milliseconds after which it is no longer turned
const LIFT = 0.012;
const EYE = [-2.55, 2.2, 1.2];

export class ReliefView {
  // Throws where the browser has no WebGL.  What moves is painted on the second canvas.
  constructor(canvas, over, world) {
    Object.assign(this, { canvas, world, layers: [canvas, over], walks: new ReliefWalks(over, this) });
    const L = libraries;
    this.renderer = new L.WebGLRenderer({ canvas, antialias: false, alpha: true, preserveDrawingBuffer: true });
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
    this.scene.add(this.land);
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
    this.turned = -Infinity; // when it was turned last
    this.fresh = false;
    this.picture = 0; // the number of the picture of the surface, which its trails are placed in
    world.on("ground", () => (this.fresh = false));
    listenToRelief(this);
  }

  recoloured() {
    this.fresh = false;
  }

  // Half of the scene's extent along x and y.
  get half() {
    const [left, right, low, high] = this.world.window;
    const longest = Math.max(right - left, high - low);
    return [Math.max((right - left) / longest, 0.45), Math.max((high - low) / longest, 0.45)];
  }

  // From the surface's coordinates to the scene's, whose y points up.
  placed(x, y, z) {
    const [left, right, low, high] = this.world.window;
    const [a, b] = this.half;
    return [((2 * (x - left)) / (right - left) - 1) * a, z * TALL, -((2 * (y - low)) / (high - low) - 1) * b];
  }

  unplaced({ x, z }) {
    const [left, right, low, high] = this.world.window;
    const [a, b] = this.half;
    return [left + ((x / a + 1) / 2) * (right - left), low + ((1 - z / b) / 2) * (high - low)];
  }

  on(x, y) {
    return this.placed(x, y, this.ground.at(x, y) + LIFT);
  }

  // The height of the surface above or below a place of the scene, or null beside it.
  heightAt(x, z) {
    const at = this.unplaced({ x, z });
    return this.world.inside(...at) ? this.ground.at(...at) * TALL : null;
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
    this.land.add(this.lines(segments, colour("contour")));
    this.frame();
    for (const [x, y] of world.surface.minima) {
      if (!world.inside(x, y)) continue;
      const star = new L.Mesh(lit(new L.OctahedronGeometry(0.02), colour("ink"), 0), this.paint);
      star.position.set(...this.on(x, y));
      this.land.add(star);
    }
    this.fresh = true;
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
    this.land.add(this.lines(segments, colour("rule")));
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
    this.label("y", this.placed(left - away * (right - left), high - 0.04 * (high - low), 0));
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

  // Lines of one pixel, which cost little: without a graphics card wide ones took most of the time of a picture.
  lines(segments, own) {
    const L = libraries;
    const geometry = new L.BufferGeometry();
    geometry.setAttribute("position", new L.Float32BufferAttribute(segments, 3));
    return new L.LineSegments(geometry, new L.LineBasicMaterial({ color: own }));
  }

  draw() {
    const { canvas, renderer, camera } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = this.pixels();
    const built = !this.fresh;
    if (built) this.build();
    const size = [width, height, ratio].join();
    const seen = [size, this.eye].join();
    if (built || seen !== this.drawn) {
      if (size !== this.size) {
        renderer.setPixelRatio(ratio);
        renderer.setSize(width, height, false);
        camera.aspect = width / height;
        camera.fov = width < height * 1.35 ? 46 : 36;
        camera.updateProjectionMatrix();
      }
      [this.drawn, this.size] = [seen, size];
      this.picture += 1;
      renderer.render(this.scene, camera);
      for (const { node, x, y } of this.placedMarks())
        node.style.setProperty("transform", `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px) translate(-50%, -50%)`);
    }
    this.walks.draw();
  }

  // Pixels of the picture for one of the screen's points: twice as many as are seen smooth the edges.  While it is turned
  // and a picture takes long, only as many; without a graphics card smoothing takes most of the time.
  pixels() {
    const eye = [...this.camera.position, ...this.controls.target].join();
    if (eye !== this.eye) {
      const now = performance.now();
      if (now - this.turned > SLOW && now - this.turned < TOGETHER) this.slow = true;
      this.eye = eye;
      this.turned = now;
      this.turning = true;
      clearTimeout(this.resting);
      this.resting = setTimeout(() => {
        this.turning = false;
        this.world.changed("camera");
      }, REST);
    }
    return Math.min(devicePixelRatio || 1, MOST_PIXELS) * (this.slow && this.turning ? 1 : 2);
  }

  // How much of x and of y a unit of the scene is.
  unit() {
    const [left, right, low, high] = this.world.window;
    const [a, b] = this.half;
    return [(right - left) / (2 * a), (high - low) / (2 * b)];
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
    if (child.isLineSegments) child.material.dispose();
  }
}
