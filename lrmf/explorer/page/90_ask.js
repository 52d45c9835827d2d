// Ask: a model of one's own, from parents, relation, size, name and known scores.

const FEW_BENCHMARKS = 12;
const PATIENCE = 120; // milliseconds without typing before a forecast is computed
const ALIKE_SIZE = 1.25; // ratio of sizes that count as the same

class Ask {
  constructor(world, place) {
    Object.assign(this, { world, place });
    const field = (label, input) => make("label", { class: "field" }, make("span", {}, label), input);
    const change = (name) => (event) => world.set({ [name]: event.target.value });
    this.parents = make("ul", { class: "chips", "aria-label": "Parents" });
    this.relation = make("select", { onchange: change("relation") });
    this.size = make("input", { type: "number", min: 0, step: "any", inputmode: "decimal", placeholder: "as the parents", oninput: change("size") });
    this.name = make("input", { type: "text", placeholder: "me/my-model-8b", spellcheck: "false", oninput: change("name") });
    this.known = make("div", { class: "known" });
    this.answer = make("div", { class: "answer", "aria-live": "polite", "aria-busy": "false" });
    place.replaceChildren(
      make("form", { class: "question", onsubmit: (event) => event.preventDefault() },
        make("h2", {}, "What would this model score?"),
        make("div", { class: "field" }, make("span", {}, `Parents, up to ${MOST_PARENTS}`),
          picker(world, { label: "Add a parent", placeholder: "Add a parent by any part of its id", id: "parent", onpick: (node) => this.add(node) }), this.parents),
        field("Relation", this.relation), field("Size in billions of parameters", this.size), field("Name, if it has one", this.name), this.known),
      this.answer);
    this.drawKnown();
  }

  add(node) {
    const parents = [...new Set([...this.world.state.parents, this.world.models.id[node]])].slice(0, MOST_PARENTS);
    this.world.set({ parents });
  }

  drawKnown() {
    const { world } = this;
    this.scores = new Map();
    const input = (name) => {
      const element = make("input", { type: "number", min: 0, max: 100, step: "any", inputmode: "decimal", "aria-label": `Known score on ${name}`,
        oninput: (event) => world.set({ known: { ...world.state.known, [name]: event.target.value } }) });
      this.scores.set(name, element);
      return make("label", { class: "field small" }, make("span", {}, name), element);
    };
    const legend = make("summary", {}, "Scores that are known already, in points");
    this.details = make("details", {}, legend);
    if (world.benchmarks.length <= FEW_BENCHMARKS) this.details.append(make("div", { class: "grid" }, world.benchmarks.map(input)));
    else {
      const grid = make("div", { class: "grid" });
      const names = make("select", { "aria-label": "Benchmark with a known score" }, make("option", { value: "" }, "Add a benchmark"), world.benchmarks.map((name) => make("option", {}, name)));
      names.addEventListener("change", () => { if (names.value && !this.scores.has(names.value)) grid.append(input(names.value)); names.value = ""; });
      for (const name of Object.keys(world.state.known)) grid.append(input(name));
      this.details.append(names, grid);
    }
    this.known.replaceChildren(this.details);
  }

  relationOf(state) {
    return state.relation || (state.parents.length > 1 ? "merge" : "finetune");
  }

