// The family of the chosen model: generations from left to right, drawn as far as they are in sight.

const [COLUMN, ROW, RADIUS] = [250, 24, 6];
const READABLE = 11; // pixels of a row from which ids are shown
const MARGIN = 400; // pixels beyond the frame that are drawn as well, so that panning only moves a picture

class Tree {
  constructor(world, place) {
    Object.assign(this, { world, place, view: { x: 0, y: 0, k: 1 }, family: -1, pointers: new Map() });
    this.lines = make("g", { class: "lines" });
    this.labels = make("g", { class: "relations", "aria-hidden": "true" });
    this.nodes = make("g", { class: "nodes" });
    this.names = make("g", { "aria-hidden": "true" });
    this.stage = make("g", {}, this.lines, this.labels, this.names, this.nodes);
    this.svg = make("svg", { class: "tree", role: "group", "aria-label": "Family tree" }, this.stage);
    this.frame = make("div", { class: "frame" }, this.svg);
    this.caption = make("p", { class: "caption" });
    const zoomBy = (factor) => () => this.zoom(factor);
    this.controls = make("div", { class: "controls" },
      make("button", { type: "button", "aria-label": "Zoom in", onclick: zoomBy(1.4) }, "+"),
      make("button", { type: "button", "aria-label": "Zoom out", onclick: zoomBy(1 / 1.4) }, "\u2212"),
      make("button", { type: "button", onclick: () => this.fit() }, "Whole family"));
    fill(place, make("div", { class: "over" }, this.caption, this.controls), this.frame, this.legend());
    this.listen();
  }

  legend() {
    const line = (relation) => make("span", { class: "key" }, make("svg", { width: 34, height: 10, "aria-hidden": "true" }, make("line", { class: `edge ${relation}`, x1: 1, x2: 33, y1: 5, y2: 5 })), relation);
    const shape = (isEvaluated, text) => make("span", { class: "key" }, make("svg", { width: 18, height: 18, viewBox: "-9 -9 18 18", "aria-hidden": "true" }, make("path", { class: "shape", d: nodeShape(isEvaluated, RADIUS), fill: colour(0.6) })), text);
    this.ends = make("span", { class: "key" });
    return make("div", { class: "legend" }, ...this.world.data.relations.map(line), shape(true, "evaluated"), shape(false, "forecast"), this.ends);
  }

  draw() {
    const { world } = this;
    const chosen = world.chosen === null ? world.families[0].head : world.chosen;
    const family = world.models.family[chosen];
    const isNew = family !== this.family || chosen !== this.chosen;
    Object.assign(this, { chosen, near: this.relatives(chosen) });
    if (family !== this.family) {
      this.family = family;
      this.members = world.families[family].nodes.slice().sort((a, b) => world.models.y[a] - world.models.y[b]);
      const isMember = new Set(this.members);
      this.edges = Array.from(world.data.edges.parent.keys()).filter((e) => isMember.has(world.data.edges.parent[e]));
      this.enter(chosen);
    } else if (isNew) this.reveal(chosen);
    const [low, high] = this.range = world.range(this.members);
    const gradient = make("span", { class: "gradient", "aria-hidden": "true" });
    this.ends.replaceChildren(points(low), gradient, points(high), ` ${world.state.by || "mean of all benchmarks"}`);
    this.caption.textContent = `Family of ${count(this.members.length, "model")} around ${world.models.id[world.families[family].head]}; ancestors and descendants of the chosen model are in full colour.`;
    this.render();
  }

  /** The chosen model with all its ancestors and descendants. */
  relatives(node) {
    const found = new Set([node]);
    for (const side of ["above", "below"]) {
      const stack = [node];
      while (stack.length) {
        for (const { node: next } of this.world.links[stack.pop()][side]) {
          if (!found.has(next)) { found.add(next); stack.push(next); }
        }
      }
    }
    return found;
  }

  place_(node) {
    return [this.world.models.x[node] * COLUMN, this.world.models.y[node] * ROW];
  }

  // The window.

  size() {
    return [this.frame.clientWidth || 800, this.frame.clientHeight || 500];
  }

  /** A small family as a whole, a large one around the chosen model. */
  enter(node) {
    const k = this.fit();
    this.view.k = clip(this.size()[0] / 1400, 1, 1.5);
    if (k < 0.9) this.centre(node);
    else this.fit();
  }

