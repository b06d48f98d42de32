// Which runs are shown: what is chosen and typed, which the address keeps, so that a reload shows the same.
const asked = new URLSearchParams(location.hash.slice(1));
const chosen = {
  y: asked.get("y"), x: asked.get("x"), of: asked.get("of"), as: asked.get("as"), filter: asked.get("filter") ?? "",
  race: asked.get("race"), hidden: asked.has("hide") ? new Set(asked.getAll("hide").filter(Boolean)) : null,
};

function remember() {
  const told = new URLSearchParams();
  for (const name of ["race", "y", "of", "as", "x", "filter"]) if (chosen[name]) told.set(name, chosen[name]);
  if (chosen.hidden) for (const entry of chosen.hidden.size ? chosen.hidden : [""]) told.append("hide", entry);
  history.replaceState(null, "", `${location.pathname}${location.search}${told.size ? `#${told}` : ""}`);
}

const FIELDS = { entry: "entry", phase: "phase", trial: "trial", seed: "seed", status: "status", validation: "validation", test: "test", step: "best_step", seconds: "seconds" };

// What a word of the filter asks of a run: a comparison such as lr<0.1, or to be contained.
function asks(word) {
  const found = /^([\w.]+)(<=|>=|<|>|=)(.+)$/.exec(word);
  if (found) {
    const [, name, sign, text] = found, wanted = Number(text);
    return (run) => {
      const value = name in FIELDS ? run[FIELDS[name]] : run.settings[name];
      if (value === undefined || value === null) return false;
      if (sign === "=") return typeof value === "number" ? value === wanted : value.toLowerCase() === text;
      return typeof value === "number" &&
        { "<": value < wanted, ">": value > wanted, "<=": value <= wanted, ">=": value >= wanted }[sign];
    };
  }
  return (run) => [run.entry, run.phase, run.status, run.rule, run.schedule, run.said, run.key].some((text) => text.toLowerCase().includes(word));
}

// The runs that the filter and the names let through.
function matching() {
  const words = chosen.filter.toLowerCase().split(/\s+/).filter(Boolean).map(asks);
  return data.runs.filter((run) => !chosen.hidden.has(run.entry) && words.every((word) => word(run)));
}
