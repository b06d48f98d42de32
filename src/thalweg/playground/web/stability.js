// The largest stable learning rate on a quadratic: where a rule is linear, from the step itself.
import { places } from "./rules.js";

const LATE = 1e6; // a step so late that warm-ups and corrections are over

// The matrix of a step of one coordinate with curvature `bend`, or null if the rule is not linear in the gradient.
function matrix(form, h, bend) {
  if (form.looks) return null;
  const widths = Object.values(form.widths);
  if (widths.some((width) => width !== 2)) return null;
  const size = 1 + widths.length;
  const { size: fields } = places(form);
  const stepped = (z) => {
    const p = [z[0], 0];
    const s = new Float64Array(fields);
    for (let k = 1; k < size; k++) s[2 * (k - 1)] = z[k];
    const out = new Float64Array(2 + fields);
    let at = p[0];
    if (form.ahead) {
      form.ahead(p, null, s, LATE, h, out);
      at = out[0];
    }
    form.step(p, [bend * at, 0], s, LATE, h, out);
    return [out[0], ...Array.from({ length: size - 1 }, (_, k) => out[2 + 2 * k])];
  };
  const unit = (k, scale) => Array.from({ length: size }, (_, i) => (i === k ? scale : 0));
  const columns = Array.from({ length: size }, (_, k) => stepped(unit(k, 1)));
  const mixed = Array.from({ length: size }, (_, k) => 0.7 - 1.3 * k);
  for (const scale of [1, -3.5]) {
    const found = stepped(mixed.map((x) => scale * x));
    for (let i = 0; i < size; i++) {
      const wanted = scale * columns.reduce((sum, column, k) => sum + column[i] * mixed[k], 0);
      if (!(Math.abs(found[i] - wanted) <= 1e-9 * (1 + Math.abs(wanted)))) return null;
    }
  }
  return columns;
}

// The largest magnitude of an eigenvalue, by squaring the matrix again and again.
function radius(columns) {
  let a = columns;
  let logarithm = 0;
  for (let k = 0; k < 24; k++) {
    const norm = Math.sqrt(a.reduce((sum, column) => sum + column.reduce((s, x) => s + x * x, 0), 0));
    if (!(norm > 0)) return 0;
    logarithm += Math.log(norm) / 2 ** k;
    const scaled = a.map((column) => column.map((x) => x / norm));
    a = scaled.map((column) => scaled[0].map((_, i) => column.reduce((sum, x, j) => sum + scaled[j][i] * x, 0)));
  }
  return Math.exp(logarithm);
}

// By how much a step shrinks the distance to the minimum of a quadratic, in the long run; null if the rule rescales.
export function contraction(form, numbers, bend) {
  const found = matrix(form, numbers, bend);
  return found && radius(found);
}

// The largest rate that is stable on a quadratic of this curvature: null for a rule that rescales gradients, 0 where
// the surface curves downwards.
export function largestRate(form, numbers, bend) {
  const place = form.numbers.indexOf("lr");
  if (place < 0) return null;
  const shrinks = (lr) =>
    contraction(
      form,
      numbers.map((x, k) => (k === place ? lr : x)),
      Math.abs(bend) || 1,
    );
  if (shrinks(1e-3) === null) return null;
  if (!(bend > 0)) return 0;
  let [least, most] = [1e-9 / bend, 1e6 / bend];
  const stable = (lr) => shrinks(lr) <= 1 + 1e-9;
  if (stable(most)) return null;
  for (let k = 0; k < 38; k++) {
    const middle = Math.sqrt(least * most);
    if (stable(middle)) least = middle;
    else most = middle;
  }
  return least;
}
