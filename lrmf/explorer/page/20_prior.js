// The prior of a new model's state: a Gaussian process over card, name and family tree, conditioned
// on the evaluated models. The same equations as in lrmf/forecaster/{covariance,state_prior}.py,
// lrmf/solver/process.py and lrmf/data/descriptions.py.

const SAME_SIZE = 0.004; // relative difference of sizes that rounding explains
const FIELD_NOISE = 0.1; // of fields of cards, where they are forecast
const NOTHING = 1e6; // noise of what is not known
const MOST_COLUMNS = 480; // models that a variance is computed from, at most
const KEPT_COLUMNS = 1200; // covariances of a model with all others
const COLUMNS_AT_ONCE = 60;
const SETTLED = 0.01; // share of a variance below which what is left does not matter
const SHARED = 1 / 3; // of what hundreds of others explain one by one, all together do: 0.2 to 0.5 on real data
const FAR = 0.8; // share of the prior variance that is left where nothing like it has been evaluated
const LINEAR = ["size, linear", "date, linear", "size and date, linear"];
const INHERITED = ["size", "architecture"];

/** TF-IDF of texts with the terms that several of them have; rows of length 1. */
class Terms {
  constructor(texts, split) {
    this.split = split;
    const counts = texts.map((text) => this.count(text));
    const frequency = new Map();
    for (const term of counts.flatMap((found) => [...found.keys()])) {
      frequency.set(term, (frequency.get(term) || 0) + 1);
    }
    const shared = [...frequency].filter(([, n]) => n > 1);
    this.vocabulary = new Map(shared.map(([term], code) => [term, code]));
    this.weight = shared.map(([, n]) => Math.log((1 + texts.length) / (1 + n)) + 1);
    this.rows = counts.map((found) => this.weigh(found));
    // Which texts have a term, and how much of it.
    this.postings = shared.map(() => [[], []]);
    this.rows.forEach(([codes, values], row) => {
      codes.forEach((code, i) => {
        this.postings[code][0].push(row);
        this.postings[code][1].push(values[i]);
      });
    });
  }

  count(text) {
    const found = new Map();
    for (const term of this.split(text)) found.set(term, (found.get(term) || 0) + 1);
    return found;
  }

  weigh(found) {
    const codes = [];
    const values = [];
    for (const [term, count] of found) {
      const code = this.vocabulary.get(term);
      if (code === undefined) continue;
      codes.push(code);
      values.push((1 + Math.log(count)) * this.weight[code]);
    }
    const length = Math.sqrt(dot(values, values)) || 1;
    return [codes, values.map((value) => value / length)];
  }

  row(text) {
    return this.weigh(this.count(text));
  }

  /** Cosines (n,) of a row with those of all texts. */
  cosines([codes, values]) {
    const found = new Float64Array(this.rows.length);
    codes.forEach((code, i) => {
      const [rows, weights] = this.postings[code];
      for (let k = 0; k < rows.length; k += 1) found[rows[k]] += values[i] * weights[k];
    });
    return found;
  }
}

/** Character n-grams within words, as scikit-learn's analyzer "char_wb" with (2, 4) has them. */
function grams(text) {
  const found = [];
  for (const word of text.split(/\s+/u).filter(Boolean)) {
    const letters = Array.from(` ${word} `);
    for (let n = 2; n <= 4; n += 1) {
      if (letters.length <= n) {
        found.push(letters.join(""));
        break;
      }
      for (let i = 0; i + n <= letters.length; i += 1) found.push(letters.slice(i, i + n).join(""));
    }
  }
  return found;
}

const words = (text) => text.match(/[a-z]+|\p{Nd}+\.?\p{Nd}*/gu) || [];

/** Organization and name of an id, in lower case. */
function organizationAndName(id) {
  const lower = String(id).toLowerCase();
  const slash = lower.lastIndexOf("/");
  return [slash < 0 ? "" : lower.slice(0, slash), lower.slice(slash + 1)];
}

