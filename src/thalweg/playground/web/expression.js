// A formula that somebody typed: read, differentiated and computed here.  Nothing is evaluated as code.  The
// operations, and what their derivatives are, are those of thalweg's graphs (printed.js).
import { OPERATIONS, PULLED } from "./printed.js";

const LONGEST = 300;
const DEEPEST = 60;
const MOST_NODES = 4000;
const TOKEN = /\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(\*\*|<=|>=|[-+*/^(),<>]))/y;
const INFIX = new Map([
  ["+", "add"],
  ["-", "sub"],
  ["*", "mul"],
  ["/", "div"],
  ["<", "lt"],
  ["<=", "le"],
  [">", "gt"],
  [">=", "ge"],
]);
const HIDDEN = new Set(["add", "sub", "mul", "div", "neg", "pow", "lt", "le", "gt", "ge", "eq", "ne", "single"]);
const WORDS = new Map(
  Object.keys(OPERATIONS)
    .filter((op) => !HIDDEN.has(op))
    .map((op) => [op, op]),
);
for (const [also, op] of [
  ["max", "maximum"],
  ["min", "minimum"],
  ["ln", "log"],
])
  WORDS.set(also, op);
const CONSTANTS = new Map([
  ["pi", Math.PI],
  ["e", Math.E],
]);

class FormulaError extends Error {}

// Expressions in which equal ones are one node, and constants are folded.
class Graph {
  constructor() {
    this.known = new Map();
    this.x = this.node("input", ["x"]);
    this.y = this.node("input", ["y"]);
  }

  node(op, args) {
    const key = `${op} ${args.map((a) => (typeof a === "object" ? `#${a.id}` : a)).join(" ")}`;
    if (!this.known.has(key)) {
      if (this.known.size >= MOST_NODES) throw new FormulaError("the formula is too large");
      this.known.set(key, { op, args, id: this.known.size });
    }
    return this.known.get(key);
  }

  constant(value) {
    return this.node("const", [value]);
  }

  make(op, ...args) {
    const is = (k, value) => args[k].op === "const" && args[k].args[0] === value;
    if (args.every((a) => a.op === "const")) return this.constant(+OPERATIONS[op](...args.map((a) => a.args[0])));
    if ((op === "mul" && is(0, 1)) || (op === "add" && is(0, 0))) return args[1];
    if ((["mul", "div", "pow"].includes(op) && is(1, 1)) || (["add", "sub"].includes(op) && is(1, 0))) return args[0];
    if (op === "mul" && (is(0, 0) || is(1, 0))) return this.constant(0);
    return this.node(op, args);
  }

  // A tree of PULLED with nodes in place of its letters.
  grown(tree, letters) {
    if (typeof tree === "number") return this.constant(tree);
    if (typeof tree === "string") return letters[tree];
    return this.make(tree[0], ...tree.slice(1).map((part) => this.grown(part, letters)));
  }

  // The derivatives of a node by x and y: from the result backwards, what reaches a node is added up.
  gradient(of) {
    const ordered = order([of]);
    const varies = new Set();
    for (const node of ordered)
      if (node === this.x || node === this.y || (node.op !== "const" && node.args.some((a) => varies.has(a))))
        varies.add(node);
    const sums = new Map([[of, this.constant(1)]]);
    for (const node of ordered.reverse()) {
      if (!varies.has(node) || !sums.has(node) || node.op === "input" || !PULLED[node.op]) continue;
      const [a, b, c] = node.args;
      node.args.forEach((operand, k) => {
        if (!varies.has(operand)) return;
        const part = this.grown(PULLED[node.op][k], { d: sums.get(node), y: node, a, b, c });
        sums.set(operand, sums.has(operand) ? this.make("add", sums.get(operand), part) : part);
      });
    }
    return [this.x, this.y].map((input) => sums.get(input) ?? this.constant(0));
  }
}

// Every node once, operands first.
function order(roots) {
  const ordered = new Set();
  const visit = (node) => {
    if (ordered.has(node)) return;
    if (node.op !== "input" && node.op !== "const") node.args.forEach(visit);
    ordered.add(node);
  };
  roots.forEach(visit);
  return [...ordered];
}

