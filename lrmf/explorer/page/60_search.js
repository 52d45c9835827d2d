// A search field over all models: a combobox with a list of what matches.

const MOST_MATCHES = 40;
let pickers = 0;

/** Models whose ids have all the words, names that begin with the first one first. */
function matches(world, text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return [];
  if (!world.lower) world.lower = world.models.id.map((id) => id.toLowerCase());
  const rank = (id) => {
    const name = id.slice(id.lastIndexOf("/") + 1);
    return id === wanted[0] || name === wanted[0] ? 0 : name.startsWith(wanted[0]) ? 1 : id.startsWith(wanted[0]) ? 2 : 3;
  };
  const found = [];
  world.lower.forEach((id, node) => {
    if (wanted.every((word) => id.includes(word))) found.push([rank(id), -world.links[node].below.length, node]);
  });
  return found.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map(([, , node]) => node);
}

/** The field; `onpick` gets the node. */
function picker(world, { label, placeholder, onpick, id }) {
  pickers += 1;
  const listId = `matches-${pickers}`;
  let [found, active] = [[], -1];
  const list = make("ul", { id: listId, role: "listbox", "aria-label": label, hidden: true });
  const status = make("span", { class: "unseen", role: "status" });
  const input = make("input", {
    id, type: "search", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder,
    "aria-label": label, "aria-expanded": "false", "aria-controls": listId, "aria-autocomplete": "list",
    oninput: () => show(), onfocus: () => show(), onblur: () => hide(), onkeydown: (event) => key(event),
  });
  function hide() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function show() {
    found = matches(world, input.value);
    const shown = found.slice(0, MOST_MATCHES);
    list.replaceChildren(...shown.map((node, i) =>
      make("li", { id: `${listId}-${i}`, role: "option", "aria-selected": "false", onpointerdown: (event) => { event.preventDefault(); pick(i); } },
        make("span", { class: "id" }, world.models.id[node]),
        make("span", { class: "score" }, points(world.score(node)) + (world.isEvaluated(node) ? "" : " forecast")))));
    list.hidden = !shown.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    status.textContent = input.value.trim() ? (found.length ? count(found.length, "model") : "no model has this in its id") : "";
    move(shown.length ? 0 : -1);
  }
  function move(to) {
    active = to;
    Array.from(list.children).forEach((item, i) => item.setAttribute("aria-selected", String(i === active)));
    if (active < 0) return;
    input.setAttribute("aria-activedescendant", `${listId}-${active}`);
    list.children[active].scrollIntoView({ block: "nearest" });
  }
  function pick(i) {
    const node = found[i];
    input.value = "";
    hide();
    onpick(node);
  }
  function key(event) {
    const n = list.children.length;
    if (event.key === "ArrowDown" && n) move((active + 1) % n);
    else if (event.key === "ArrowUp" && n) move((active + n - 1) % n);
    else if (event.key === "Enter" && active >= 0 && !list.hidden) pick(active);
    else if (event.key === "Escape") { input.value = ""; hide(); status.textContent = ""; }
    else return;
    event.preventDefault();
  }
  return make("div", { class: "picker" }, input, list, status);
}
