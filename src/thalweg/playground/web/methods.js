// Methods that are more than an update rule: they use second derivatives, or look at the loss itself.

const SETTING = { low: 0, high: null, lowOpen: false, highOpen: false, search: null, log: true };
const INSTEAD = { p: "θₜ", g: "gₜ" };

function refused(out, why) {
  out[0] = out[1] = NaN;
  out.why = why;
}

// θ ← θ − η(H + λI)⁻¹g, by Cholesky; refused where H + λI is not positive definite, as by thalweg.curvature.Newton.
const newton = {
  numbers: ["lr", "damping"],
  widths: {},
  roles: {},
  lines: [
    ["Hₜ", "∇²f(θₜ₋₁)"],
    ["dₜ", "(Hₜ + λI)⁻¹·gₜ"],
    [INSTEAD.p, "θₜ₋₁ − η·dₜ"],
  ],
  fields: ["", "", "p"],
  ahead: null,
  looks: true, // at the surface, besides the gradient
  init() {},
  step(p, g, s, t, h, out, seen, surface) {
    const [xx, xy, yy] = surface.curvature(p[0], p[1]);
    const [a, c] = [xx + h[1], yy + h[1]];
    const first = Math.sqrt(a);
    const below = xy / first;
    const second = Math.sqrt(c - below * below);
    if (!(a > 0 && c - below * below > 0)) {
      const least = surface.bends(p[0], p[1])[1];
      return refused(
        out,
        `the curvature here is negative or zero (${least.toPrecision(3)}): set the damping above ${Math.max(0, -least).toPrecision(3)}`,
      );
    }
    const u = g[0] / first;
    const v = (g[1] - below * u) / second;
    const dy = v / second;
    const dx = (u - below * dy) / first;
    out[0] = p[0] - h[0] * dx;
    out[1] = p[1] - h[0] * dy;
    if (seen) seen.push([xx, xy, yy], [dx, dy], [out[0], out[1]]);
  },
};

const HALVINGS = 60;

// Steepest descent that halves its step until the loss falls enough: Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.
const lineSearch = {
  numbers: ["lr", "share"],
  widths: {},
  roles: {},
  lines: [
    ["αₜ", "η·2⁻ᵏ, the first with f(θₜ₋₁ − αₜ·gₜ) ≤ f(θₜ₋₁) − c·αₜ·‖gₜ‖²"],
    [INSTEAD.p, "θₜ₋₁ − αₜ·gₜ"],
  ],
  fields: ["", "p"],
  ahead: null,
  looks: true, // at the surface, besides the gradient
  init() {},
  step(p, g, s, t, h, out, seen, surface) {
    const begin = surface.height(p[0], p[1]);
    const square = g[0] * g[0] + g[1] * g[1];
    let rate = h[0];
    for (let k = 0; k < HALVINGS; k++) {
      if (surface.height(p[0] - rate * g[0], p[1] - rate * g[1]) <= begin - h[1] * rate * square) break;
      rate /= 2;
    }
    out[0] = p[0] - rate * g[0];
    out[1] = p[1] - rate * g[1];
    if (seen) seen.push(rate, [out[0], out[1]]);
  },
};

export const METHODS = {
  newton: {
    form: newton,
    rate: 1,
    family: {
      text: "newton",
      doc: "Newton's method with the exact second derivatives.",
      source: "Goodfellow et al. 2016, Algorithm 8.8 (η = 1, λ = 0).",
      settings: { lr: { ...SETTING, symbol: "η", value: 1 }, damping: { ...SETTING, symbol: "λ", value: 0 } },
      options: {},
      forms: { "": -1 },
    },
  },
  line_search: {
    form: lineSearch,
    rate: 1,
    family: {
      text: "line_search",
      doc: "Gradient descent that tries a step and halves it until the loss falls enough.",
      source: "Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.",
      settings: {
        lr: { ...SETTING, symbol: "η", value: 1 },
        share: { ...SETTING, symbol: "c", value: 1e-4, high: 1, highOpen: true },
      },
      options: {},
      forms: { "": -1 },
    },
  },
};