/** Billions of parameters that a name tells, or NaN. */
function sizeInName(id) {
  const name = organizationAndName(id)[1];
  const found = [...name.matchAll(/(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])/g)];
  return found.length === 1 ? Number(found[0][1]) * (found[0][2] === "b" ? 1 : 1e-3) : NaN;
}

/** What each model that is not chosen explains of the rest, about; -1 for those that are. */
function explained(rest, precision, isChosen) {
  const found = new Float64Array(rest.length);
  for (let v = 0; v < found.length; v += 1) found[v] = isChosen[v] ? -1 : rest[v] * rest[v] * precision[v];
  return found;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Gaussian process over descriptions of models; see `StatePrior`. */
class Prior {
  constructor(ask, ids) {
    Object.assign(this, { ask, cards: ask.cards, process: ask.process, ids });
    this.n = this.cards.n_evaluated;
    this.q = this.process.to_states.length;
    this.place = new Map(Array.from(this.cards.node, (node, row) => [node, row]));
    this.readTree();
    this.readNames();
    this.readNumbers();
    this.columns = new Map();
  }

  // What the fit knows of its models.

  readTree() {
    const { n_parents, parents } = this.cards;
    this.parents = [];
    for (let row = 0, top = 0; row < n_parents.length; row += 1) {
      this.parents.push(Array.from(parents.slice(top, top + n_parents[row])));
      top += n_parents[row];
    }
    // Models with parents, each after its parents.
    this.order = [];
    const seen = new Uint8Array(this.parents.length);
    for (let root = 0; root < seen.length; root += 1) {
      const stack = [root];
      while (stack.length) {
        const node = stack[stack.length - 1];
        const above = this.parents[node].filter((parent) => !seen[parent]);
        if (above.length) stack.push(...above);
        else {
          stack.pop();
          if (!seen[node] && this.parents[node].length) this.order.push(node);
          seen[node] = 1;
        }
      }
    }
  }

  readNames() {
    const parts = Array.from(this.cards.node.slice(0, this.n), (node) =>
      this.ask.uses.names ? organizationAndName(this.ids[node]) : ["", ""],
    );
    this.organizations = new Map();
    this.organization = parts.map(([organization]) => this.organizationOf(organization, true));
    const names = parts.map(([, name]) => name);
    this.terms = { grams: new Terms(names, grams), tokens: new Terms(names, words) };
  }

  organizationOf(name, isNew = false) {
    if (name === "") return -1;
    if (isNew && !this.organizations.has(name)) this.organizations.set(name, this.organizations.size);
    return this.organizations.has(name) ? this.organizations.get(name) : -1;
  }

  readNumbers() {
    const { atoms } = this.process;
    this.standard = {};
    for (const [name, values] of Object.entries(atoms)) {
      const centre = mean(values);
      const deviation = Math.sqrt(mean(values.map((x) => (x - centre) ** 2)));
      this.standard[name] = (x) => (Number.isNaN(x) ? 0 : (x - centre) / (deviation + 1e-6));
    }
    this.fields = {};
    for (const [name, field] of Object.entries(this.cards.fields)) {
      const width = field.levels.length;
      const rows = [];
      for (let top = 0; top < field.rows.length; top += width) rows.push(Array.from(field.rows.slice(top, top + width)));
      this.fields[name] = { rows, code: field.code, levels: field.levels };
    }
    // Standardised numbers of the evaluated models, by name.
    const each = Array.from({ length: this.n }, (_, v) => this.linearOf(this.cards.size[v], this.cards.date[v]));
    this.linear = Object.fromEntries(Object.keys(each[0]).map((name) => [name, Float64Array.from(each, (own) => own[name])]));
  }

  linearOf(size, date) {
    const found = {};
    if (this.standard.size) found["size, linear"] = this.standard.size(size);
    if (this.standard.date) found["date, linear"] = this.standard.date(date);
    if (this.standard.size && this.standard.date) {
      found["size and date, linear"] = found["size, linear"] * found["date, linear"];
    }
    return found;
  }

  // Descriptions.

  /** Shares of the own changes of all ancestors in a model, itself included, as a Map. */
  ancestry(row) {
    if (!this.shares) this.shares = new Map();
    if (!this.shares.has(row)) {
      const own = this.meanAncestry(this.parents[row]);
      own.set(row, (own.get(row) || 0) + 1);
      this.shares.set(row, own);
    }
    return this.shares.get(row);
  }

  meanAncestry(parents) {
    const shares = new Map();
    for (const parent of parents) {
      for (const [node, share] of this.ancestry(parent)) {
        shares.set(node, (shares.get(node) || 0) + share / parents.length);
      }
    }
    return shares;
  }

  /** Covariances (n,) of the tree: A C a, one pass from the roots down. */
  treeRow(shares) {
    const sums = new Float64Array(this.parents.length);
    for (const [node, share] of shares) sums[node] = share * this.cards.change[node];
    for (const node of this.order) {
      const above = this.parents[node];
      for (let i = 0; i < above.length; i += 1) sums[node] += sums[above[i]] / above.length;
    }
    return sums;
  }

  /** Description of an evaluated model. */
  described(row) {
    const levels = {};
    for (const [name, field] of Object.entries(this.fields)) levels[name] = field.rows[field.code[row]];
    return {
      levels,
      size: this.cards.size[row],
      date: this.cards.date[row],
      organization: this.organization[row],
      grams: this.terms.grams.rows[row],
      tokens: this.terms.tokens.rows[row],
      tree: this.treeRow(this.ancestry(row)),
    };
  }

  /** Description of a new model, what is unknown inherited from its parents, and notes. */
  describe(parents, relation, card) {
    const notes = [];
    const id = card.name || "";
    const [organization, name] = this.ask.uses.names ? organizationAndName(id) : ["", ""];
    const rows = this.ask.uses.lineage ? parents : [];
    const levels = {};
    const open = new Set();
    for (const [field, table] of Object.entries(this.fields)) {
      levels[field] = table.rows[0];
      const able = rows.filter((row) => table.code[row] > 0);
      if (INHERITED.includes(field) && able.length) {
        levels[field] = table.rows[0].map((_, level) => mean(able.map((row) => table.rows[table.code[row]][level])));
      } else open.add(field);
    }
    let size = this.ask.uses.cards && card.size > 0 ? Math.log(card.size) : NaN;
    const sizes = rows.map((row) => this.cards.size[row]).filter((x) => !Number.isNaN(x));
    if (!Number.isNaN(size) && !(this.isCredible(size, [], id) && this.isCredible(size, sizes, id))) {
      notes.push(`A size of ${card.size} billion is not that of such a model; it was taken as unknown.`);
      size = NaN;
    }
    if (Number.isNaN(size) && sizes.length) size = mean(sizes);
    if (Number.isNaN(size)) size = Math.log(this.sizeNamed(id));
    if (Number.isNaN(size)) open.add("size");
    open.add("date");
    const shares = this.meanAncestry(rows);
    const own = rows.length ? this.cards.node_variances[relation] : 1;
    let variance = own;
    for (const [node, share] of shares) variance += share * share * this.cards.change[node];
    return {
      levels, size, date: NaN, open, notes, variance,
      organization: this.organizationOf(organization),
      grams: this.nameRow("grams", name, rows),
      tokens: this.nameRow("tokens", name, rows),
      tree: this.treeRow(shares),
      parents: rows.filter((row) => row < this.n),
    };
  }

  /** Terms of a name; without one those of the parents' names, on average. */
  nameRow(kind, name, parents) {
    const terms = this.terms[kind];
    if (name !== "" || !this.ask.uses.names) return terms.row(name);
    const sum = new Map();
    for (const parent of parents) {
      const [codes, values] = terms.row(organizationAndName(this.ids[this.cards.node[parent]])[1]);
      codes.forEach((code, i) => sum.set(code, (sum.get(code) || 0) + values[i]));
    }
    const length = Math.hypot(...sum.values()) || 1;
    return [[...sum.keys()], Array.from(sum.values(), (value) => value / length)];
  }

  /** The size in a name, NaN if names are not used. */
  sizeNamed(id) {
    return this.ask.uses.names ? sizeInName(id) : NaN;
  }

  isCredible(size, others, id) {
    const named = Math.log(this.sizeNamed(id));
    const sizes = others.length || Number.isNaN(named) ? others : [named];
    const [smallest, largestSize] = this.cards.credible;
    if (sizes.length) {
      const total = Math.log(sizes.reduce((sum, x) => sum + Math.exp(x), 0));
      return size >= Math.min(...sizes) + Math.log(smallest) && size <= total + Math.log(largestSize);
    }
    const [low, high] = this.cards.range.map((end) => (end === null ? size : end));
    return size >= low - Math.log(10) && size <= high + Math.log(10);
  }

  /** The description with what is still unknown forecast from all else. */
  filled(described) {
    const fields = [...described.open].filter((name) => this.cards.able.includes(name));
    if (!fields.length) return described;
    // As any output of a process, by a covariance that does not look at these fields.
    const blind = this.without(fields);
    const cross = this.covariance(described, blind);
    const near = largest(cross, Math.min(150, this.n));
    const among = near.map((row) => this.column(row, blind));
    const right = near.map((row) => cross[row]);
    const filled = { ...described, levels: { ...described.levels } };
    const gainFor = (isUnknown) => {
      const factor = new Cholesky();
      near.forEach((row, i) => {
        const own = this.varianceOf(row, blind) + FIELD_NOISE;
        factor.push([...near.slice(0, i).map((other) => among[i][other]), own + (isUnknown(row) ? NOTHING : 0)]);
      });
      return factor.solve(right);
    };
    for (const name of fields) {
      if (name in this.fields) {
        const { rows, code } = this.fields[name];
        const gain = gainFor(() => false);
        const typical = this.typical(name);
        let table = typical.map((centre, level) => centre + near.reduce((sum, row, i) => sum + gain[i] * (rows[code[row]][level] - centre), 0));
        table = table.map((x) => clip(x, 0, 1));
        const total = Math.max(table.reduce((sum, x) => sum + x, 0), 1e-9);
        filled.levels[name] = table.map((x) => x / total);
      } else {
        const values = this.cards[name];
        const gain = gainFor((row) => Number.isNaN(values[row]));
        const known = Array.from(values.slice(0, this.n)).filter((x) => !Number.isNaN(x));
        const typical = mean(known);
        filled[name] = typical + near.reduce((sum, row, i) => sum + (Number.isNaN(values[row]) ? 0 : gain[i] * (values[row] - typical)), 0);
      }
    }
    return filled;
  }

  /** Parameters of the covariance that is blind to some fields. */
  without(fields) {
    this.blind = this.blind || new Map();
    const key = fields.join();
    if (!this.blind.has(key)) {
      const names = [...fields, ...LINEAR.filter((one) => fields.some((field) => one.includes(field)))];
      const zeros = names.filter((name) => name in this.process.parameters).map((name) => [name, 0]);
      this.blind.set(key, { ...this.process.parameters, ...Object.fromEntries(zeros) });
    }
    return this.blind.get(key);
  }

  typical(name) {
    const { rows, code } = this.fields[name];
    const count = new Float64Array(rows.length);
    for (let v = 0; v < this.n; v += 1) count[code[v]] += 1;
    return rows[0].map((_, level) => dot(count, rows.map((row) => row[level])) / this.n);
  }

  // Covariances.

  /** Covariances (n,) of a described model with the evaluated ones; see `Covariance`. */
  covariance(a, w) {
    const found = new Float64Array(this.n);
    // Card and name: one factor for every field.
    const [far, near] = [this.terms.grams.cosines(a.grams), this.terms.tokens.cosines(a.tokens)];
    const elsewhere = Math.exp(-w.organization);
    for (let v = 0; v < found.length; v += 1) {
      found[v] = w["card and name"] * Math.exp(-w.grams * Math.max(1 - far[v], 0) - w.tokens * Math.max(1 - near[v], 0));
      if (a.organization < 0 || a.organization !== this.organization[v]) found[v] *= elsewhere;
    }
    let alike = [1];
    for (const [name, { rows, code }] of Object.entries(this.fields)) {
      const least = Math.exp(-w[name]);
      const shares = Float64Array.from(rows, (row) => dot(a.levels[name], row));
      const factors = shares.map((share) => least + (1 - least) * share);
      for (let v = 0; v < found.length; v += 1) found[v] *= factors[code[v]];
      if (name === "architecture") alike = shares;
    }
    for (const name of Object.keys(this.process.atoms)) this.scaleByNumber(found, name, a[name], w[name]);
    // The tree, the common base, what all models share.
    const codes = this.fields.architecture ? this.fields.architecture.code : new Uint16Array(this.n);
    const size = "base" in w ? a.size : NaN;
    for (let v = 0; v < found.length; v += 1) {
      found[v] += w.lineage * a.tree[v] + w.constant;
      if (Math.abs(size - this.cards.size[v]) < SAME_SIZE) found[v] += w.base * alike[codes[v]];
    }
    for (const [name, value] of Object.entries(this.linearOf(a.size, a.date))) add(found, (w[name] || 0) * value, this.linear[name]);
    return found;
  }

  /** Multiply by exp(-rate d) of a number, averaged over the atoms where it is unknown. */
  scaleByNumber(found, name, x, rate) {
    const atoms = this.process.atoms[name];
    const values = this.cards[name];
    const isRoot = name === "date";
    const factor = (d) => Math.exp(-rate * (isRoot ? Math.sqrt(Math.abs(d)) : Math.abs(d)));
    const averaged = (y) => mean(atoms.map((atom) => factor(y - atom)));
    const both = mean(atoms.map(averaged));
    const unknown = Number.isNaN(x) ? both : averaged(x);
    for (let v = 0; v < found.length; v += 1) {
      if (Number.isNaN(values[v])) found[v] *= unknown;
      else found[v] *= Number.isNaN(x) ? averaged(values[v]) : factor(x - values[v]);
    }
  }

  /** Prior variance, with what no other model shares. */
  variance(treeVariance, linear, w) {
    let sum = w.lineage * treeVariance;
    for (const name of ["card and name", "base", "constant", "noise"]) sum += w[name] || 0;
    for (const [name, value] of Object.entries(linear)) sum += (w[name] || 0) * value ** 2;
    return sum;
  }

  /** The same of an evaluated model. */
  varianceOf(row, w) {
    return this.variance(this.process.tree_variance[row], this.linearOf(this.cards.size[row], this.cards.date[row]), w);
  }

  ownVariance(row) {
    return this.varianceOf(row, this.process.parameters) + this.process.least_noise;
  }

  /** Covariances of an evaluated model with all; the latest ones are kept. */
  column(row, w = this.process.parameters) {
    const columns = this.columns.get(w) || new Map();
    this.columns.set(w, columns);
    if (!columns.has(row)) {
      if (columns.size > KEPT_COLUMNS) columns.delete(columns.keys().next().value);
      columns.set(row, this.covariance(this.described(row), w));
    }
    return columns.get(row);
  }

  // Forecasts.

  /** Mean and variance (q,) of the outputs of a described model, and its covariances. */
  forecast(described) {
    const { process } = this;
    const filled = this.filled(described);
    const cross = this.covariance(filled, process.parameters);
    const own = this.variance(described.variance, this.linearOf(filled.size, filled.date), process.parameters);
    const means = new Float64Array(this.q);
    const variances = new Float64Array(this.q);
    for (const group of process.groups) {
      const gain = process.exact ? null : this.fromNeighbours(group, cross);
      const left = process.exact ? this.varianceLeft(group, cross, own) : own - gain.reduce((sum, [row, weight]) => sum + weight * cross[row], 0);
      for (const k of group.outputs) {
        variances[k] = Math.max(left, 1e-6);
        if (gain) means[k] = gain.reduce((sum, [row, weight]) => sum + weight * process.outputs[row * this.q + k], 0);
        else for (let v = 0; v < this.n; v += 1) means[k] += cross[v] * process.solved[v * this.q + k];
      }
    }
    const isFar = Math.min(...variances) > FAR * own;
    return { means: this.drawn(means, variances, described.parents), variances, cross, filled, isFar };
  }

  /** Weights of the models of largest covariance, the only ones that are looked at. */
  fromNeighbours(group, cross) {
    const near = largest(cross, Math.min(this.process.neighbours, this.n));
    const factor = new Cholesky();
    near.forEach((row, i) => {
      const column = this.column(row);
      factor.push([...near.slice(0, i).map((other) => column[other]), this.ownVariance(row) + group.noise[row]]);
    });
    const gain = factor.solve(near.map((row) => cross[row]));
    return near.map((row, i) => [row, gain[i]]);
  }

  /**
   * Variance own - k' (K + N)^-1 k. The models join in order of how much of it they still explain,
   * r_v^2 P_vv with r what of k the ones so far leave over, until hardly anything is left.
   */
  varianceLeft(group, cross, own) {
    const { precision, noise } = group;
    const factor = new Cholesky();
    const chosen = [];
    const isChosen = new Uint8Array(this.n);
    let rest = cross;
    for (;;) {
      const gain = explained(rest, precision, isChosen);
      const next = largest(gain, Math.min(COLUMNS_AT_ONCE, this.n - chosen.length), 1e12);
      for (const row of next) {
        const column = this.column(row);
        factor.push([...chosen.map((other) => column[other]), this.ownVariance(row) + noise[row]]);
        chosen.push(row);
        isChosen[row] = 1;
      }
      const solved = factor.solve(chosen.map((row) => cross[row]));
      const left = own - dot(solved, chosen.map((row) => cross[row]));
      rest = cross.slice();
      chosen.forEach((row, i) => add(rest, -solved[i], this.column(row)));
      const open = explained(rest, precision, isChosen).reduce((sum, part) => sum + Math.max(part, 0), 0);
      if (open < SETTLED * left || chosen.length >= Math.min(MOST_COLUMNS, this.n)) return left - SHARED * open;
    }
  }

  /** Means drawn to those of the evaluated parents, the less the farther they lie apart. */
  drawn(means, variances, parents) {
    const { reach, outputs, groups, variances: spread } = this.process;
    if (!reach || !parents.length) return means;
    const gap = new Float64Array(this.q);
    for (const { outputs: own, noise } of groups) {
      for (const k of own) {
        gap[k] = mean(parents.map((row) => outputs[row * this.q + k] / (1 + noise[row]))) - means[k];
      }
    }
    const total = spread.reduce((sum, x) => sum + x, 0);
    let distance = 0;
    for (let k = 0; k < this.q; k += 1) distance += ((gap[k] ** 2 / variances[k]) * spread[k]) / total;
    return means.map((m, k) => m + (0.5 * gap[k]) / (1 + distance / reach ** 2));
  }

  /** Precision and information of the state: N(m, v^1/2 S v^1/2) of the outputs, as a state. */
  gaussian({ means, variances }) {
    const { to_states: map, scatter, centre } = this.process;
    const p = centre.length;
    const scale = variances.map(Math.sqrt);
    const covariance = Array.from({ length: p }, () => new Float64Array(p));
    for (let a = 0; a < this.q; a += 1) {
      for (let b = 0; b < this.q; b += 1) {
        const part = scale[a] * scatter[a][b] * scale[b];
        for (let i = 0; i < p; i += 1) for (let j = 0; j < p; j += 1) covariance[i][j] += map[a][i] * part * map[b][j];
      }
    }
    const precision = inverse(covariance);
    const state = centre.map((c, i) => c + means.reduce((sum, m, k) => sum + m * map[k][i], 0));
    return { precision, information: times(precision, state) };
  }
}
