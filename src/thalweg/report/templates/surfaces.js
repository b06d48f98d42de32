// A frame for each step is made by cutting the paths off there.
const { walks, steps, relief, map, losses } = data;
if (small()) { // labels take up more of a small picture, so the camera steps back
  const { eye } = relief.layout.scene.camera;
  for (const axis in eye) eye[axis] *= 1.15;
}
const first = 2; // traces before the trails: the ground, and the lowest points
const trails = walks.map((_, i) => first + i);
const slider = document.getElementById("step");
const button = document.getElementById("play");
const shown = walks.map(() => true);

function frame(step, lift) {
  const cut = (w, column) => column.slice(0, Math.min(step, w.x.length - 1) + 1);
  const columns = { x: walks.map((w) => cut(w, w.x)), y: walks.map((w) => cut(w, w.y)) };
  if (lift) columns.z = walks.map((w) => cut(w, w.height).map((z) => (z === null ? null : z + lift)));
  for (const name in columns) columns[name].push(columns[name].map((column, i) => (shown[i] ? column.at(-1) : null)));
  return columns;
}

// The figure with its trails up to a step, for `draw`; `show` then only moves the trails.
function at(figure, step, spatial) {
  const columns = frame(step, figure.lift);
  const style = (w, i) => ({
    name: w.name, line: { color: w.colour, width: spatial ? 5 : 2.5 }, visible: shown[i], customdata: w.loss,
    hovertemplate: "loss %{customdata:.5g}<br>x %{x:.4g}, y %{y:.4g}",
  });
  const heads = {
    hoverinfo: "skip", visible: true,
    marker: {
      color: walks.map((w) => w.colour), symbol: walks.map((w) => w.mark), size: spatial ? 6 : 12,
      line: { color: "var(--halo)", width: spatial ? 1 : 1.5 },
    },
  };
  const traces = figure.data.map((trace, i) => {
    const k = i - first;
    if (k < 0) return trace;
    const z = columns.z ? { z: columns.z[k] } : {};
    return { ...trace, ...(k < walks.length ? style(walks[k], k) : heads), x: columns.x[k], y: columns.y[k], ...z };
  });
  return { data: traces, layout: figure.layout };
}

function show(step) {
  slider.value = step;
  document.getElementById("now").textContent = `step ${step} of ${steps}`;
  const moved = [...trails, first + walks.length];
  Plotly.restyle("map", frame(step), moved);
  Plotly.restyle("relief", frame(step, relief.lift), moved);
  Plotly.restyle("losses", { x: [[step, step]] }, [walks.length]);
  // When the colour scheme changes, the figures are redrawn as they are now.
  drawn.set("map", at(map, step)).set("relief", keep(at(relief, step, true)));
}

// Keeps the camera where the reader has turned it.
function keep(figure) {
  const camera = document.getElementById("relief").layout?.scene?.camera;
  return camera ? { ...figure, layout: { ...figure.layout, scene: { ...figure.layout.scene, camera } } } : figure;
}

let started = null;
function play() {
  if (+slider.value >= steps) slider.value = 0;
  started = performance.now() - (+slider.value / steps) * data.seconds * 1000;
  button.textContent = "Pause";
  requestAnimationFrame(tick);
}
function pause() {
  started = null;
  button.textContent = "Play";
}
function tick(time) {
  if (started === null) return;
  const step = Math.min(steps, Math.max(0, Math.floor(((time - started) / (data.seconds * 1000)) * steps)));
  if (step !== +slider.value) show(step);
  if (step >= steps) pause();
  else requestAnimationFrame(tick);
}

button.addEventListener("click", () => (started === null ? play() : pause()));
slider.addEventListener("input", () => { pause(); show(+slider.value); });
for (const box of document.querySelectorAll("[data-walk]")) {
  box.addEventListener("change", () => {
    const i = +box.dataset.walk;
    shown[i] = box.checked;
    losses.data[i].visible = box.checked;
    for (const id of ["map", "relief"]) Plotly.restyle(id, { visible: box.checked }, [trails[i]]);
    Plotly.restyle("losses", { visible: box.checked }, [i]);
    show(+slider.value);
  });
}

Promise.all([draw("map", at(map, steps)), draw("relief", at(relief, steps, true)), draw("losses", losses)]).then(() => {
  show(steps);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
});
