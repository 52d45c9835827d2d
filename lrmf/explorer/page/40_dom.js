// Elements, numbers and colours. Text from the data only ever becomes a text node or an attribute.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; `on*` are listeners, null children are left out. */
function make(tag, attributes = {}, ...children) {
  const isSvg = SVG_TAGS.has(tag);
  const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG_TAGS = new Set(["svg", "g", "path", "circle", "text", "line", "rect", "title"]);

/** Replace the children of an element; null ones are left out. */
const fill = (element, ...children) => element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));

const find = (id) => document.getElementById(id);

/** Points with one decimal. */
const points = (share) => (100 * share).toFixed(1);

const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];

/** Colour of a share of the range of scores: cividis, which every kind of eye can read. */
function colour(share) {
  const place = clip(share, 0, 1) * (CIVIDIS.length - 1);
  const below = Math.min(Math.floor(place), CIVIDIS.length - 2);
  const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => {
    const [a, b] = [channel(CIVIDIS[below], i), channel(CIVIDIS[below + 1], i)];
    return Math.round(a + (b - a) * (place - below));
  });
  return `rgb(${mixed.join(" ")})`;
}

/** Path of a node about the origin: a circle if evaluated, else a diamond. */
const nodeShape = (isEvaluated, r) =>
  isEvaluated ? `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0` : `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`;

/** A score with its interval on a scale from 0 to 100, with other scores as ticks. */
function bar({ score, lower, upper, isEvaluated = false, ticks = [] }) {
  const at = (share) => `${(100 * clip(share, 0, 1)).toFixed(2)}%`;
  const picture = make("svg", { class: "bar", "aria-hidden": "true" });
  picture.append(make("line", { class: "axis", x1: "0%", x2: "100%", y1: 10, y2: 10 }));
  if (upper > lower) picture.append(make("line", { class: "interval", x1: at(lower), x2: at(upper), y1: 10, y2: 10 }));
  for (const tick of ticks) picture.append(make("line", { class: "tick", x1: at(tick), x2: at(tick), y1: 3, y2: 17 }));
  const dotOf = isEvaluated ? make("circle", { class: "dot", cx: at(score), cy: 10, r: 4.5 }) : null;
  if (dotOf) picture.append(dotOf);
  else {
    // A diamond at a share of the width: a nested picture without a size of its own.
    const nest = make("svg", { x: at(score), y: 10, overflow: "visible" });
    nest.append(make("path", { class: "dot", d: nodeShape(false, 4.5) }));
    picture.append(nest);
  }
  return picture;
}

/** A button that looks like a link and goes to a model. */
function modelLink(world, node) {
  return make("button", { type: "button", class: "link", onclick: () => world.open(node) }, world.models.id[node]);
}
