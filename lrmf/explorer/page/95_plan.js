// Plan: the merges that the planner ranks highest, filtered by any part of a parent's id.

class Plan {
  constructor(world, place) {
    Object.assign(this, { world, place });
    this.filter = make("input", { type: "search", "aria-label": "Filter by parent", placeholder: "Filter by any part of a parent's id", oninput: () => world.set({ filter: this.filter.value }) });
    this.body = make("div", {});
    place.replaceChildren(make("h2", {}, "Merges worth trying"), make("p", { class: "lead" }, "Expected scores of merges that nobody has made yet, in points. Choose one to see its forecast."), this.filter, this.body);
  }

  draw() {
    const { world } = this;
    const { filter } = world.state;
    if (this.filter.value !== filter) this.filter.value = filter;
    const wanted = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const plans = world.data.plans.filter(({ parents }) => wanted.every((word) => parents.some((id) => id.toLowerCase().includes(word))));
    const columns = Object.keys(world.data.plans[0] || {}).filter((name) => name !== "parents");
    const rows = plans.map((plan) => make("tr", {},
      make("td", {}, make("button", { type: "button", class: "link", onclick: () => world.set({ view: "ask", parents: plan.parents.filter((id) => world.nodeOf.has(id)).slice(0, MOST_PARENTS), relation: "merge" }) }, plan.parents.join(" + "))),
      columns.map((name) => make("td", { class: typeof plan[name] === "number" ? "number" : "" }, cell(name, plan[name])))));
    this.body.replaceChildren(
      make("p", { class: "faint", role: "status" }, count(plans.length, "plan")),
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Plans" },
        make("table", { class: "plans" }, make("thead", {}, make("tr", {}, ["parents", ...columns].map((name) => make("th", { scope: "col" }, name.replaceAll("_", " "))))), make("tbody", {}, rows))));
  }
}

/** Scores are shares in the data and points on the page; chances are percentages. */
function cell(name, value) {
  if (typeof value !== "number") return value === null ? "\u2013" : String(value);
  if (name.startsWith("p_")) return `${Math.round(100 * value)}%`;
  return Math.abs(value) <= 1 ? points(value) : String(value);
}
