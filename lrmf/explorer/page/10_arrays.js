// Arrays as they were baked, and the little linear algebra and statistics that forecasts need.

const TYPES = { i1: Int8Array, i2: Int16Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array, f4: Float32Array };

/** Replace every baked array in a document by the typed array of its bytes. */
function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.bytes === "string" && TYPES[value.dtype]) {
    const text = atob(value.bytes);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    return new TYPES[value.dtype](bytes.buffer);
  }
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, decode(part)]));
}

/** Cholesky factor of a symmetric positive definite matrix that grows row by row. */
class Cholesky {
  constructor() {
    this.rows = [];
  }

  /** Append a row: covariances with the rows so far, then its own variance. */
  push(row) {
    const n = this.rows.length;
    const own = new Float64Array(n + 1);
    let left = row[n];
    for (let j = 0; j < n; j += 1) {
      const other = this.rows[j];
      let sum = row[j];
      for (let k = 0; k < j; k += 1) sum -= own[k] * other[k];
      own[j] = sum / other[j];
      left -= own[j] * own[j];
    }
    own[n] = Math.sqrt(Math.max(left, 1e-12));
    this.rows.push(own);
  }

  /** Solution of L L' x = b. */
  solve(b) {
    const n = this.rows.length;
    const x = Float64Array.from(b);
    for (let i = 0; i < n; i += 1) {
      const row = this.rows[i];
      for (let k = 0; k < i; k += 1) x[i] -= row[k] * x[k];
      x[i] /= row[i];
    }
    for (let i = n - 1; i >= 0; i -= 1) {
      x[i] /= this.rows[i][i];
      for (let k = 0; k < i; k += 1) x[k] -= this.rows[i][k] * x[i];
    }
    return x;
  }
}

/** Inverse of a symmetric positive definite matrix, an array of rows. */
function inverse(matrix) {
  const factor = new Cholesky();
  for (let i = 0; i < matrix.length; i += 1) factor.push(matrix[i]);
  const columns = matrix.map((_, i) => factor.solve(matrix.map((__, j) => Number(i === j))));
  return columns.map((column) => Array.from(column));
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
  return sum;
}

/** target += weight * values. */
function add(target, weight, values) {
  for (let i = 0; i < target.length; i += 1) target[i] += weight * values[i];
}

/** Rows times a vector. */
const times = (matrix, vector) => matrix.map((row) => dot(row, vector));

/** x' M x. */
const quadratic = (matrix, x) => dot(x, times(matrix, x));

/** Positions of the largest values, at most `count`, in order; ties (at 1 / scale) go to the first. */
function largest(values, count, scale = 1e6) {
  const rounded = values.map((x) => Math.round(x * scale));
  const least = rounded.slice().sort()[Math.max(rounded.length - count, 0)];
  const above = Array.from(values.keys()).filter((i) => rounded[i] > least);
  const equal = Array.from(values.keys()).filter((i) => rounded[i] === least);
  return [...above, ...equal.slice(0, count - above.length)].sort((a, b) => a - b);
}

/** P(Z < z) of a standard normal: Abramowitz and Stegun (1964), 7.1.26 (error below 2e-7). */
function normalCdf(z) {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  const tail = 0.5 * poly * Math.exp(-x * x);
  return z < 0 ? tail : 1 - tail;
}

/** z with P(Z < z) = p, by bisection. */
function normalQuantile(p) {
  let [low, high] = [-9, 9];
  for (let i = 0; i < 60; i += 1) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

const clip = (x, low, high) => Math.min(Math.max(x, low), high);

/** y = 2 asin sqrt(proportion): the scale on which errors of scores are alike. */
const toArcsine = (share) => 2 * Math.asin(Math.sqrt(clip(share, 0, 1)));
