// The report of a race: its figures, and the choices over the curves.
if (data.ranking) draw("ranking", data.ranking);

// If there are many entries, only the first of the leaderboard are drawn at first; a click shows the others.
const FEW = 8;
const hidden = new Set(data.curves.slice(FEW).map((curve) => curve.entry));

function fill(id, options) {
  const select = document.getElementById(id);
  for (const [value, text] of Object.entries(options)) select.add(new Option(text, value));
  select.addEventListener("change", show);
  return select;
}

function band(curve, x, y) {
  const keep = y.low.map((v, i) => i).filter((i) => y.low[i] !== null && y.high[i] !== null);
  return {
    type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself", hoverinfo: "skip",
    fillcolor: `${curve.colour}/0.1`,
    x: [...keep.map((i) => x[i]), ...keep.map((i) => x[i]).reverse()],
    y: [...keep.map((i) => y.high[i]), ...keep.map((i) => y.low[i]).reverse()],
  };
}

// The range of the last three quarters of the run, where the entries are close and the question is which is ahead; a
// double click shows all.  Logarithmic axes do not need it.
function closer(shown, y) {
  const late = shown.flatMap(({ y: { [y]: { mean } } }) => mean.slice(mean.length >> 2)).filter((v) => v !== null);
  const [low, high] = [Math.min(...late), Math.max(...late)];
  return low < high ? [low - 0.08 * (high - low), high + 0.08 * (high - low)] : undefined;
}

function sensitivity() {
  if (!data.sensitivity) return;
  draw("sensitivity", { ...data.sensitivity, data: data.sensitivity.data.filter((t) => !hidden.has(t.legendgroup)) });
}

function show() {
  const x = against.value, y = what.value;
  const shown = data.curves.filter((curve) => !hidden.has(curve.entry));
  const lines = shown.map((curve) => ({
    type: "scatter", mode: "lines", line: { color: curve.colour, width: 2, dash: curve.dash },
    x: curve.x[x], y: curve.y[y].mean, text: curve.x[x].map(() => curve.entry),
    hovertemplate: "%{y:.4g} %{text}<extra></extra>",
  }));
  const several = shown.filter((curve) => curve.y[y].mean.some((v, i) => v !== null && curve.y[y].low[i] !== v));
  draw("curves", {
    data: [...several.map((curve) => band(curve, curve.x[x], curve.y[y])), ...lines],
    layout: {
      xaxis: { title: { text: data.axes.x[x] } }, hovermode: "x",
      yaxis: {
        title: { text: data.axes.y[y] }, exponentformat: "power",
        ...(y.endsWith("loss") ? { type: "log" } : { type: "linear", range: closer(shown, y) }),
      },
    },
  });
}

const what = document.getElementById("what") && fill("what", data.axes.y);
const against = what && fill("against", data.axes.x);
if (what) {
  for (const curve of data.curves) {
    const button = document.createElement("button");
    const dot = document.createElement("span");
    dot.className = "dot";
    dot.style.background = curve.colour;
    button.append(dot, curve.entry);
    button.setAttribute("aria-pressed", String(!hidden.has(curve.entry)));
    button.addEventListener("click", () => {
      hidden.has(curve.entry) ? hidden.delete(curve.entry) : hidden.add(curve.entry);
      button.setAttribute("aria-pressed", String(!hidden.has(curve.entry)));
      show();
      sensitivity();
    });
    const item = document.createElement("li");
    item.append(button);
    document.getElementById("keys").append(item);
  }
  show();
}
sensitivity();

for (const link of document.querySelectorAll('a[href^="#run-"]')) {
  link.addEventListener("click", () => (document.querySelector(link.hash).closest("details").open = true));
}

document.getElementById("copy")?.addEventListener("click", async (event) => {
  await navigator.clipboard.writeText(document.getElementById("code").textContent);
  event.target.textContent = "Copied";
});
