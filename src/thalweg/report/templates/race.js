// The page of a race: figures and table, all drawn from the runs that the filter lets through.
const FEW = 8; // entries that are shown at first, if there are many
const LINES = 200, ROWS = 300; // runs that are drawn each by itself, of which entries share evenly, and rows of the table
const TRIALS = 200; // of an entry, that are drawn against the learning rate
const OF = { "": "the furthest: replicates, or trials", kept: "what replicates keep", final: "all final runs", tune: "trials", all: "all runs" };
const AS = { "": "bands, and runs under way", lines: "a line for each run, 200 at most" };
const COLUMNS = ["entry", "phase", "trial", "seed", "rule", "status", "validation", "test", "at step", "seconds", "key"];
const NUMBERS = new Set(["trial", "seed", "validation", "test", "at step", "seconds"]);
const $ = (id) => document.getElementById(id);

const short = (text) => (text.length <= 60 ? text : `${text.slice(0, 40)} … ${text.slice(-15)}`);
// For Plotly, which reads some tags and its own %{…}.
const plain = (text) => short(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("%{", "% {");
const number = (v) => (v === null || v === undefined ? "–" : Number.isInteger(v) ? v.toLocaleString("en") : v && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5) ? v.toExponential(2) : String(+v.toPrecision(4))).replace("-", "−");
const phase = (run) => (run.phase === "tune" ? "trial" : "replicate");
const label = (run) => `${run.status === "finished" ? "" : `${run.status}, `}${phase(run)}, seed ${run.seed}, trial ${run.trial}`;
const lost = (run) => run.status === "diverged" || run.status === "failed";

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function dot(colour) {
  const made = element("span", undefined, "dot");
  made.style.background = colour;
  return made;
}

// A column of a curve at each of these values of another column; null before its first and after its last.
function at(curve, along, name, grid) {
  const x = curve[along], y = curve[name];
  let i = 0;
  return grid.map((g) => {
    while (i < x.length - 1 && x[i + 1] <= g) i++;
    if (!x.length || x[i] > g) return null;
    if (x[i] === g) return y[i];
    if (i + 1 >= x.length || y[i] === null || y[i + 1] === null) return null;
    return y[i] + ((y[i + 1] - y[i]) * (g - x[i])) / (x[i + 1] - x[i]);
  });
}

// Mean, lowest and highest of runs, where all of them have a value.
function band(runs, x, y) {
  const along = data.along;
  const end = Math.min(...runs.map((run) => run.curve[along].at(-1)));
  const grid = [...new Set(runs.flatMap((run) => run.curve[along]))].filter((g) => g <= end).sort((a, b) => a - b);
  const of = (name) => runs.map((run) => at(run.curve, along, name, grid));
  const [xs, ys] = [of(x), of(y)];
  const mean = (columns, i) => columns.reduce((sum, column) => sum + column[i], 0) / columns.length;
  const whole = grid.map((_, i) => i).filter((i) => ys.every((column) => column[i] !== null) && xs.every((column) => column[i] !== null));
  return {
    x: whole.map((i) => mean(xs, i)), mean: whole.map((i) => mean(ys, i)),
    low: whole.map((i) => Math.min(...ys.map((column) => column[i]))),
    high: whole.map((i) => Math.max(...ys.map((column) => column[i]))),
  };
}

// The runs whose curves are drawn.
function drawnOf(runs) {
  const kept = new Set(data.kept);
  const of = chosen.of || (data.kept.length ? "kept" : "tune");
  const found = runs.filter((run) => run.curve.step.length && (of === "all" || (of === "kept" ? kept.has(run.key) || (run.status === "running" && run.phase === "final") : run.phase === of)));
  return found;
}

