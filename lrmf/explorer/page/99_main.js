// The page: reads the data, builds the views, shows the one that is chosen.

const VIEWS = { families: "Families", tree: "Tree", ask: "Ask", plan: "Plan" };

function main() {
  const world = new World(decode(JSON.parse(find("data").textContent)));
  const views = {};
  const build = {
    families: () => new Families(world, find("families")),
    tree: () => new Tree(world, find("canvas")),
    ask: () => new Ask(world, find("ask")),
    plan: () => new Plan(world, find("plan")),
  };
  const names = Object.keys(VIEWS).filter((name) => name !== "plan" || world.data.plans.length);
  const tabs = names.map((name) => make("button", { type: "button", id: `tab-${name}`, onclick: () => world.set({ view: name }) }, VIEWS[name]));
  find("views").replaceChildren(...tabs);
  const by = make("select", { id: "by", onchange: () => world.set({ by: by.value }) }, make("option", { value: "" }, "mean of all"), world.benchmarks.map((name) => make("option", { value: name }, name)));
  find("tools").replaceChildren(
    picker(world, { label: "Find a model", placeholder: "Find a model by any part of its id", id: "search", onpick: (node) => world.open(node) }),
    make("label", { class: "by" }, make("span", {}, "Colour and scores by"), by),
    make("button", { type: "button", class: "theme", "aria-label": "Light or dark", onclick: () => world.set({ theme: isDark(world.state) ? "light" : "dark" }) }, "\u25d0"));
  world.listeners.push((state) => {
    document.documentElement.style.colorScheme = ["light", "dark"].includes(state.theme) ? state.theme : "light dark";
    by.value = state.by;
    const view = names.includes(state.view) ? state.view : "families";
    for (const name of Object.keys(VIEWS)) find(name === "tree" ? "family" : name).hidden = name !== view;
    tabs.forEach((tab, i) => (names[i] === view ? tab.setAttribute("aria-current", "page") : tab.removeAttribute("aria-current")));
    if (!views[view]) views[view] = build[view]();
    views[view].draw();
    if (view === "tree") drawPanel(world, find("panel"));
  });
  const reread = () => {
    world.state = world.read();
    world.changed();
  };
  addEventListener("popstate", reread);
  addEventListener("hashchange", reread);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      find("search").focus();
    }
  });
  world.changed();
}

const isDark = ({ theme }) => theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);

main();
