/** Making elements. Text is only ever set as text: what agents answer must never become markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `props` are properties (`className`, `onclick`), attributes where the name holds a
 * dash or is not a property (`aria-label`), and `data`; children are nodes or text, nullish left out.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "data") Object.assign(node.dataset, value);
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Text in which what stands between backticks is code, as parts for `el`. */
export function prose(text) {
  return text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));
}

/** The element of this id in the page. */
export function byId(id) {
  return document.getElementById(id);
}

/** Set text only where it differs: the least work for a page that changes many times a second. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set the texts of a cell's two lines. */
export function pair(cell, first, second) {
  say(cell.children[0], first);
  say(cell.children[1], second);
}

/** A cell of two lines, of these classes. */
export function twoLines(kind = "", first = "", second = "soft") {
  return el("span", { className: `two ${kind}` }, el("span", { className: first }), el("span", { className: second }));
}

/** A button that is disabled while its action is under way. */
export function action(label, run, props = {}) {
  const button = el("button", { type: "button", ...props }, label);
  button.addEventListener("click", async (event) => {
    event.stopPropagation();
    button.disabled = true;
    try {
      await run();
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

/** `call`, at most once each `ms`, the last time after the last request for it. */
export function throttled(ms, call) {
  let waiting = null;
  let last = -Infinity;
  return () => {
    if (waiting !== null) return;
    waiting = setTimeout(() => {
      waiting = null;
      last = performance.now();
      call();
    }, Math.max(0, last + ms - performance.now()));
  };
}