// The range of the last three quarters of the runs, where the entries are close and the question is which is ahead; a
// double click shows all.  Logarithmic axes do not need it.
function closer(columns) {
  const late = columns.flatMap((column) => column.slice(column.length >> 2)).filter((v) => v !== null);
  let low = Infinity, high = -Infinity;
  for (const v of late) { low = Math.min(low, v); high = Math.max(high, v); }
  return low < high ? [low - 0.08 * (high - low), high + 0.08 * (high - low)] : undefined;
}

// A thin line for each of these runs of an entry, or a dot.  All are one trace with gaps, which is ten times as fast as
// a trace for each.
function apart(entry, runs, x, y) {
  const long = runs.filter((run) => run.curve[x].length > 1), points = runs.filter((run) => run.curve[x].length === 1);
  const of = (some, value) => some.flatMap((run) => [...value(run), null]);
  const common = { type: "scatter", name: entry.name, hovertemplate: "%{y:.4g} %{text}<extra></extra>" };
  const traced = (some) => ({
    x: of(some, (run) => run.curve[x]), y: of(some, (run) => run.curve[y]),
    text: of(some, (run) => run.curve[x].map(() => `${plain(entry.name)}, ${label(run)}`)),
  });
  const made = [];
  if (long.length) made.push({ ...common, mode: "lines", line: { color: `${entry.colour}/0.55`, width: 1, dash: entry.dash }, ...traced(long) });
  if (points.length) made.push({ ...common, mode: "markers", marker: { color: `${entry.colour}/0.55`, size: 4 }, ...traced(points) });
  return made;
}

// Of many trials, by their rates, the best and the worst of each of equally many neighbours: no extreme is lost.
function extremes(trials) {
  if (trials.length <= TRIALS) return trials;
  const width = Math.ceil((2 * trials.length) / TRIALS), found = [];
  for (let i = 0; i < trials.length; i += width) {
    const some = trials.slice(i, i + width).map((run, j) => [run.validation, j]).sort(([a], [b]) => a - b);
    for (const j of new Set([some[0][1], some.at(-1)[1]].sort((a, b) => a - b))) found.push(trials[i + j]);
  }
  return found;
}

function drawCurves(runs) {
  const { x, y } = chosen, bands = [], lines = [], ranges = [];
  const those = drawnOf(runs), single = those.filter((run) => chosen.as === "lines" || run.status === "running");
  const share = single.length > LINES ? Math.max(Math.floor(LINES / new Set(single.map((run) => run.entry)).size), 1) : LINES;
  for (const entry of data.entries) {
    const own = those.filter((run) => run.entry === entry.name);
    const over = own.filter((run) => run.status !== "running");
    const steady = over.filter((run) => run.phase === "final" || run.status === "finished");
    const together = chosen.as === "lines" ? [] : steady.length ? steady : over;
    if (together.length) {
      const found = band(together, x, y);
      ranges.push(found.mean);
      if (found.low.some((v, i) => v !== found.high[i])) bands.push({
        type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself", hoverinfo: "skip",
        fillcolor: `${entry.colour}/0.1`,
        x: [...found.x, ...found.x.toReversed()], y: [...found.high, ...found.low.toReversed()],
      });
      lines.push({
        type: "scatter", mode: "lines", line: { color: entry.colour, width: 2, dash: entry.dash }, x: found.x, y: found.mean,
        name: entry.name, text: found.x.map(() => `${plain(entry.name)}, mean of ${together.length}`), hovertemplate: "%{y:.4g} %{text}<extra></extra>",
      });
    }
    const alone = single.filter((run) => run.entry === entry.name).slice(0, share);
    ranges.push(...alone.map((run) => run.curve[y]));
    if (alone.length) lines.push(...apart(entry, alone, x, y));
  }
  draw("curves", { data: [...bands, ...lines], layout: {
    uirevision: `${x} ${y}`, hovermode: "closest",
    xaxis: { title: { text: data.axes.x[x] } },
    yaxis: {
      title: { text: plain(data.axes.y[y]) }, exponentformat: "power",
      ...(y.endsWith("loss") ? { type: "log" } : { type: "linear", range: closer(ranges) }),
    },
    annotations: lines.length ? [] : [{ text: data.runs.length ? "no run matches" : "no run has reported yet", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }],
  } });
}

