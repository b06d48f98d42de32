// What is seen, as a file: PNG, SVG, and animations as WebM and GIF.
import { byId, say } from "./dom.js";
import { SvgPaper } from "./svgpaper.js";
import { colour, look } from "./palette.js";

const WIDTH = 1000;
const HEIGHT = 520;
const LEGEND = 30;
const MOST_FRAMES = 240;

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  byId("export-said").textContent = `${name}, ${Math.ceil(blob.size / 1024)} kB`;
  say(`${name} is written`);
}

// A canvas with the views side by side, and the names below.
function composed(page, canvas, width = WIDTH, height = HEIGHT) {
  const { world, views } = page;
  [canvas.width, canvas.height] = [width, height + LEGEND];
  const context = canvas.getContext("2d");
  context.fillStyle = colour("paper");
  context.fillRect(0, 0, width, height + LEGEND);
  const seen = views.filter((view) => view.canvas.clientWidth > 0);
  seen.forEach((view, k) => {
    view.draw();
    const share = width / seen.length;
    const { width: w, height: h } = view.canvas;
    const scale = Math.min(share / w, height / h);
    const corner = [k * share + (share - w * scale) / 2, (height - h * scale) / 2];
    for (const layer of view.layers ?? [view.canvas]) context.drawImage(layer, ...corner, w * scale, h * scale);
    const zoom = (w * scale) / view.canvas.clientWidth;
    context.font = `${Math.round(12 * zoom)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = colour("muted");
    for (const { text, x, y } of view.placedMarks?.() ?? [])
      context.fillText(text, corner[0] + x * zoom, corner[1] + y * zoom);
  });
  legend(context, world, width, height);
  return canvas;
}

function legend(context, world, width, top) {
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  const share = width / Math.max(world.runners.length, 1);
  world.runners.forEach((runner, k) => {
    context.fillStyle = look(world, k).colour;
    context.fillRect(8 + k * share, top + 8, 14, 14);
    context.fillStyle = colour("ink");
    context.fillText(runner.name.slice(0, Math.max(4, share / 8)), 27 + k * share, top + 15);
  });
}

export function png(page) {
  composed(page, document.createElement("canvas"), 2 * WIDTH, 2 * HEIGHT).toBlob((blob) =>
    download(blob, "thalweg.png"),
  );
}

// The contour view and the losses as vectors.
export function svgFile(page) {
  const { contour, chart, world } = page;
  const paper = new SvgPaper();
  const size = 560;
  contour.drawGround(paper, size, size);
  contour.drawWalks(paper, size, size);
  const whole = new SvgPaper();
  chart.paint(whole, size, 320);
  const names = new SvgPaper();
  legend(names, world, 2 * size, 0);
  const at = (part, x, y) =>
    `<g transform="translate(${x} ${y})">${part.parts.join("\n").replaceAll("#c", `#c${x}`).replaceAll('id="c', `id="c${x}`)}</g>`;
  const page2 = new SvgPaper();
  page2.parts = [at(paper, 0, 0), at(whole, size, 60), at(names, 1, size)];
  const text = page2.text(2 * size, size + LEGEND);
  download(new Blob([text], { type: "image/svg+xml" }), "thalweg.svg");
  return text;
}

// The walks again from their starts, a frame at a time: `frame` is called with the canvas after each.
async function replayed(page, frame) {
  const { world } = page;
  const steps = Math.min(Math.max(world.step, 60), 2000);
  const each = Math.ceil(steps / MOST_FRAMES);
  world.playing = false;
  world.restart();
  const canvas = document.createElement("canvas");
  composed(page, canvas);
  await frame(canvas, 0);
  for (let k = 0; k < steps; k += each) {
    for (let i = 0; i < each; i++) world.advance();
    composed(page, canvas);
    await frame(canvas, (k + each) / steps);
    byId("export-said").textContent = `${Math.min(100, Math.round((100 * (k + each)) / steps))} %`;
  }
  world.changed("walk", "playing");
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export async function webm(page) {
  if (typeof MediaRecorder === "undefined") {
    byId("export-said").textContent = "This browser cannot record video; export a GIF instead.";
    return;
  }
  const canvas = composed(page, document.createElement("canvas"));
  const stream = canvas.captureStream(30);
  const kind = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"].find((type) =>
    MediaRecorder.isTypeSupported(type),
  );
  const recorder = new MediaRecorder(stream, { mimeType: kind, videoBitsPerSecond: 5_000_000 });
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  const stopped = new Promise((done) => recorder.addEventListener("stop", done));
  recorder.start();
  await replayed(page, async (made) => {
    canvas.getContext("2d").drawImage(made, 0, 0);
    await pause(33);
  });
  await pause(200);
  recorder.stop();
  await stopped;
  download(new Blob(parts, { type: "video/webm" }), "thalweg.webm");
}

export async function gif(page) {
  const encoder = libraries.GIFEncoder();
  const [width, height] = [WIDTH * 0.6, (HEIGHT + LEGEND) * 0.6].map(Math.round);
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  const context = small.getContext("2d", { willReadFrequently: true });
  let count = 0;
  await replayed(page, async (made) => {
    count += 1;
    if (count % 2 === 0) return;
    context.drawImage(made, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    const palette = libraries.quantize(data, 128);
    encoder.writeFrame(libraries.applyPalette(data, palette), width, height, { palette, delay: 66 });
    await pause(0);
  });
  encoder.finish();
  download(new Blob([encoder.bytes()], { type: "image/gif" }), "thalweg.gif");
}
