// Elements without HTML: text stays text, whatever a run is called or has sampled.

const SVG = "http://www.w3.org/2000/svg";

export const h = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

// Sets text only where it differs, so that a selection or a screen reader is not disturbed.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function select(label, options, chosen, onchange) {
  const entries = options.map(([value, name]) =>
    h("option", { value, selected: value === chosen }, name));
  return h("select", { "aria-label": label, onchange: (event) => onchange(event.target.value) }, entries);
}

// One of a few, all of them in sight.
export function choice(label, options, chosen, onchange) {
  const buttons = options.map(([value, name]) => h("button", {
    type: "button", "aria-pressed": String(value === chosen),
    onclick: (event) => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.target));
      onchange(value);
    },
  }, name));
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

export function toggle(label, on, onchange) {
  return h("button", {
    type: "button", class: "toggle", "aria-pressed": String(on),
    onclick: (event) => {
      const next = event.target.getAttribute("aria-pressed") !== "true";
      event.target.setAttribute("aria-pressed", String(next));
      onchange(next);
    },
  }, label);
}