// (x, y) => the values of some nodes.
function compiled(roots) {
  const nodes = order(roots);
  const place = new Map(nodes.map((node, k) => [node, k]));
  const values = new Float64Array(nodes.length);
  const work = [];
  let [atX, atY] = [-1, -1];
  nodes.forEach((node, k) => {
    if (node.op === "const") values[k] = node.args[0];
    else if (node.op === "input" && node.args[0] === "x") atX = k;
    else if (node.op === "input") atY = k;
    else work.push([k, OPERATIONS[node.op], ...[0, 1, 2].map((i) => place.get(node.args[i]) ?? 0)]);
  });
  const results = roots.map((root) => place.get(root));
  return (x, y) => {
    if (atX >= 0) values[atX] = x;
    if (atY >= 0) values[atY] = y;
    for (const [k, operation, a, b, c] of work) values[k] = operation(values[a], values[b], values[c]);
    return results.map((k) => values[k]);
  };
}

class Reader {
  constructor(text, graph) {
    if (text.length > LONGEST)
      throw new FormulaError(`the formula has ${text.length} letters; at most ${LONGEST} are read`);
    this.graph = graph;
    this.tokens = [];
    this.depth = 0;
    TOKEN.lastIndex = 0;
    let from = 0;
    while (text.slice(from).trim()) {
      TOKEN.lastIndex = from;
      const found = TOKEN.exec(text);
      if (!found)
        throw new FormulaError(
          `“${text.slice(from).trim()[0]}” is not understood; write numbers, x, y, + − * / ** and ${[...WORDS.keys()].join(", ")}`,
        );
      this.tokens.push({ number: found[1], name: found[2], sign: found[3] });
      from = TOKEN.lastIndex;
    }
    if (!this.tokens.length) throw new FormulaError("there is no formula; write one such as x**2 + 10*sin(y)");
  }

  take(...signs) {
    if (!this.tokens.length || !signs.includes(this.tokens[0].sign)) return null;
    return this.tokens.shift().sign;
  }

  whole() {
    const node = this.comparison();
    if (this.tokens.length) throw new FormulaError(`“${said(this.tokens[0])}” was not expected there`);
    return node;
  }

  comparison() {
    const left = this.sum();
    const sign = this.take("<", "<=", ">", ">=");
    return sign ? this.graph.make(INFIX.get(sign), left, this.sum()) : left;
  }

  sum() {
    let node = this.product();
    for (let sign; (sign = this.take("+", "-"));) node = this.graph.make(INFIX.get(sign), node, this.product());
    return node;
  }

  product() {
    let node = this.signed();
    for (let sign; (sign = this.take("*", "/"));) node = this.graph.make(INFIX.get(sign), node, this.signed());
    return node;
  }

  signed() {
    if ((this.depth += 1) > DEEPEST) throw new FormulaError("the formula is nested too deeply");
    const sign = this.take("+", "-");
    const node = sign ? this.signed() : this.power();
    this.depth -= 1;
    return sign === "-" ? this.graph.make("neg", node) : node;
  }

  power() {
    const base = this.atom();
    return this.take("**", "^") ? this.graph.make("pow", base, this.signed()) : base;
  }

  atom() {
    const token = this.tokens.shift();
    if (!token) throw new FormulaError("the formula ends too early");
    if (token.number) return this.graph.constant(+token.number);
    if (token.sign === "(") return this.closed(this.comparison());
    if (token.sign) throw new FormulaError(`“${token.sign}” was not expected there`);
    const { name } = token;
    if (name === "x" || name === "y") return this.graph[name];
    if (CONSTANTS.has(name)) return this.graph.constant(CONSTANTS.get(name));
    if (!WORDS.has(name))
      throw new FormulaError(
        `“${name}” is not known; there are x, y, ${[...CONSTANTS.keys(), ...WORDS.keys()].join(", ")}`,
      );
    const op = WORDS.get(name);
    if (!this.take("(")) throw new FormulaError(`${name} needs brackets, as in ${name}(x)`);
    const args = [this.comparison()];
    while (this.take(",")) args.push(this.comparison());
    const wanted = OPERATIONS[op].length;
    if (args.length !== wanted)
      throw new FormulaError(`${name} takes ${wanted} argument${wanted > 1 ? "s" : ""}, not ${args.length}`);
    return this.closed(this.graph.make(op, ...args));
  }

  closed(node) {
    if (!this.take(")")) throw new FormulaError("a bracket is not closed");
    return node;
  }
}

const said = (token) => token.number ?? token.name ?? token.sign;

// The functions of a formula in x and y: its height, slope [gx, gy] and curvature [hxx, hxy, hyy].
export function understood(text) {
  const graph = new Graph();
  const height = new Reader(text, graph).whole();
  const [gx, gy] = graph.gradient(height);
  const [hxx, hxy] = graph.gradient(gx);
  const [, hyy] = graph.gradient(gy);
  return { height: compiled([height]), slope: compiled([gx, gy]), curvature: compiled([hxx, hxy, hyy]) };
}