// The test metric of each entry, best on top: the replicates that are shown, the median and the interval.
function drawRanking(runs) {
  const kept = new Set(data.kept), traces = [];
  const shown = data.ranked.filter((row) => !chosen.hidden.has(row.entry)).toReversed();
  const place = new Map(shown.map((row, i) => [row.entry, i]));
  const colours = new Map(data.entries.map((entry) => [entry.name, entry.colour]));
  for (const row of shown) {
    const dots = runs.filter((run) => run.entry === row.entry && kept.has(run.key) && run.status === "finished");
    const colour = colours.get(row.entry), i = place.get(row.entry);
    traces.push({
      type: "scatter", mode: "markers", x: dots.map((run) => run.test), y: dots.map(() => i), name: row.entry,
      text: dots.map(label), hovertemplate: "%{x:.4f}, %{text}<extra></extra>", marker: { color: `${colour}/0.45`, size: 8 },
    });
    const reach = row.low === null || row.high === null ? {} : { error_x: {
      type: "data", symmetric: false, array: [row.high - row.test], arrayminus: [row.test - row.low], color: colour, thickness: 2, width: 6,
    } };
    traces.push({
      type: "scatter", mode: "markers", x: [row.test], y: [i], ...reach, name: row.entry,
      marker: { color: colour, size: 12, symbol: "diamond" }, hovertemplate: "median %{x:.4f}<extra></extra>",
    });
  }
  $("ranking").hidden = $("ranking-said").hidden = !data.ranked.length;
  if (!data.ranked.length) return;
  $("ranking").style.setProperty("--rows", Math.max(shown.length, 1));
  draw("ranking", { data: traces, layout: {
    xaxis: { title: { text: plain(`test ${data.metric}`) } }, hovermode: "closest",
    yaxis: { tickvals: shown.map((_, i) => i), ticktext: shown.map((row) => plain(row.entry)), range: [-0.6, shown.length - 0.4], showgrid: false, zeroline: false },
  } });
}

// The validation metric of each trial against its learning rate; lost trials are crosses at the bottom.
function drawSensitivity(runs) {
  const trials = (of) => of.filter((run) => run.phase === "tune" && run.status !== "running" && run.settings.lr !== undefined);
  const any = trials(data.runs);
  $("sensitive").hidden = new Set(any.map((run) => run.settings.lr)).size < 2;
  if ($("sensitive").hidden) return;
  const traces = [];
  for (const entry of data.entries) {
    const own = trials(runs).filter((run) => run.entry === entry.name).sort((a, b) => a.settings.lr - b.settings.lr);
    const alive = extremes(own.filter((run) => !lost(run))), gone = extremes(own.filter(lost));
    const common = { type: "scatter", name: entry.name, hovertemplate: `${plain(entry.name)}<br>lr %{x:.3g}, %{text}<extra></extra>` };
    traces.push({
      ...common, mode: "lines+markers", line: { color: entry.colour, width: 1.5, dash: entry.dash }, marker: { color: entry.colour, size: 7 },
      x: alive.map((run) => run.settings.lr), y: alive.map((run) => run.validation), text: alive.map((run) => `${number(run.validation)}, ${label(run)}`),
    }, {
      ...common, mode: "markers", yaxis: "y2", marker: { color: entry.colour, size: 9, symbol: "x-thin", line: { color: entry.colour, width: 2 } },
      x: gone.map((run) => run.settings.lr), y: gone.map(() => 0.03), text: gone.map(label),
    });
  }
  draw("sensitivity", { data: traces, layout: {
    uirevision: "sensitivity", hovermode: "closest",
    xaxis: { type: "log", title: { text: "learning rate" }, exponentformat: "power" },
    yaxis: { title: { text: plain(`validation ${data.metric}`) } },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
  } });
}

