// From the prior of a state to benchmark scores with intervals: the equations of
// lrmf/solver/{arcsine,bernoulli,scores,calibration}.py and lrmf/forecaster/near_duplicates.py.

const LEAST_WEIGHT = 1e-3; // of a near-duplicate that counts in the variance of the mean
const LINEARISED = 10; // times that scores of many answers are linearised

/** Forecasts of models that nobody has evaluated. */
class Forecaster {
  constructor(data) {
    this.data = data;
    this.ask_ = data.ask;
    this.prior = new Prior(data.ask, data.models.id);
    this.items = data.ask.items;
    this.nBenchmarks = data.benchmarks.length;
    this.readItems();
  }

  readItems() {
    const { items } = this;
    const width = this.ask_.process.centre.length;
    this.byBenchmark = Array.from({ length: this.nBenchmarks }, () => []);
    items.benchmark.forEach((b, i) => {
      const item = { weight: items.n_trials[i] };
      if (items.kind === "answers") {
        const row = Array.from(items.table.slice(i * (width + 1), (i + 1) * (width + 1)), (x, k) => x * items.step[k]);
        item.intercept = row.pop();
        item.loadings = row;
      } else {
        item.loadings = Array.from(items.loadings.slice(i * width, (i + 1) * width));
        for (const name of ["mean", "scale", "noise"]) item[name] = items[name][i];
      }
      this.byBenchmark[b].push(item);
    });
  }

  /** Expected response to an item, its slope by the state's direction, and the noise of a response. */
  expected(item, state, covariance) {
    const spread = Math.max(quadratic(covariance, item.loadings), 0);
    const along = dot(item.loadings, state);
    if (this.items.kind === "answers") {
      // E sigma(s) ~ sigma(E s / sqrt(1 + pi/8 Var s)).
      const shrink = 1 / Math.sqrt(1 + (Math.PI / 8) * spread);
      const chance = 1 / (1 + Math.exp(-shrink * (along + item.intercept)));
      const own = chance * (1 - chance);
      const slope = shrink * own;
      return [chance, slope, own - spread * slope ** 2];
    }
    // E sin^2(y / 2) = (1 - cos(E y) exp(-Var y / 2)) / 2.
    const y = clip(item.mean + item.scale * along, 0, Math.PI);
    const damping = Math.exp(-0.5 * spread * item.scale ** 2);
    const slope = 0.5 * Math.sin(y) * item.scale;
    return [0.5 * (1 - Math.cos(y) * damping), slope, slope ** 2 * item.noise];
  }

  /** Score of a benchmark, its gradient by the state, and its sampling variance. */
  benchmark(b, { state, covariance }) {
    let [score, noise, total] = [0, 0, 0];
    const gradient = new Float64Array(state.length);
    for (const item of this.byBenchmark[b]) {
      const [value, slope, own] = this.expected(item, state, covariance);
      score += item.weight * value;
      noise += item.weight ** 2 * own;
      total += item.weight;
      for (let k = 0; k < gradient.length; k += 1) gradient[k] += item.weight * slope * item.loadings[k];
    }
    return { score: score / total, gradient: gradient.map((g) => g / total), noise: noise / total ** 2 };
  }

  /** Whether known scores are single responses, which a fit can be given as they are. */
  areResponses(known) {
    return this.items.kind !== "answers" && [...known.keys()].every((b) => this.byBenchmark[b].length === 1);
  }

  /** Moments of the state given known scores, a Map of benchmark number to proportion. */
  conditioned(prior, known, lacksRelatives) {
    let posterior = moments(prior);
    if (!known.size) return posterior;
    const isDirect = this.areResponses(known);
    for (let round = 0; round < (isDirect ? 1 : LINEARISED); round += 1) {
      const precision = prior.precision.map((row) => Array.from(row));
      const information = Array.from(prior.information);
      for (const [b, share] of known) {
        const [row, target, noise] = isDirect ? this.response(b, share) : this.linearised(b, share, posterior, lacksRelatives);
        for (let i = 0; i < row.length; i += 1) {
          information[i] += (row[i] * target) / noise;
          for (let j = 0; j < row.length; j += 1) precision[i][j] += (row[i] * row[j]) / noise;
        }
      }
      posterior = moments({ precision, information });
    }
    return posterior;
  }

  /** A response as evidence of the state: what of it is seen, its value, its variance. */
  response(b, share) {
    const [{ loadings, mean: centre, scale, noise }] = this.byBenchmark[b];
    return [loadings, (toArcsine(share) - centre) / scale, noise];
  }

