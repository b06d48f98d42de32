"use strict";
// For every page: draws figures in the page's colours, and redraws them when the colour scheme changes.
const data = JSON.parse(document.getElementById("data").textContent);
const drawn = new Map(), known = new Map();

// Replaces "var(--cyan)" by its current colour in the style sheet, and "var(--cyan)/0.2" by the same, translucent.
function resolve(x) {
  if (typeof x === "string") {
    const found = /^var\((--[a-z]+)\)(?:\/([\d.]+))?$/.exec(x);
    if (!found) return x;
    const colour = getComputedStyle(document.documentElement).getPropertyValue(found[1]).trim();
    const channel = (i) => parseInt(colour.slice(i, i + 2), 16);
    return found[2] ? `rgba(${channel(1)},${channel(3)},${channel(5)},${found[2]})` : colour;
  }
  if (Array.isArray(x)) return typeof x.at(-1) === "number" ? x.slice() : x.map(resolve);
  if (x && typeof x === "object") return Object.fromEntries(Object.entries(x).map(([k, v]) => [k, resolve(v)]));
  return x;
}

const small = () => matchMedia("(max-width: 40rem)").matches;

function look() {
  const axis = {
    gridcolor: "var(--rule)", zerolinecolor: "var(--rule)", linecolor: "var(--rule)", tickcolor: "var(--rule)",
    automargin: true, title: { standoff: 8 },
  };
  return resolve({
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", size: small() ? 11 : 13, color: "var(--ink)" },
      margin: { l: 50, r: 12, t: 10, b: 44 }, xaxis: axis, yaxis: axis,
      hoverlabel: { bgcolor: "var(--sheet)", bordercolor: "var(--rule)", font: { color: "var(--ink)" } },
      scene: { xaxis: axis, yaxis: axis, zaxis: axis },
      colorway: ["var(--ink)"],
    },
  });
}

const config = {
  responsive: true, displaylogo: false, scrollZoom: false,
  displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "resetCameraLastSave3d", "tableRotation"],
};

// Draws a figure, unless it is drawn already, as wide.
function draw(id, figure) {
  const text = JSON.stringify([figure, small(), document.getElementById(id).clientWidth]);
  if (known.get(id) === text) return;
  drawn.set(id, figure);
  const { data: traces, layout } = resolve(figure);
  Plotly.react(id, traces, { ...layout, template: look() }, config);
  known.set(id, text);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  known.clear();
  for (const [id, figure] of drawn) draw(id, figure);
});