function fillTable(runs) {
  const colours = new Map(data.entries.map((entry) => [entry.name, entry.colour]));
  $("rows").replaceChildren(...runs.slice(0, ROWS).map((run) => {
    const row = element("tr"), name = element("td");
    name.append(dot(colours.get(run.entry)), short(run.entry));
    const rule = element("td"), key = element("td");
    rule.append(element("code", short(run.rule)));
    if (run.schedule) rule.append(element("br"), element("code", short(run.schedule)));
    key.append(element("code", run.key.slice(0, 12)));
    key.title = run.key;
    const cells = [run.validation, run.test, run.best_step, run.seconds].map((v) => element("td", number(v), "n"));
    row.append(
      name, element("td", phase(run)), element("td", run.trial, "n"), element("td", run.seed, "n"), rule,
      element("td", run.said ? `${run.status}: ${run.said.split("\n")[0]}` : run.status, "wrap"), ...cells, key,
    );
    return row;
  }));
  const more = runs.length - ROWS, all = data.runs.length;
  $("counted").textContent = `${runs.length === all ? "All" : `${runs.length.toLocaleString("en")} of`} ${all.toLocaleString("en")} runs${more > 0 ? `, the first ${ROWS} of them; the filter above finds others` : ""}`;
  $("matches").textContent = runs.length === all ? "" : `${runs.length.toLocaleString("en")} of ${all.toLocaleString("en")} runs`;
}

function fillKeys() {
  $("keys").replaceChildren(...data.entries.map(({ name, colour }) => {
    const button = element("button"), item = element("li");
    button.type = "button";
    button.append(dot(colour), short(name));
    button.title = name.slice(0, 1000);
    button.setAttribute("aria-pressed", String(!chosen.hidden.has(name)));
    button.addEventListener("click", () => {
      chosen.hidden.delete(name) || chosen.hidden.add(name);
      remember();
      redraw();
    });
    item.append(button);
    return item;
  }));
}

function redraw() {
  const focused = [...$("keys").querySelectorAll("button")].indexOf(document.activeElement);
  const runs = matching();
  fillKeys();
  if (focused >= 0) $("keys").querySelectorAll("button")[focused]?.focus();
  drawRanking(runs);
  drawCurves(runs);
  drawSensitivity(runs);
  fillTable(runs);
}

function choices(id, options, first) {
  const select = $(id);
  for (const [value, text] of Object.entries(options)) select.add(new Option(short(text), value));
  select.value = chosen[id] in options ? chosen[id] : first;
  chosen[id] = select.value;
  select.addEventListener("change", () => {
    chosen[id] = select.value;
    remember();
    redraw();
  });
}

function start() {
  chosen.hidden ??= new Set(data.entries.slice(FEW).map((entry) => entry.name));
  choices("y", data.axes.y, "validation_metric");
  choices("x", data.axes.x, "examples");
  choices("of", OF, "");
  choices("as", AS, "");
  $("filter").value = chosen.filter;
  $("filter").addEventListener("input", () => {
    chosen.filter = $("filter").value;
    remember();
    redraw();
  });
  $("columns").replaceChildren(...COLUMNS.map((name) => element("th", name, NUMBERS.has(name) ? "n" : "")));
  redraw();
}

document.addEventListener("click", async (event) => {
  const link = event.target.closest?.("a[data-entry]"), copy = event.target.closest?.(".copy button");
  if (link) {
    chosen.hidden = new Set(data.entries.map((entry) => entry.name).filter((name) => name !== link.dataset.entry));
    $("filter").value = chosen.filter = "phase=final";
    $("table").open = true;
    event.preventDefault();
    $("runs").scrollIntoView();
    remember();
    redraw();
  }
  if (copy) {
    await navigator.clipboard.writeText(copy.closest(".copy").querySelector("code").textContent);
    copy.textContent = "Copied";
  }
});
