// Numbers for people, and noise that depends on nothing but seed and step.

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

// Up to four digits, a proper minus sign, powers of ten as powers of ten.
export function shown(x) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "–" : x > 0 ? "∞" : "−∞";
  if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5)) {
    const [mantissa, exponent] = x.toExponential(2).split("e");
    const power = [...String(Math.abs(+exponent))].map((digit) => SUPERSCRIPTS[digit]).join("");
    return `${+mantissa}·10${+exponent < 0 ? "⁻" : ""}${power}`.replace("-", "−");
  }
  return String(+x.toPrecision(4)).replace("-", "−");
}

export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

function mixed(h) {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

// In (0, 1): a hash of seed, step and place, so that a step taken back and repeated sees the same noise.
function uniform(seed, t, k) {
  const h = mixed(mixed(mixed(seed + 0x9e3779b9) ^ (t * 2 + k + 0x7f4a7c15)) + t);
  return (h + 0.5) / 2 ** 32;
}

// Two independent numbers from the standard normal distribution, by Box and Muller.
export function normals(seed, t) {
  const radius = Math.sqrt(-2 * Math.log(uniform(seed, t, 0)));
  const angle = 2 * Math.PI * uniform(seed, t, 1);
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}
