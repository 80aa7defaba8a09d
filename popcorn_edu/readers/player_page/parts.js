// Colours, and making elements.
//
// Kernel k has colour k modulo 8 of a palette that colour-blind readers can tell apart (Okabe and
// Ito's), and its number is always beside the colour. INKS are the same hues, dark enough for lines.

const FILLS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#333333"];
const INKS = ["#00507D", "#7A5200", "#00664A", "#86365F", "#1B658F", "#933F00", "#675F00", "#111111"];
const ON_FILL = ["#fff", "#000", "#000", "#000", "#000", "#000", "#000", "#fff"];
const ALERT = "#A32000";

const SVG = "http://www.w3.org/2000/svg";
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ",");

function make(tag, attributes = {}, ...children) {
  const space = tag === "svg" || make.svg.has(tag) ? SVG : null;
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}
make.svg = new Set(["path", "circle", "rect", "g", "text", "line", "defs", "pattern", "title"]);

const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const setClass = (node, name, on) => { if (node.classList.contains(name) !== on) node.classList.toggle(name, on); };
const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const sentenceCase = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// A button that is of no use now stays where the focus may be; the keyboard is never lost.
function setOff(button, off) {
  if ((button.getAttribute("aria-disabled") === "true") !== off) button.setAttribute("aria-disabled", String(off));
}

const ICONS = {
  first: "M3 3v10M13 3L6 8l7 5z", back: "M11 3L4 8l7 5z", next: "M5 3l7 5-7 5z",
  last: "M13 3v10M3 3l7 5-7 5z", play: "M4 2l10 6-10 6z", pause: "M4 2h3v12H4zM9 2h3v12H9z",
};

function icon(name) {
  return make("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", class: "icon" },
    make("path", { d: ICONS[name] }));
}

function makeDialog(id, title, ...content) {
  const close = () => dialog.close();
  const dialog = make("dialog", { "aria-labelledby": id, onclick: (event) => { if (event.target === dialog) close(); } },
    make("div", { class: "dialog-body" }, make("div", { class: "dialog-head" }, make("h2", { id }, title),
      make("button", { type: "button", "aria-label": "Close", onclick: close }, "×")), ...content));
  dialog.addEventListener("keydown", (event) => { // Tab goes round inside; Esc is the browser's own
    if (event.key !== "Tab") return;
    const stops = [...dialog.querySelectorAll("button, input, select")].filter((node) => node.offsetParent !== null);
    const [first, last] = [stops[0], stops[stops.length - 1]];
    if (dialog.getRootNode().activeElement !== (event.shiftKey ? first : last)) return;
    event.preventDefault();
    (event.shiftKey ? last : first).focus();
  });
  return dialog;
}
