/* Elements, made without markup: every text goes through textContent, so that no text can become markup. */

const SVG = "http://www.w3.org/2000/svg";

/* A character that a person does not see as itself: the rule of str.isprintable in Python, as in pydbt/core/printable.py. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** The text with every character that is not printable as an escape (\x1b): one line of what is seen, and no more. */
export function printable(text) {
  return String(text).replace(UNPRINTABLE, (one) => {
    const code = one.codePointAt(0);
    if (code < 0x100) return "\\x" + code.toString(16).padStart(2, "0");
    return code < 0x10000 ? "\\u" + code.toString(16).padStart(4, "0") : "\\U" + code.toString(16).padStart(8, "0");
  });
}

/** The beginning of a text of others, printable; never half of a character. */
export function cut(text, limit) {
  const whole = printable(text ?? "");
  const seen = Array.from(whole);
  return seen.length <= limit ? whole : seen.slice(0, limit - 1).join("") + "…";
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));
  return node;
}

/** An element with attributes and children. A string becomes a text node. */
export function el(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Touches the page only where the text differs, so that a reader's place in it is kept. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/**
 * A text of others in full: cut after `limit` characters, and the whole on demand.
 * The answer is an element to be put into the page as it is.
 */
export function told(text, limit = 72) {
  const whole = printable(text ?? "");
  const short = cut(whole, limit);
  if (short === whole) return el("bdi", { class: "told" }, whole);
  const count = Array.from(whole).length;
  return el(
    "details",
    { class: "told long" },
    el("summary", {}, el("bdi", {}, short), el("span", { class: "more" }, ` all ${count.toLocaleString("en")} characters`)),
    el("code", { class: "whole" }, whole),
  );
}

/** Children in the order of `items`, one per key: those that stay are kept, and updated. */
export function keyed(parent, items, keyOf, make, update) {
  const old = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = old.get(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    old.delete(key);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const gone of old.values()) gone.remove();
}
