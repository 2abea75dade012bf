// Elements, numbers as text, the tooltip. All files of this folder are joined into one module, in the order of page.py.

const SVG = "http://www.w3.org/2000/svg";
const MINUS = "\u2212";
const DASH = "–";

/** Give `node` attributes (`on…` are listeners, null and false are left out) and children; strings become text. */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element. */
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element. */
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const byId = (id) => document.getElementById(id);
const finite = (value) => typeof value === "number" && Number.isFinite(value);

/** `value` with fixed decimals, a true minus sign, never −0.0; a dash for a missing value. */
function number(value, digits = 1, signed = false) {
  if (!finite(value)) return DASH;
  const text = Math.abs(value).toFixed(digits);
  const zero = Number(text) === 0;
  const sign = zero ? "" : value < 0 ? MINUS : signed ? "+" : "";
  return sign + text;
}

/** `[0.3, 2.1]`; an end that excludes zero but would be rounded to it gets one more decimal. */
function bracket(low, high, digits = 1) {
  if (!finite(low) || !finite(high)) return `[${DASH}]`;
  const excludes = low > 0 || high < 0;
  const end = (value) => number(value, digits + (excludes && Number(value.toFixed(digits)) === 0 ? 1 : 0));
  return `[${end(low)}, ${end(high)}]`;
}

/** A select with [value, label] options; `onchange` gets the value. */
function fillSelect(select, options, value, onchange) {
  select.replaceChildren(...options.map(([key, label]) => el("option", { value: key, selected: key === String(value) }, label)));
  if (onchange) select.addEventListener("change", () => onchange(select.value));
}

/** Round numbers that span [low, high], about `count` of them. */
function ticks(low, high, count = 6) {
  const raw = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const tooltip = byId("tooltip");

let tipPlace = null;

/** Show lines of text beside (x, y) in the window; the first line is the heading. While the page scrolls, the text
 * follows `place()`, or disappears if there is none. */
function showTip(lines, x, y, place = null) {
  tooltip.replaceChildren(...lines.map((line, index) => el(index ? "span" : "strong", null, line)));
  tooltip.hidden = false;
  tipPlace = place;
  putTip(x, y);
}

function putTip(x, y) {
  const box = tooltip.getBoundingClientRect();
  const left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8));
  const top = y + 16 + box.height > innerHeight ? y - box.height - 12 : y + 16;
  tooltip.style.left = `${left}px`;
  tooltip.style.top = `${Math.max(8, top)}px`;
}

/** The keyboard's focus scrolls its target into view: its text must survive that. */
function followScroll() {
  if (tooltip.hidden) return;
  if (tipPlace) putTip(...tipPlace());
  else hideTip();
}

function hideTip() {
  tooltip.hidden = true;
}

/** Let `node` show `lines()` on hover and on keyboard focus; `label` is what a screen reader says. */
function addTip(node, lines, focusable = true) {
  if (focusable) {
    node.setAttribute("tabindex", "0");
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", lines().join(", "));
  }
  node.addEventListener("pointermove", (event) => showTip(lines(), event.clientX, event.clientY));
  node.addEventListener("pointerleave", hideTip);
  const beside = () => {
    const box = node.getBoundingClientRect();
    return [box.right, box.top + box.height / 2];
  };
  node.addEventListener("focus", () => showTip(lines(), ...beside(), beside));
  node.addEventListener("blur", hideTip);
  return node;
}