  draw() {
    const { world } = this;
    const { state } = world;
    this.parents.replaceChildren(...state.parents.map((id) =>
      make("li", {}, modelLink(world, world.nodeOf.get(id)), make("button", { type: "button", "aria-label": `Remove ${id}`, onclick: () => world.set({ parents: state.parents.filter((other) => other !== id) }) }, "\u00d7"))));
    const isAuto = !state.relation;
    this.relation.replaceChildren(...["", ...world.data.relations].map((name) => make("option", { value: name, selected: name === state.relation && !isAuto }, name || `${this.relationOf({ ...state, relation: "" })} (as the parents suggest)`)));
    this.relation.value = state.relation;
    for (const [element, value] of [[this.size, state.size], [this.name, state.name]]) if (element.value !== value) element.value = value;
    for (const [name, element] of this.scores) {
      const value = state.known[name] || "";
      if (element.value !== value && document.activeElement !== element) element.value = value;
    }
    if (Object.values(state.known).some(Boolean)) this.details.open = true;
    const key = JSON.stringify([state.parents, state.relation, state.size, state.name, state.known]);
    if (key === this.asked) return;
    this.asked = key;
    this.answer.setAttribute("aria-busy", "true");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.compute(), this.forecaster ? PATIENCE : 30);
  }

  /** The question as the forecaster takes it, and what is wrong with it. */
  question() {
    const { state, nodeOf, benchmarks } = this.world;
    const problems = [];
    const scores = new Map();
    for (const [name, text] of Object.entries(state.known)) {
      if (text === "") continue;
      const value = Number(text);
      if (value >= 0 && value <= 100) scores.set(benchmarks.indexOf(name), value / 100);
      else problems.push(`The score on ${name} must be between 0 and 100 points.`);
    }
    const size = Number(state.size);
    if (state.size !== "" && !(size > 0)) problems.push("The size must be above 0 billion parameters.");
    const card = { name: state.name.trim(), size: size > 0 ? size : NaN };
    return [{ parents: state.parents.map((id) => nodeOf.get(id)), relation: this.relationOf(state), card, scores }, problems];
  }

  compute() {
    const { world } = this;
    if (!this.forecaster) this.forecaster = new Forecaster(world.data);
    const [question, problems] = this.question();
    const answer = this.forecaster.ask(question);
    const notes = [...problems, ...answer.notes];
    const { parents, scores } = question;
    if (parents.some((node) => !this.forecaster.prior.place.has(node))) notes.push("A parent that the fit does not know is left out.");
    if (world.nodeOf.has(question.card.name)) notes.push("A model of this name is in the fit: where it has been evaluated, its own scores are part of this forecast. lrmf ask leaves them out.");
    if (!parents.length) notes.push("Without parents the forecast rests on size and name alone.");
    if (answer.isFar) notes.push("Hardly anything like this model has been evaluated; the forecast is a guess with a wide interval.");
    const above = this.aboveAll(answer.rows);
    if (above.length) notes.push(`Above every score that the fit has seen: ${above.join(", ")}.`);
    if (parents.length && answer.lacksRelatives) notes.push("No relative of this model has been evaluated.");
    if (scores.size && world.data.ask.items.kind === "answers") {
      notes.push("Known scores stand for all their answers; lrmf ask with the single answers knows more.");
    }
    fill(this.answer,
      make("h2", {}, answerTitle(world, question)),
      this.table(answer, question),
      notes.length ? make("ul", { class: "notes" }, notes.map((note) => make("li", {}, note))) : null,
      make("h3", {}, "It rests most on"),
      make("ul", { class: "relatives" }, answer.nearest.map((node) => make("li", {}, modelLink(world, node), make("span", { class: "faint" }, ` ${points(world.score(node))}`)))));
    this.answer.setAttribute("aria-busy", "false");
  }

  table({ rows, average, filled }, { parents }) {
    const { world } = this;
    const alike = this.ofSize(filled.size);
    const best = (nodes, b) => Math.max(...nodes.filter((node) => world.observed(node, b) === 2).map((node) => world.value("score", node, b)));
    const body = rows.map((row, b) => {
      const [ofParents, ofSize] = [best(parents, b), best(alike, b)];
      const isBetter = Number.isFinite(ofParents) && !row.known;
      return make("tr", { "data-benchmark": world.benchmarks[b] },
        make("th", { scope: "row" }, world.benchmarks[b]),
        make("td", { class: "number", "data-value": row.score }, points(row.score)),
        make("td", { class: "range", "data-lower": row.lower, "data-upper": row.upper }, row.known ? "known" : `${points(row.lower)} to ${points(row.upper)}`),
        make("td", { class: "picture" }, bar({ ...row, isEvaluated: row.known, ticks: [ofParents].filter(Number.isFinite) })),
        make("td", { class: "number" }, Number.isFinite(ofParents) ? points(ofParents) : "\u2013"),
        make("td", { class: "number" }, isBetter ? `${Math.round(100 * chanceAbove(row, ofParents))}%` : "\u2013"),
        make("td", { class: "number" }, Number.isFinite(ofSize) ? points(ofSize) : "\u2013"));
    });
    const head = ["Benchmark", "Forecast", "90% interval", "0 to 100", "Best parent", "Chance to beat it", "Best of its size"];
    return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Forecast" },
      make("table", { class: "scores wide" },
        make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, body), rows.length > 1 ? make("tfoot", {}, make("tr", {},
          make("th", { scope: "row" }, "mean of all"), make("td", { class: "number" }, points(average.score)),
          make("td", { class: "range" }, average.known ? "known" : `${points(average.lower)} to ${points(average.upper)}`),
          make("td", { class: "picture" }, bar({ ...average, isEvaluated: average.known })), make("td", { colspan: 3 }))) : null));
  }

  /** Benchmarks on which a forecast is higher than all observed scores. */
  aboveAll(rows) {
    const { world } = this;
    return world.benchmarks.filter((_, b) => {
      const best = world.models.id.reduce((top, __, node) => (world.observed(node, b) ? Math.max(top, world.value("score", node, b)) : top), 0);
      return !rows[b].known && best > 0 && rows[b].score > best;
    });
  }

  /** Evaluated models within a quarter of a size, the logarithm of billions of parameters. */
  ofSize(size) {
    const { models } = this.world;
    return Array.from(models.size.keys()).filter((node) => Math.abs(Math.log(models.size[node]) - size) < Math.log(ALIKE_SIZE));
  }
}

function answerTitle(world, { parents, relation, card }) {
  const names = parents.map((node) => world.models.id[node].split("/").pop());
  const what = card.name || (parents.length ? `A ${relation} of ${names.join(" and ")}` : "A model without known parents");
  return Number.isNaN(card.size) ? what : `${what}, ${card.size} billion parameters`;
}
