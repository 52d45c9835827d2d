// The models and what is chosen: one object that all views share. Its state is the URL's fragment.

const DEFAULTS = { view: "families", model: "", by: "", parents: [], relation: "", size: "", name: "", known: {}, filter: "", theme: "" };

class World {
  constructor(data) {
    Object.assign(this, { data, models: data.models, benchmarks: data.benchmarks });
    this.n = data.models.id.length;
    this.nodeOf = new Map(data.models.id.map((id, node) => [id, node]));
    this.links = Array.from({ length: this.n }, () => ({ above: [], below: [] }));
    data.edges.parent.forEach((parent, edge) => {
      const child = data.edges.child[edge];
      this.links[child].above.push({ node: parent, edge });
      this.links[parent].below.push({ node: child, edge });
    });
    this.readFamilies();
    this.listeners = [];
    this.state = this.read();
  }

  readFamilies() {
    const members = [];
    this.models.family.forEach((family, node) => (members[family] = members[family] || []).push(node));
    const nBelow = (node) => this.links[node].below.length;
    this.families = members.map((nodes) => ({
      nodes,
      // The member with most children gives a family its name.
      head: nodes.reduce((best, node) => (nBelow(node) > nBelow(best) ? node : best)),
    }));
  }

  // Scores. Benchmark -1 is the mean of all.

  get by() {
    return this.benchmarks.indexOf(this.state.by);
  }

  value(name, node, b) {
    return this.models[name][node * this.benchmarks.length + b] / 1e4;
  }

  score(node, b = this.by, name = "score") {
    if (b >= 0) return this.value(name, node, b);
    let sum = 0;
    for (let k = 0; k < this.benchmarks.length; k += 1) sum += this.value(name, node, k);
    return sum / this.benchmarks.length;
  }

  /** 2 if a score was observed, 1 if in part, 0 if it is forecast. */
  observed(node, b) {
    return this.models.observed[node * this.benchmarks.length + b];
  }

  isEvaluated(node) {
    for (let b = 0; b < this.benchmarks.length; b += 1) if (this.observed(node, b)) return true;
    return false;
  }

  /** Scores between which the colours of some models run. */
  range(nodes) {
    const scores = nodes.map((node) => this.score(node)).sort((a, b) => a - b);
    const at = (share) => scores[Math.floor(share * (scores.length - 1))];
    return [at(0.01), Math.max(at(0.99), at(0.01) + 1e-3)];
  }

  colour(node, [low, high]) {
    return colour((this.score(node) - low) / (high - low));
  }

  // State.

  read() {
    const state = { ...DEFAULTS, known: {}, parents: [] };
    const given = new URLSearchParams(location.hash.slice(1));
    for (const [key, value] of given) {
      if (key === "parent" && this.nodeOf.has(value)) state.parents.push(value);
      else if (key.startsWith("score.") && this.benchmarks.includes(key.slice(6))) state.known[key.slice(6)] = value;
      else if (typeof DEFAULTS[key] === "string") state[key] = value;
    }
    state.parents = [...new Set(state.parents)].slice(0, MOST_PARENTS);
    if (!["families", "tree", "ask", "plan"].includes(state.view)) state.view = DEFAULTS.view;
    if (!this.nodeOf.has(state.model)) state.model = "";
    if (!this.benchmarks.includes(state.by)) state.by = "";
    return state;
  }

  fragment() {
    const pairs = [];
    for (const [key, value] of Object.entries(this.state)) {
      if (typeof value === "string" && value !== DEFAULTS[key]) pairs.push([key, value]);
    }
    for (const parent of this.state.parents) pairs.push(["parent", parent]);
    for (const [name, value] of Object.entries(this.state.known)) if (value !== "") pairs.push([`score.${name}`, value]);
    return new URLSearchParams(pairs).toString();
  }

  /** Change the state, the fragment and all views; a new view or model is a step in the history. */
  set(change) {
    const isStep = ["view", "model"].some((key) => key in change && change[key] !== this.state[key]);
    this.state = { ...this.state, ...change };
    // A page inside another one (a notebook) has no address of its own.
    try {
      history[isStep ? "pushState" : "replaceState"](null, "", `#${this.fragment()}`);
    } catch {
      this.hasAddress = false;
    }
    this.changed();
  }

  changed() {
    for (const listener of this.listeners) listener(this.state);
  }

  get chosen() {
    const node = this.nodeOf.get(this.state.model);
    return node === undefined ? null : node;
  }

  open(node) {
    this.set({ view: "tree", model: this.models.id[node] });
  }
}

const MOST_PARENTS = 4;