  /** A score of many responses on the arcsine scale, at the present mean of the state. */
  linearised(b, share, posterior, lacksRelatives) {
    const found = this.benchmark(b, posterior);
    const score = clip(found.score, 1e-4, 1 - 1e-4);
    const spread = score * (1 - score);
    const row = found.gradient.map((g) => g / Math.sqrt(spread));
    const unexplained = this.ask_.calibration.unexplained[0][Number(lacksRelatives)][b];
    return [row, toArcsine(share) - toArcsine(score) + dot(row, posterior.state), found.noise / spread + unexplained + 1e-4];
  }

  /**
   * Forecast a model.
   *
   * parents: nodes; relation: as in the lineage; card: {name, size}; scores: Map of benchmark number
   * to proportion. Gives {rows: [{score, lower, upper, deviation, known}], average, notes, nearest, ...}.
   */
  ask({ parents = [], relation = "finetune", card = {}, scores = new Map(), level = this.ask_.level }) {
    const { prior } = this;
    const rows = parents.map((node) => prior.place.get(node)).filter((row) => row !== undefined);
    const described = prior.describe(rows, relation, card);
    const forecast = prior.forecast(described);
    const related = this.relatedness(parents);
    const lacksRelatives = !related.some((kind) => kind > 0);
    const state = this.conditioned(prior.gaussian(forecast), scores, lacksRelatives);
    const isDirect = this.areResponses(scores);
    const copies = this.copies(related, lacksRelatives);
    const half = normalQuantile(0.5 + level / 2);
    const found = this.data.benchmarks.map((_, b) => this.benchmark(b, state));
    const result = found.map(({ score: expected, noise, gradient }, b) => {
      if (scores.has(b)) return { score: scores.get(b), lower: scores.get(b), upper: scores.get(b), deviation: 0, known: true };
      const score = copies ? this.blended(copies, b, expected) : expected;
      const variance = noise + quadratic(state.covariance, gradient);
      const deviation = this.calibrated(b, score, Math.sqrt(Math.max(variance, 0)), isDirect ? scores.size : 0, lacksRelatives);
      return { ...interval(score, deviation, half), score, deviation, known: false };
    });
    const average = this.average(found, result, state.covariance, copies, half);
    return { rows: result, average, notes: described.notes, lacksRelatives, isFar: forecast.isFar, nearest: this.nearest(forecast), filled: forecast.filled };
  }

  /**
   * The mean of all scores. They are correlated as the state says and as near-duplicates are: with
   * weight w_k the scores are those of a copy, s_k, and Cov = own G C G' + sum_k w_k (s_k - m)(s_k - m)'.
   */
  average(found, rows, covariance, copies, half) {
    const kept = (copies || []).filter(([, weight]) => weight > LEAST_WEIGHT);
    const own = 1 - kept.reduce((sum, [, weight]) => sum + weight, 0);
    const parts = kept.map(([row, weight]) => [weight, found.map(({ score }, b) => this.scoreOfCopy(row, b, score))]);
    parts.push([own, found.map(({ score }) => score)]);
    const centre = found.map((_, b) => parts.reduce((sum, [weight, scores]) => sum + weight * scores[b], 0));
    // Each benchmark's deviation is as calibrated, whatever this covariance has.
    const noises = found.map(({ noise }, b) => noise * (own + kept.reduce((sum, [row, weight]) => sum + weight * this.openShare(row, b), 0)));
    const scale = rows.map(({ known, deviation }, b) => {
      const between = parts.reduce((sum, [weight, scores]) => sum + weight * (scores[b] - centre[b]) ** 2, 0);
      const variance = own * quadratic(covariance, found[b].gradient) + between + noises[b];
      return known ? 0 : deviation / Math.sqrt(Math.max(variance, 1e-12));
    });
    const gradient = new Float64Array(covariance.length);
    scale.forEach((factor, b) => add(gradient, factor, found[b].gradient));
    let variance = own * quadratic(covariance, gradient);
    for (const [weight, scores] of parts) variance += weight * dot(scale, scores.map((score, b) => score - centre[b])) ** 2;
    scale.forEach((factor, b) => { variance += factor ** 2 * noises[b]; });
    const score = mean(rows.map((row) => row.score));
    const deviation = Math.sqrt(Math.max(variance, 0)) / rows.length;
    return { ...interval(score, deviation, half), score, deviation, known: rows.every((row) => row.known) };
  }