  centre(node) {
    const [[width, height], [x, y]] = [this.size(), this.place_(node)];
    // Ancestors have room to the left, if there are any.
    const share = this.world.links[node].above.length ? 0.4 : 0.06;
    this.view.x = Math.max(Math.min(width * share, width - 230), 20) - x * this.view.k;
    this.view.y = height / 2 - y * this.view.k;
  }

  /** Move as little as needed for a model to be in sight. */
  reveal(node) {
    const [[width, height], [x, y]] = [this.size(), this.place_(node)];
    const [left, top] = [x * this.view.k + this.view.x, y * this.view.k + this.view.y];
    if (left < 20 || left > width - 180 || top < 20 || top > height - 30) this.centre(node);
  }

  fit() {
    const [width, height] = this.size();
    const xs = this.members.map((node) => this.place_(node)[0]);
    const ys = this.members.map((node) => this.place_(node)[1]);
    const [left, top] = [Math.min(...xs), Math.min(...ys)];
    const [wide, high] = [Math.max(...xs) - left + 200, Math.max(...ys) - top + 40];
    const k = clip(Math.min(width / wide, height / high), 0.05, 1.2);
    this.view = { k, x: 20 - left * k, y: (height - high * k) / 2 + 20 * k - top * k };
    this.render();
    return k;
  }

  zoom(factor, at = this.size().map((length) => length / 2)) {
    const k = clip(this.view.k * factor, 0.05, 3);
    const ratio = k / this.view.k;
    this.view = { k, x: at[0] - (at[0] - this.view.x) * ratio, y: at[1] - (at[1] - this.view.y) * ratio };
    this.render();
  }

  pan(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.render(false);
  }

  /** In the next frame: move the picture, or draw it anew if it changed or has been left. */
  render(isChanged = true) {
    this.isStale = this.isStale || isChanged;
    if (this.request) return;
    this.request = requestAnimationFrame(() => {
      this.request = 0;
      const { view, drawn } = this;
      const [dx, dy] = drawn ? [view.x - drawn.x, view.y - drawn.y] : [0, 0];
      if (!this.isStale && Math.abs(dx) < MARGIN && Math.abs(dy) < MARGIN) {
        this.svg.style.transform = `translate3d(${dx}px, ${dy}px, 0)`;
        return;
      }
      this.isStale = false;
      this.drawn = { ...view };
      this.svg.style.transform = "";
      this.stage.setAttribute("transform", `translate(${(view.x + MARGIN).toFixed(1)} ${(view.y + MARGIN).toFixed(1)}) scale(${view.k.toFixed(4)})`);
      const [width, height] = this.size();
      const at = (length, start) => (length - start) / view.k;
      this.window = { left: at(-MARGIN, view.x), right: at(width + MARGIN, view.x), top: at(-MARGIN, view.y), bottom: at(height + MARGIN, view.y) };
      this.drawWindow();
    });
  }

  // What is in sight.

  drawWindow() {
    const { world, window: box } = this;
    const isIn = ([x, y]) => x >= box.left - COLUMN && x <= box.right && y >= box.top && y <= box.bottom;
    const isReadable = this.view.k * ROW >= READABLE;
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.node : undefined;
    const shown = this.members.filter((node) => node === this.chosen || isIn(this.place_(node)));
    this.nodes.replaceChildren(...shown.map((node) => this.nodeElement(node)));
    this.names.replaceChildren(...shown.filter((node) => isReadable || node === this.chosen).map((node) => this.nameElement(node)));
    if (focused !== undefined) this.focus(Number(focused));
    // One path for the lines of each relation, and one more for those of the chosen model.
    const paths = new Map();
    const named = [];
    for (const edge of this.edges) {
      const [parent, child] = [world.data.edges.parent[edge], world.data.edges.child[edge]];
      const [from, to] = [this.place_(parent), this.place_(child)];
      if (Math.max(from[1], to[1]) < box.top || Math.min(from[1], to[1]) > box.bottom || to[0] < box.left || from[0] > box.right) continue;
      const relation = world.data.relations[world.data.edges.relation[edge]];
      const key = `edge ${relation}${this.near.has(parent) && this.near.has(child) ? "" : " far"}`;
      const bend = (from[0] + to[0]) / 2;
      paths.set(key, `${paths.get(key) || ""}M${from[0]},${from[1].toFixed(1)}C${bend},${from[1].toFixed(1)} ${bend},${to[1].toFixed(1)} ${to[0]},${to[1].toFixed(1)}`);
      if (isReadable && (parent === this.chosen || child === this.chosen)) named.push([relation, to]);
    }
    const order = [...paths].sort(([a], [b]) => b.includes("far") - a.includes("far"));
    this.lines.replaceChildren(...order.map(([key, d]) => make("path", { class: key, d })));
    this.labels.replaceChildren(...named.slice(0, 60).map(([relation, to]) => make("text", { x: to[0] - 12, y: to[1] - 5, "text-anchor": "end" }, relation)));
  }

