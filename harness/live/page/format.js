// Numbers and names as people read them.

const PREFIXES = " kMGTPEZ";

// Three significant digits with an SI prefix: 1.53 M, 892 k.
export function human(number) {
  if (number == null) return "–";
  if (number === 0) return "0";
  let size = Math.abs(number), power = 0;
  if (size < 999.5) return Number.isInteger(number) ? `${number}` : `${Number(number.toPrecision(3))}`;
  while (size >= 999.5 && power < PREFIXES.length - 1) { size /= 1000; power += 1; }
  return `${number < 0 ? "−" : ""}${size.toPrecision(3)} ${PREFIXES[power]}`;
}

// A round number on an axis: 20 M, 0.5, 1e-5.
export function tick(value) {
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(0).replace("-", "−");
  if (size < 1000) return `${Number(value.toPrecision(6))}`.replace("-", "−");
  const power = Math.min(PREFIXES.length - 1, Math.floor(Math.log10(size) + 1e-9) / 3 | 0);
  return `${Number((value / 1000 ** power).toPrecision(6))} ${PREFIXES[power]}`;
}

// 12,345
export const whole = (number) => number.toLocaleString("en");

export const score = (value) => (value == null ? "–" : value.toFixed(3));

// A value of a curve, exact enough to compare neighbours.
export function exact(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return Number.isInteger(value) ? `${value}` : value.toFixed(size < 10 ? 4 : 2);
}

// The same, short.
export const brief = (value) =>
  (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e3 ? value.toFixed(3) : exact(value));

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

export function age(time) {
  if (!time) return "–";
  const seconds = Math.max(0, Date.now() / 1000 - time);
  return seconds < 45 ? "just now" : `${duration(seconds)} ago`;
}

export const AXES = {
  step: "steps", tokens: "tokens", bytes: "bytes", flops: "FLOPs", seconds: "seconds",
};

const NAMES = {
  "val/bits_per_byte": "validation bits per byte",
  "val/nats_per_token": "validation loss, nats per token",
  "val/perplexity": "validation perplexity",
  "train/loss": "training loss, nats per token",
  lr: "learning rate",
  grad_norm: "gradient norm",
  grad_norm_clipped: "gradient norm, clipped",
};

// Of what was observed, by the part of the model that it is of.
const PATTERNS = [
  [/^updates?\/(.+)\/log10_ratio$/, "size of updates against weights, log₁₀: $1"],
  [/^activations\/(.+)\/std$/, "standard deviation of outputs: $1"],
  [/^activations\/(.+)\/mean$/, "mean of outputs: $1"],
  [/^activations\/(.+)\/(?:inactive|saturation)$/, "share of outputs at rest: $1"],
  [/^weights\/(.+)\/norm$/, "norm of weights: $1"],
  [/^gradients?\/(.+)\/norm$/, "norm of the gradient: $1"],
  [/^dead\/(.+)\/share$/, "share of dead units: $1"],
  [/^attention\/(.+)\/entropy\/(\d+)$/, "entropy of attention, nats: $1, head $2"],
  [/^val\/loss_by_position\/(.+)$/, "validation loss at position $1 of the context"],
];

const named = (name) => {
  const found = PATTERNS.find(([pattern]) => pattern.test(name));
  return found ? name.replace(...found) : name.replaceAll("_", " ");
};

export const parent = (folder) => folder.split("/").slice(0, -1).join("/");

export function metric(name) {
  const title = NAMES[name] ?? named(name);
  return title[0].toUpperCase() + title.slice(1);
}

export const isPerToken = (name) => /loss|nats_per_token|perplexity/.test(name);

const GLYPHS = {
  running: "●", finished: "✓", stopped: "■", failed: "✕", non_finite: "✕", damaged: "✕", lost: "✕", silent: "?",
};
let words = {};
export const useStatuses = (found) => { words = found; };
export const status = (name) => [GLYPHS[name] ?? "?", words[name] ?? name];

export const title = (run) =>
  `${run.model} · ${run.tokenizer}${run.seed == null ? "" : ` · s${run.seed}`}`;

// What to call runs that are shown together: the model, and what else tells them apart.
export function labels(runs) {
  const differ = (name) => new Set(runs.map((run) => run[name])).size > 1;
  const names = runs.map((run) => [
    run.model,
    differ("tokenizer") ? run.tokenizer : "",
    differ("seed") && run.seed != null ? `s${run.seed}` : "",
    differ("data") ? run.data : "",
  ].filter(Boolean).join(" · "));
  const tails = runs.map((run) => run.folder.split("/").at(-1));
  return new Map(runs.map((run, k) => {
    const alone = names.filter((name) => name === names[k]).length === 1;
    return [run.id, alone ? names[k] : `${names[k]} · ${tails[k]}`];
  }));
}
