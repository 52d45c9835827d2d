// What is known of the chosen model: scores or forecasts, card, relatives.

const RELATIVES_AT_ONCE = 25;
const CARD_NAMES = { type: "Type", architecture: "Architecture", precision: "Precision", license: "License", created_at: "Created", evaluated_at: "Evaluated" };

function drawPanel(world, place) {
  const node = world.chosen === null ? world.families[0].head : world.chosen;
  const id = world.models.id[node];
  const isEvaluated = world.isEvaluated(node);
  const links = world.links[node];
  fill(place,
    make("h2", {}, id),
    make("p", { class: "actions" },
      make("span", { class: "badge" }, isEvaluated ? "evaluated" : "forecast"),
      make("button", { type: "button", onclick: () => world.set({ view: "ask", parents: [id] }) }, "Forecast a child"),
      isOnHub(world, id) ? make("a", { href: `https://huggingface.co/${id}`, rel: "noopener noreferrer", target: "_blank" }, "On the Hub") : null),
    scoreTable(world, node),
    make("h3", {}, "Card"),
    cardList(world, node),
    ...relatives(world, links.above, "Parents", "It has no known parent."),
    ...relatives(world, links.below, "Children", "It has no known children."));
  place.setAttribute("aria-label", `Model ${id}`);
}

/** Ids of simulated models lead nowhere. */
const isOnHub = (world, id) => world.data.source !== "simulated" && /^[\w.-]+(\/[\w.-]+)?$/.test(id);

function scoreTable(world, node) {
  const rows = world.benchmarks.map((name, b) => {
    const [score, lower, upper] = ["score", "lower", "upper"].map((part) => world.value(part, node, b));
    const observed = world.observed(node, b);
    const range = observed === 2 ? `forecast was ${points(world.value("forecast", node, b))}` : `${points(lower)} to ${points(upper)}`;
    return make("tr", {},
      make("th", { scope: "row" }, name),
      make("td", { class: "number" }, points(score)),
      make("td", { class: "picture" }, bar({ score, lower, upper, isEvaluated: observed > 0 })),
      make("td", { class: "range" }, range));
  });
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores" },
    make("table", { class: "scores" },
      make("caption", {}, `Mean ${points(world.score(node, -1))} points. ${world.isEvaluated(node) ? "Bars: 90% intervals of the forecast from relatives, card and name alone." : "Bars: 90% intervals."}`),
      make("tbody", {}, rows)));
}

function cardList(world, node) {
  const { size, card } = world.models;
  const facts = Number.isNaN(size[node]) ? [] : [["Size", `${Number(size[node].toPrecision(3))} billion parameters`]];
  for (const [name, column] of Object.entries(card)) {
    if (column.code[node] >= 0) facts.push([CARD_NAMES[name], column.levels[column.code[node]]]);
  }
  if (!facts.length) return make("p", { class: "faint" }, "No card is known.");
  return make("dl", {}, facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function relatives(world, links, title, none) {
  const heading = make("h3", {}, links.length ? `${title} (${links.length})` : title);
  if (!links.length) return [heading, make("p", { class: "faint" }, none)];
  const sorted = links.slice().sort((a, b) => world.score(b.node) - world.score(a.node));
  const list = make("ul", { class: "relatives" });
  const show = (n) => list.replaceChildren(...sorted.slice(0, n).map(({ node, edge }) => {
    const { relation, evidence } = world.data.edges;
    const said = evidence && evidence.code[edge] >= 0 ? `, from ${evidence.levels[evidence.code[edge]]}` : "";
    return make("li", {}, modelLink(world, node), make("span", { class: "faint" }, ` ${world.data.relations[relation[edge]]}${said}, ${points(world.score(node))}${world.isEvaluated(node) ? "" : " forecast"}`));
  }));
  show(RELATIVES_AT_ONCE);
  const more = sorted.length > RELATIVES_AT_ONCE
    ? make("button", { type: "button", class: "more", onclick: () => { show(sorted.length); more.remove(); } }, `Show all ${sorted.length}`) : null;
  return more ? [heading, list, more] : [heading, list];
}