  /** Deviations widened as errors of training models call for; tables by number of responses. */
  calibrated(b, score, deviation, nRevealed, lacksRelatives) {
    const { n_revealed: levels, unexplained, scale } = this.ask_.calibration;
    const x = Math.log1p(nRevealed);
    const logs = levels.map(Math.log1p);
    let below = 0;
    while (below + 1 < logs.length && logs[below + 1] <= x) below += 1;
    const above = Math.min(below + 1, logs.length - 1);
    const share = above > below ? clip((x - logs[below]) / (logs[above] - logs[below]), 0, 1) : 0;
    const at = (table) => (1 - share) * table[below][Number(lacksRelatives)][b] + share * table[above][Number(lacksRelatives)][b];
    return Math.sqrt(deviation ** 2 + at(unexplained) * unit(score)) * at(scale);
  }

  /** How the evaluated models are related to a child of these nodes: 3 parent, 2 two steps, 1 family. */
  relatedness(parents) {
    const { models, edges, ask } = this.data;
    const nodes = this.ask_.uses.lineage ? parents : [];
    const families = new Set(nodes.map((node) => models.family[node]));
    const [own, near] = [new Set(nodes), new Set(nodes)];
    edges.parent.forEach((parent, e) => {
      if (own.has(parent)) near.add(edges.child[e]);
      if (own.has(edges.child[e])) near.add(parent);
    });
    return Array.from(ask.cards.node.slice(0, this.prior.n), (node) =>
      own.has(node) ? 3 : near.has(node) ? 2 : families.has(models.family[node]) ? 1 : 0,
    );
  }

  /** Weights of training models that a related model may be a near-duplicate of: [[row, weight]]. */
  copies(related, lacksRelatives) {
    const { copies } = this.ask_;
    if (!copies || lacksRelatives) return null;
    const number = [0, 0, 0, 0];
    for (const kind of related) number[kind] += 1;
    const sum = (shares) => shares.reduce((total, x) => total + x, 0);
    // Nothing speaks for a stranger: its share goes to the forecast.
    let total = copies.alone + sum(copies.shares[0]);
    const weight = [0, 0, 0, 0];
    for (const kind of [1, 2, 3]) {
      if (!number[kind]) continue;
      total += sum(copies.shares[kind]);
      weight[kind] = dot(copies.shares[kind], copies.noise.map((e) => 1 - e)) / number[kind];
    }
    let found = related.map((kind, row) => [row, weight[kind] / total]).filter(([, own]) => own > 0);
    if (related.length > copies.n_kept && found.length > copies.n_kept) {
      // The small ones are dropped, their weight goes to those kept.
      const whole = sum(found.map(([, own]) => own));
      const least = found.map(([, own]) => own).sort((a, b) => b - a)[copies.n_kept - 1];
      found = found.filter(([, own]) => own >= least);
      const kept = sum(found.map(([, own]) => own));
      found = found.map(([row, own]) => [row, (own * whole) / kept]);
    }
    return found;
  }

  /** Mean of the near-duplicates' scores and the forecast. */
  blended(found, b, score) {
    return found.reduce((sum, [row, weight]) => sum + weight * (this.scoreOfCopy(row, b, score) - score), score);
  }

  /** The score of a training model, the forecast in place of answers that it lacks. */
  scoreOfCopy(row, b, score) {
    const open = this.openShare(row, b);
    return ((1 - open) * this.ask_.copies.score[row * this.nBenchmarks + b]) / 1e4 + open * score;
  }

  openShare(row, b) {
    return 1 - this.ask_.copies.answered[row * this.nBenchmarks + b];
  }

  /** The evaluated models of largest covariance: what the forecast rests on most. */
  nearest({ cross }, count = 5) {
    const order = Array.from(cross.keys()).sort((a, b) => cross[b] - cross[a] || a - b);
    return order.slice(0, count).map((row) => this.ask_.cards.node[row]);
  }
}

function moments({ precision, information }) {
  const covariance = inverse(precision);
  return { covariance, state: times(covariance, information) };
}

/** Variance of a score that is 1 on the arcsine scale. */
const unit = (score) => Math.max(score * (1 - score), 1e-4);

/** Bounds of equal tails on the arcsine scale. */
function interval(score, deviation, half) {
  const [y, width] = [toArcsine(score), (half * deviation) / Math.sqrt(unit(score))];
  const back = (z) => Math.sin(clip(z, 0, Math.PI) / 2) ** 2;
  return { lower: Math.min(back(y - width), score), upper: Math.max(back(y + width), score) };
}

/** Chance that a score is above another one; none is above the highest. */
function chanceAbove({ score, deviation }, other) {
  if (other > 1 - 1e-6) return 0;
  return normalCdf((toArcsine(score) - toArcsine(other)) / Math.max(deviation / Math.sqrt(unit(score)), 1e-9));
}
