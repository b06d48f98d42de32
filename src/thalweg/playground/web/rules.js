// Rules by name: families with their settings and options, and the form that a choice of options is.
import { FAMILIES, FORMS, PRESETS } from "./printed.js";
import { METHODS } from "./methods.js";

const PACE_STEPS = 200;

export const families = new Map([
  ...Object.entries(FAMILIES),
  ...Object.entries(METHODS).map(([name, method]) => [name, method.family]),
]);

const presets = new Map(Object.entries(PRESETS));

export const ruleNames = [...families.keys(), ...presets.keys()];

// What a name means: the family, with the settings and the chosen options in full.
export function meant(name) {
  const preset = presets.get(name);
  const family = preset ? preset.family : name;
  const { settings, options } = families.get(family);
  const numbers = Object.fromEntries(Object.entries(settings).map(([key, setting]) => [key, setting.value]));
  const chosen = Object.fromEntries(Object.entries(options).map(([key, option]) => [key, option.chosen]));
  return { family, settings: { ...numbers, ...preset?.settings }, options: { ...chosen, ...preset?.options } };
}

// The form of a family with certain options, or null if they do not go together.
export function formOf(family, options) {
  if (METHODS[family]) return METHODS[family].form;
  const known = families.get(family);
  const key = Object.keys(known.options)
    .map((name) => options[name])
    .join(",");
  return Object.hasOwn(known.forms, key) ? FORMS[known.forms[key]] : null;
}

export function places(form) {
  let next = 0;
  const found = {};
  for (const [name, width] of Object.entries(form.widths)) {
    found[name] = [next, width];
    next += width;
  }
  return { found, size: next };
}

// How far a constant gradient carries a parameter.
function travelled(form, h, gradient, steps) {
  const size = places(form).size;
  let p = [-1, 0];
  let s = new Float64Array(size);
  const out = new Float64Array(2 + size);
  form.init(p, null, s, 0, h, out);
  s = out.slice(2);
  for (let t = 1; t <= steps; t++) {
    form.step(p, [gradient, 0], s, t, h, out);
    p = [out[0], out[1]];
    s = out.slice(2);
  }
  return Math.abs(p[0] + 1);
}

// A learning rate to suit a surface, so that rules with very different steps can be shown side by side.  A rule whose
// steps, or first step, are proportional to the gradient gets the surface's own; one that rescales gradients gets the
// rate at which a constant gradient carries it across the window in 200 steps.  Both are found by running the rule.
export function suggestedRate(family, form, settings, surface) {
  if (METHODS[family]) return METHODS[family].rate;
  const h = (lr) => form.numbers.map((name) => (name === "lr" ? lr : settings[name]));
  const place = form.numbers.indexOf("lr");
  if (place < 0) return settings.lr;
  const far = (lr, gradient, steps) => travelled(form, h(lr), gradient, steps);
  if ([1, PACE_STEPS].some((n) => far(1, 2, n) > 1.5 * far(1, 1, n))) return surface.lr;
  const [left, right, low, high] = surface.window;
  const span = Math.max(right - left, high - low);
  let rate = span / far(1, 1, PACE_STEPS);
  const reached = far(rate, 1, PACE_STEPS);
  if (!(span / 2 < reached && reached < 2 * span)) {
    // The steps are not proportional to the rate either, as where they are proportional to the parameter.
    let [least, most] = [1e-6, 1];
    for (let k = 0; k < 30; k++) {
      rate = Math.sqrt(least * most);
      if (far(rate, 1, PACE_STEPS) < span) least = rate;
      else most = rate;
    }
  }
  return +rate.toPrecision(2);
}