  kindOf(node) {
    return node === this.chosen ? "chosen" : this.near.has(node) ? "" : "far";
  }

  /** The shortened name; the node itself has the whole one for who cannot see it. */
  nameElement(node) {
    const id = this.world.models.id[node];
    const [x, y] = this.place_(node);
    return make("text", { class: `name ${this.kindOf(node)}`, x: x + RADIUS + 6, y: y + 4, "data-node": node },
      shorten(id.slice(id.lastIndexOf("/") + 1)), make("title", {}, id));
  }

  nodeElement(node) {
    const { world } = this;
    const [x, y] = this.place_(node);
    const isEvaluated = world.isEvaluated(node);
    const id = world.models.id[node];
    const isChosen = node === this.chosen;
    return make("g", {
      class: `node ${this.kindOf(node)}`, role: "button", tabindex: isChosen ? 0 : -1, transform: `translate(${x} ${y})`,
      "data-node": node, "aria-pressed": String(isChosen),
      "aria-label": `${id}, ${isEvaluated ? "score" : "forecast"} ${points(world.score(node))}`,
    },
    make("title", {}, `${id}: ${points(world.score(node))}`),
    make("path", { class: "shape", d: nodeShape(isEvaluated, isChosen ? RADIUS + 2 : RADIUS), fill: world.colour(node, this.range) }));
  }

  focus(node) {
    const element = this.nodes.querySelector(`[data-node="${node}"]`);
    if (element) element.focus({ preventScroll: true });
  }

  // Pointer, wheel, keys.

  listen() {
    const { frame } = this;
    const at = (event) => { const box = frame.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    frame.addEventListener("pointerdown", (event) => {
      this.pointers.set(event.pointerId, at(event));
      this.moved = 0;
    });
    frame.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      this.pointers.set(event.pointerId, now);
      this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (this.moved > 4 && !frame.hasPointerCapture(event.pointerId)) frame.setPointerCapture(event.pointerId);
      if (!others.length) this.pan(now[0] - before[0], now[1] - before[1]);
      else {
        const [other] = others;
        const [was, is] = [before, now].map((place) => Math.hypot(place[0] - other[0], place[1] - other[1]));
        this.zoom(is / Math.max(was, 1), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    frame.addEventListener("click", (event) => {
      const element = event.target.closest("[data-node]");
      if (element && !(this.moved > 6)) this.world.open(Number(element.dataset.node));
    });
    frame.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(-event.deltaY / 200), at(event));
      else this.pan(-event.deltaX, -event.deltaY);
    }, { passive: false });
    frame.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.render()).observe(frame);
  }

  key(event) {
    const target = this.neighbour(event.key);
    if (target !== undefined && target !== null) {
      this.world.open(target);
      this.draw();
      requestAnimationFrame(() => requestAnimationFrame(() => this.focus(target)));
    } else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter" || event.key === " ") find("panel").focus();
    else if (target === undefined) return;
    event.preventDefault();
  }

  /** Where a key leads: left to a parent, right to a child, up and down within the generation. */
  neighbour(key) {
    const { world, chosen } = this;
    const links = world.links[chosen];
    const nearest = (nodes) => nodes.reduce((best, node) => (best === null || this.gap(node) < this.gap(best) ? node : best), null);
    if (key === "ArrowLeft") return nearest(links.above.map(({ node }) => node));
    if (key === "ArrowRight") return nearest(links.below.map(({ node }) => node));
    if (key === "Home") return world.families[this.family].head;
    if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
    const sign = key === "ArrowUp" ? -1 : 1;
    const { x, y } = world.models;
    return nearest(this.members.filter((node) => x[node] === x[chosen] && sign * (y[node] - y[chosen]) > 0));
  }

  gap(node) {
    return Math.abs(this.world.models.y[node] - this.world.models.y[this.chosen]);
  }
}

const shorten = (text) => (text.length > 30 ? `${text.slice(0, 29)}\u2026` : text);
