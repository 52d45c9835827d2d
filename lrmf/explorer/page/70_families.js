// All families at a glance: one row each, every member a mark at its score.

const ROWS_AT_ONCE = 30;

class Families {
  constructor(world, place) {
    Object.assign(this, { world, place, shown: ROWS_AT_ONCE });
    this.largest = world.families.filter(({ nodes }) => nodes.length > 1).length;
  }

  draw() {
    const { world } = this;
    const key = `${world.by} ${this.shown}`;
    if (this.drawn === key) return;
    this.drawn = key;
    const scores = world.models.id.map((_, node) => world.score(node));
    this.ends = [Math.min(...scores), Math.max(...scores)];
    const rows = world.families.slice(0, Math.min(this.shown, this.largest)).map((family) => this.row(family));
    const alone = world.families.slice(this.largest).map(({ head }) => head);
    const more = this.largest - this.shown;
    fill(this.place,
      this.summary(),
      make("div", { class: "families" },
        make("div", { class: "scale", "aria-hidden": "true" }, ...this.scale()),
        make("ul", {}, rows),
        more > 0 ? make("button", { type: "button", class: "more", onclick: () => { this.shown += 100; this.draw(); } }, `Show more of ${this.largest} families`) : null,
        alone.length ? make("div", { class: "family alone" }, make("span", { class: "name" }, "Models without relatives"), make("span", { class: "size" }, count(alone.length, "model")), this.strip(alone)) : null));
  }

  summary() {
    const { world } = this;
    const evaluated = world.models.id.filter((_, node) => world.isEvaluated(node)).length;
    const text = [
      `${count(evaluated, "evaluated model")} and ${count(world.n - evaluated, "relative")} without scores, in ${count(this.largest, "family", "families")} and ${count(world.families.length - this.largest, "model")} without known relatives.`,
      " Each mark is a model at its score: filled if evaluated, hollow if forecast. Choose a family to see its tree, or ask what a model of your own would score.",
    ];
    return make("p", { class: "lead" }, ...text);
  }

  scale() {
    const [low, high] = this.ends;
    return [0, 0.25, 0.5, 0.75, 1].map((share) => make("span", {}, (100 * (low + share * (high - low))).toFixed(0)));
  }

  row(family) {
    const { world } = this;
    const best = family.nodes.reduce((a, b) => (world.score(b) > world.score(a) && world.isEvaluated(b) ? b : a));
    return make("li", {},
      make("button", { type: "button", class: "family", onclick: () => world.open(family.head) },
        make("span", { class: "name" }, world.models.id[family.head]),
        make("span", { class: "size" }, `${count(family.nodes.length, "model")}, best ${points(world.score(best))}`),
        this.strip(family.nodes)));
  }

  strip(nodes) {
    const [low, high] = this.ends;
    const picture = make("svg", { class: "strip", "aria-hidden": "true" });
    const many = nodes.length > 400;
    nodes.forEach((node, i) => {
      const x = (100 * (this.world.score(node) - low)) / (high - low || 1);
      // Marks are spread over the height, always the same way.
      const y = 12 + 8 * (((i * 0.618034) % 1) * 2 - 1) * Math.min(1, nodes.length / 12);
      picture.append(make("circle", { class: this.world.isEvaluated(node) ? "mark" : "mark hollow", cx: `${x.toFixed(2)}%`, cy: y.toFixed(1), r: many ? 1.5 : 2.5 }));
    });
    return picture;
  }
}
