// Elements.  All text goes in as text, never as markup.

function made(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, x] of Object.entries(value)) node.style.setProperty(property, x);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const el = (tag, properties = {}, ...children) => made(document.createElement(tag), properties, children);
export const byId = (id) => document.getElementById(id);

export function button(text, label, onclick, more = {}) {
  return el("button", { type: "button", "aria-label": label, title: label, onclick, ...more }, text);
}

export function select(label, choices, chosen, onchange, more = {}) {
  const options = choices.map(([value, text, disabled]) =>
    el("option", { value, selected: value === chosen, disabled: Boolean(disabled) }, text),
  );
  return el("select", { "aria-label": label, onchange: (event) => onchange(event.target.value), ...more }, ...options);
}

export function checkbox(text, checked, onchange, more = {}) {
  const box = el("input", { type: "checkbox", checked, onchange: (event) => onchange(event.target.checked), ...more });
  return el("label", { class: "check" }, box, text);
}

// Says something to screen readers, and shows it for a moment.
export function say(text) {
  byId("said").textContent = text;
}
