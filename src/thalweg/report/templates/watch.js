// The report, growing: hears what has changed, and draws it.
let source = null, begun = false, due = false, hub = null, progress = null;

function connect() {
  const told = new URLSearchParams(location.search);
  if (chosen.race) told.set("race", chosen.race);
  source = new EventSource(`events?${told}`);
  source.onmessage = (event) => hear(JSON.parse(event.data));
  source.onerror = () => say(source.readyState === EventSource.CLOSED
    ? "The command that watches has refused this page; open the address that it prints."
    : "The command that watches cannot be reached; it may have been ended. This page tries again, and shows what it last heard.");
}

function say(problem) {
  $("problem").hidden = !problem;
  $("problem").textContent = problem ?? "";
}

function hear(message) {
  if (message.hub) {
    hub = message.hub;
    say(hub.problem);
    tell();
    return;
  }
  if (message.whole) Object.assign(data, { runs: [], kept: [], entries: [] });
  const { about, kept, parts, runs, gone, title } = message.race;
  progress = message.race.progress ?? progress;
  Object.assign(data, about, kept && { kept });
  if (title) document.title = title;
  for (const [name, html] of Object.entries(parts ?? {})) put($(name), html);
  if (runs || gone) {
    const left = new Map(data.runs.map((run) => [run.key, run]));
    for (const key of gone ?? []) left.delete(key);
    for (const run of runs ?? []) left.set(run.key, run);
    const place = new Map(data.entries.map((entry, i) => [entry.name, i]));
    const order = (run) => [run.status === "running" ? 0 : 1, place.get(run.entry), run.phase === "tune" ? 1 : 0, run.trial, run.seed];
    const keyed = [...left.values()].map((run) => [order(run), run]);
    keyed.sort(([a], [b]) => a.map((x, i) => x - b[i]).find((x) => x) ?? 0);
    data.runs = keyed.map(([, run]) => run);
  }
  tell();
  if (!about && !kept && !runs && !gone) return;
  due = true;
  requestAnimationFrame(drawDue);
}

// Drawn once for all that has been heard since, and only while somebody looks.
function drawDue() {
  if (!due || document.hidden) return;
  due = false;
  if (begun) return redraw();
  begun = true;
  start();
}
document.addEventListener("visibilitychange", drawDue);

// A part in the place of the one before; what was unfolded stays so.
function put(place, html) {
  const open = [...place.querySelectorAll("details")].map((details) => details.open);
  place.innerHTML = html;
  place.querySelectorAll("details").forEach((details, i) => { details.open = open[i] ?? false; });
}

function ago(seconds) {
  const [size, unit] = seconds >= 5400 ? [3600, "hours"] : seconds >= 90 ? [60, "minutes"] : [1, "seconds"];
  return `${Math.round(seconds / size)} ${unit} ago`;
}

function tell() {
  if (!hub) return;
  const { races, machine, now } = hub, select = $("races");
  $("choice").hidden = races.length < 2 && !(chosen.race && races.length && races[0].name !== chosen.race);
  const current = progress?.race ?? chosen.race ?? "", names = races.map((race) => race.name);
  const wanted = [...(current && !names.includes(current) ? [current] : []), ...names];
  if ([...select.options].map((option) => option.value).join("\n") !== wanted.join("\n")) {
    select.replaceChildren(...wanted.map((name) => new Option(short(name), name)));
  }
  if (document.activeElement !== select) select.value = current;
  if (machine) $("machine").textContent = `The machine that this page is from: processors ${Math.round(machine.processors)} % busy, ${(machine.used / 2 ** 30).toFixed(1)} of ${(machine.memory / 2 ** 30).toFixed(1)} GB of memory in use${machine.load === null ? "" : `, load ${machine.load.toFixed(1)} on ${machine.cores} ${machine.cores === 1 ? "core" : "cores"}`}.`;
  if (!progress) {
    $("done").textContent = chosen.race ? `Waiting for the race ${short(chosen.race)} to begin …` : "Waiting for a race to begin …";
    return;
  }
  const { done, total, under, left, complete, news } = progress, silent = now - news;
  $("bar").max = Math.max(total, 1);
  $("bar").value = done;
  const words = [`${done.toLocaleString("en")} of ${total.toLocaleString("en")} runs have ended`];
  if (complete) words.push("the race is complete");
  else if (silent > 60) words.push(`the last news came ${ago(silent)}; if its command has ended, the same command goes on with it`);
  else words.push(...(under ? [`${under.toLocaleString("en")} under way`] : []), ...(left ? [`${left} left`] : []));
  $("done").textContent = words.join("; ");
}

$("races").addEventListener("change", () => {
  Object.assign(chosen, { race: $("races").value, hidden: null, filter: "" });
  remember();
  location.reload();
});
connect();
