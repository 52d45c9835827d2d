// Plan: the merges that the planner ranks highest, filtered by any part of a parent's id.

const share = (value) => `${Math.round(100 * value)}%`;
const PLAN_COLUMNS = {
  score: ["Expected", points],
  lower: ["from", points],
  upper: ["to", points],
  parents_best: ["Best parent", points],
  p_better: ["Chance to beat it", share],
  p_best_of_size: ["Chance best of its size", share],
  size_b: ["Size, billions", (value) => String(Number(value.toPrecision(3)))],
  diversity: ["Diversity", (value) => value.toFixed(3)],
};

class Plan {
  constructor(world, place) {
    Object.assign(this, { world, place });
    this.filter = make("input", { type: "search", "aria-label": "Filter by parent", placeholder: "Filter by any part of a parent's id", oninput: () => world.set({ filter: this.filter.value }) });
    this.body = make("div", {});
    fill(place,
      make("h2", {}, "Merges worth trying"),
      make("p", { class: "lead" }, "Expected mean scores of merges, in points with 90% intervals. Choose a merge to see its forecast on every benchmark."),
      this.filter, this.body);
  }

  draw() {
    const { world } = this;
    const { filter } = world.state;
    if (this.filter.value !== filter) this.filter.value = filter;
    const wanted = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const plans = world.data.plans.filter(({ parents }) => wanted.every((word) => parents.some((id) => id.toLowerCase().includes(word))));
    const columns = Object.keys(PLAN_COLUMNS).filter((name) => world.data.plans.some((plan) => typeof plan[name] === "number"));
    const rows = plans.map((plan) => make("tr", {},
      make("th", { scope: "row" }, make("button", { type: "button", class: "link", onclick: () => this.open(plan) }, plan.parents.join(" + "))),
      columns.map((name) => make("td", { class: "number" }, typeof plan[name] === "number" ? PLAN_COLUMNS[name][1](plan[name]) : "\u2013"))));
    this.body.replaceChildren(
      make("p", { class: "faint", role: "status" }, count(plans.length, "merge")),
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Plans" },
        make("table", { class: "plans" },
          make("thead", {}, make("tr", {}, ["Parents", ...columns.map((name) => PLAN_COLUMNS[name][0])].map((text) => make("th", { scope: "col" }, text)))),
          make("tbody", {}, rows))));
  }

  open({ parents }) {
    const known = parents.filter((id) => this.world.nodeOf.has(id)).slice(0, MOST_PARENTS);
    this.world.set({ view: "ask", parents: known, relation: "merge", size: "", name: "", known: {} });
  }
}
