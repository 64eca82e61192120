// Curves in SVG: one line a run or a layer, with the spread of what each of its points stands for.

import { h, svg } from "./dom.js";
import { brief, exact, human, tick } from "./format.js";
import { scale, spread, ticks } from "./scale.js";

export const MOST_LINES = 28; // seven colours and four dashes: so many can be told apart
const MOST_LAYERS = 96, FEW = 8;
const COLOURS = 7, TIP_LINES = 14, FONT = 12;
let dashes = [[]];
let numbers = 0;

export const useDashes = (found) => { dashes = found; };
const colour = (style) => `var(--series-${style % COLOURS})`;
const mixed = (share) => `color-mix(in oklab, var(--series-1) ${Math.round(share * 100)}%, var(--series-0))`;
const paint = (line) => (line.depth == null ? colour(line.style) : mixed(line.depth));
const dash = (line, times) => (line.depth == null
  ? dashes[line.style % dashes.length].map((length) => length * times).join(" ") || null : null);

const sample = (line) => {
  const drawn = svg("svg", { class: "swatch", viewBox: "0 0 30 12", "aria-hidden": "true" },
    svg("line", { x1: 0, y1: 6, x2: 30, y2: 6, "stroke-dasharray": dash(line, 1.7) }));
  drawn.style.color = paint(line);
  return drawn;
};
export const swatch = (style) => sample({ style });

// The lines of a model's layers, first to last: where they are many, by a colour that goes with
// depth, for nobody can tell thirty colours apart.
export const byDepth = (lines) => lines.slice(0, MOST_LAYERS).map((line, k) => ({
  ...line, style: k, depth: lines.length > FEW ? k / (lines.length - 1) : null,
}));

// A line: {label, style, depth, x, y, low, high}. What it is drawn by: {axis: {name, log}, logY, smooth,
// marks: [{y, label}]}.
export class Chart {
  constructor(name, { onzoom = null, tall = true } = {}) {
    this.name = name;
    this.onzoom = onzoom;
    this.tall = tall;
    this.id = `plot${numbers += 1}`;
    this.lines = [];
    this.options = { axis: { name: "steps", log: false }, logY: false, smooth: 0, marks: [] };
    this.tip = h("div", { class: "tip", hidden: true });
    this.box = h("div", {
      class: "plot", tabindex: 0, role: "img",
      onpointermove: (event) => this.#point(event),
      onpointerleave: () => this.#leave(),
      onpointerdown: (event) => this.#grab(event),
      onpointerup: (event) => this.#drop(event),
      onpointercancel: () => { this.from = null; this.#leave(); },
      ondblclick: () => onzoom?.(null),
      onkeydown: (event) => this.#key(event),
      onblur: () => this.#leave(),
    });
    this.legend = h("ul", { class: "legend", hidden: true });
    this.node = h("div", { class: "chart" }, this.box, this.legend, this.tip);
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  show(lines, options) {
    this.lines = lines.map(clean).filter((line) => line.x.length);
    this.options = { ...this.options, ...options };
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth;
    if (!width) return;
    const height = width < 480 ? 230 : this.tall ? 320 : 240;
    const { axis, logY, smooth } = this.options;
    const ready = this.lines.map((line) => {
      const kept = keep(line, axis.log, logY);
      return { ...kept, raw: kept.y, y: smooth ? smoothed(kept, smooth, axis.log) : kept.y };
    });
    this.drawn = ready.filter((line) => line.y.length);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    this.box.replaceChildren(root);
    this.box.setAttribute("aria-label", this.#words());
    if (!this.drawn.length) {
      root.append(svg("text", { x: width / 2, y: height / 2, class: "empty" }, "nothing to draw yet"));
      this.legend.hidden = true;
      return;
    }
    this.#place(width, height);
    this.#explain();
    this.#frame(root);
    for (const line of this.drawn) this.#line(root, line);
    this.#ends(root);
    this.cursor = svg("g", { class: "cursor", visibility: "hidden" });
    root.append(this.cursor);
    if (this.at != null) this.#mark(this.at);
  }

  // A legend where the lines' ends have no room for names.
  #explain() {
    this.legend.hidden = this.named || this.drawn.length < 2;
    const names = this.drawn.map((line) => `${line.style} ${line.label}`).join("\n");
    if (this.legend.hidden || this.legend.dataset.names === names) return;
    this.legend.dataset.names = names;
    const deep = this.drawn.some((line) => line.depth != null);
    const shown = deep ? [this.drawn[0], this.drawn.at(-1)] : this.drawn;
    this.legend.replaceChildren(...shown.map((line) => h("li", {}, sample(line), line.label)));
    if (deep) {
      this.legend.children[0].after(h("li", { class: "between" }, "to"));
      this.legend.append(h("li", { class: "between" }, `${this.drawn.length} in all`));
    }
  }

  #words() {
    const ends = this.drawn.map((line) => `${line.label} ends at ${exact(line.y.at(-1))}`);
    return `${this.name} over ${this.options.axis.name}: ${ends.join("; ") || "nothing yet"}`;
  }

  #place(width, height) {
    const { axis, logY, marks = [] } = this.options;
    const longest = Math.max(...this.drawn.map((line) => line.label.length));
    // Names at the lines' ends, where there is room for them.
    this.named = this.tall && width > 560 && this.drawn.length <= 14 && this.drawn.length > 0;
    const right = this.named ? Math.min(width * 0.36, 72 + longest * 6.4) : 14;
    const xs = this.drawn.flatMap((line) => [line.x[0], line.x.at(-1)]);
    const free = xs.every((x) => x <= 0);
    const { low, high, above } = range(this.drawn, logY, marks);
    this.above = above;
    this.area = { left: 50, right: width - right, top: 16, bottom: height - 40, width, height };
    const { left, bottom, top } = this.area;
    let [first, last] = free ? [0, 1] : [Math.min(...xs), Math.max(...xs)];
    if (!axis.log && first > 0 && first < last / 50) first = 0; // the first of many steps, merged
    this.x = scale(first, last > first ? last : first + (axis.log ? first : 1), left, width - right, axis.log && !free);
    this.y = scale(low, high, bottom, top, logY);
    this.edges = { first, last, low, high };
  }

  #frame(root) {
    const { left, right, top, bottom } = this.area;
    const { axis, logY, marks = [] } = this.options;
    const { first, last, low, high } = this.edges;
    root.append(svg("clipPath", { id: this.id },
      svg("rect", { x: left - 4, y: top - 4, width: right - left + 8, height: bottom - top + 8 })));
    for (const value of ticks(low, high, (bottom - top) / 42, logY)) {
      const y = this.y(value);
      root.append(svg("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }),
        svg("text", { class: "number", x: left - 8, y: y + 4, "text-anchor": "end" }, tick(value)));
    }
    const whole = axis.name !== "seconds";
    for (const value of ticks(first, last, (right - left) / 82, this.x.log)) {
      if (whole && !Number.isInteger(value)) continue;
      root.append(svg("text", { class: "number", x: this.x(value), y: bottom + 17, "text-anchor": "middle" }, tick(value)));
    }
    root.append(
      svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      svg("text", { class: "axis-name", x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, axis.name));
    for (const mark of marks) {
      const y = this.y(mark.y);
      root.append(svg("line", { class: "mark", x1: left, x2: right, y1: y, y2: y }),
        svg("text", { class: "number", x: right, y: y - 4, "text-anchor": "end" }, mark.label));
    }
    if (this.above != null) {
      root.append(svg("text", { class: "aside", x: left, y: 10 }, `the start, up to ${brief(this.above)}, lies above`));
    }
  }

  #line(root, line) {
    const group = svg("g", { "clip-path": `url(#${this.id})`, stroke: paint(line), fill: paint(line) });
    const points = line.x.map((x, k) => [this.x(x), this.y(line.y[k])]);
    if (line.free) {
      const { left, right } = this.area, y = this.y(line.y.at(-1));
      group.append(svg("path", { class: "line", d: `M${left} ${y}H${right}`, "stroke-dasharray": "2 4" }));
    } else if (points.length === 1) {
      group.append(svg("circle", { class: "dot", cx: points[0][0], cy: points[0][1], r: 3.5 }));
    } else {
      if (line.low.some((low, k) => low !== line.high[k])) {
        const upper = line.x.map((x, k) => [this.x(x), this.y(line.high[k])]);
        const lower = line.x.map((x, k) => [this.x(x), this.y(line.low[k])]).reverse();
        group.append(svg("path", { class: "band", d: `${path(upper)}L${path(lower).slice(1)}Z` }));
      }
      if (this.options.smooth) {
        const raw = line.x.map((x, k) => [this.x(x), this.y(line.raw[k])]);
        group.append(svg("path", { class: "raw", d: path(raw) }));
      }
      group.append(svg("path", { class: "line", d: path(points), "stroke-dasharray": dash(line, 2) }));
      if (points.length <= 24) {
        for (const [cx, cy] of points) group.append(svg("circle", { class: "dot", cx, cy, r: 2.6 }));
      }
    }
    root.append(group);
  }

  // Each line's name and last value beside its end.
  #ends(root) {
    if (!this.named) return;
    const { right, top, bottom, width } = this.area;
    const wanted = this.drawn.map((line) => Math.min(bottom, Math.max(top, this.y(line.y.at(-1)))));
    const places = spread(wanted, FONT * 1.4, top, bottom);
    const room = Math.floor((width - right - 64) / 6.3);
    this.drawn.forEach((line, k) => {
      const from = line.free ? right : this.x(line.x.at(-1));
      const name = line.label.length > room ? `${line.label.slice(0, room - 1)}…` : line.label;
      root.append(
        svg("path", { class: "lead", stroke: paint(line), d: `M${from} ${wanted[k]}L${right + 10} ${places[k]}` }),
        svg("text", { class: "name", x: right + 14, y: places[k] + 4 },
          svg("tspan", { class: "value", fill: paint(line) }, brief(line.y.at(-1))),
          svg("tspan", { dx: 7 }, line.free ? `${name} (no cost)` : name),
          svg("title", {}, line.label)));
    });
  }

  // The readout

  #point(event) {
    if (!this.drawn?.length) return;
    const where = event.clientX - this.box.getBoundingClientRect().left;
    const { left, right } = this.area;
    this.at = this.x.invert(Math.min(right, Math.max(left, where)));
    this.#mark(this.at, where);
  }

  #leave() {
    this.at = null;
    this.tip.hidden = true;
    this.cursor?.setAttribute("visibility", "hidden");
  }

  #mark(at) {
    const { left, top, bottom, width } = this.area;
    const where = this.x(at);
    const found = this.drawn.map((line) => ({ line, k: line.free ? line.x.length - 1 : nearest(line.x, at, this.x) }))
      .filter(({ line, k }) => line.free || Math.abs(this.x(line.x[k]) - where) < Math.max(12, (this.area.right - left) / 12));
    const parts = [svg("line", { class: "hair", x1: where, x2: where, y1: top, y2: bottom })];
    if (this.from != null && Math.abs(this.from - where) > 4) {
      parts.unshift(svg("rect", { class: "drag", x: Math.min(this.from, where), y: top, width: Math.abs(where - this.from), height: bottom - top }));
    }
    for (const { line, k } of found) {
      const cy = this.y(line.y[k]);
      if (cy >= top - 4) parts.push(svg("circle", { cx: line.free ? where : this.x(line.x[k]), cy, r: 4, fill: paint(line) }));
    }
    this.cursor.replaceChildren(...parts);
    this.cursor.setAttribute("visibility", "visible");
    found.sort((a, b) => b.line.y[b.k] - a.line.y[a.k]);
    const rows = found.slice(0, TIP_LINES).map(({ line, k }) =>
      h("tr", {}, h("td", {}, sample(line)), h("td", { class: "value" }, exact(line.y[k])),
        h("td", { class: "text" }, line.label, line.high[k] !== line.low[k] && !this.options.smooth
          ? h("small", {}, `${exact(line.low[k])} to ${exact(line.high[k])}`) : null)));
    if (found.length > TIP_LINES) rows.push(h("tr", {}, h("td", { colspan: 3 }, `and ${found.length - TIP_LINES} more`)));
    this.tip.replaceChildren(h("b", {}, `${human(at < 10 ? at : Math.round(at))} ${this.options.axis.name}`), h("table", {}, rows));
    this.tip.hidden = found.length === 0;
    const onLeft = where > width / 2;
    this.tip.style.left = onLeft ? "auto" : `${where + 14}px`;
    this.tip.style.right = onLeft ? `${width - where + 14}px` : "auto";
  }

  // Drag to look closer, double click to look at all; arrow keys move the readout.

  #grab(event) {
    if (event.pointerType === "touch" || event.button || !this.onzoom || !this.drawn?.length) return;
    this.from = event.clientX - this.box.getBoundingClientRect().left;
  }

  #drop(event) {
    const from = this.from;
    this.from = null;
    if (from == null) return;
    const to = event.clientX - this.box.getBoundingClientRect().left;
    if (Math.abs(to - from) > 8) this.onzoom([this.x.invert(Math.min(from, to)), this.x.invert(Math.max(from, to))]);
  }

  #key(event) {
    if (event.key === "Escape") this.onzoom?.(null);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.drawn?.length) return;
    event.preventDefault();
    const { left, right } = this.area;
    const here = this.at == null ? right : this.x(this.at);
    this.at = this.x.invert(Math.min(right, Math.max(left, here + step * (right - left) / 60)));
    this.#mark(this.at);
  }
}

// Without what is no number.
function clean(line) {
  const sound = line.x.map((x, k) => k).filter((k) => Number.isFinite(line.x[k]) && Number.isFinite(line.y[k]));
  const take = (values) => sound.map((k) => values[k]);
  return { ...line, x: take(line.x), y: take(line.y), low: take(line.low), high: take(line.high) };
}

// What has a place on the axes; a line whose cost is zero throughout is level, at its last value.
function keep(line, logX, logY) {
  const free = line.x.length > 1 && line.x.at(-1) <= 0;
  const sound = line.x.map((_, k) => k).filter((k) =>
    (free || !logX || line.x[k] > 0) && (!logY || line.low[k] > 0));
  const take = (values) => sound.map((k) => values[k]);
  return { ...line, free, x: take(line.x), y: take(line.y), low: take(line.low), high: take(line.high) };
}

// The mean over a window that is a share of the whole line, as it is drawn.
function smoothed(line, share, log) {
  const place = line.x.map((x) => (log ? Math.log(x) : x));
  const half = (place.at(-1) - place[0]) * share / 2;
  const means = [];
  let from = 0, to = 0, sum = 0;
  for (const middle of place) {
    while (to < place.length && place[to] <= middle + half) sum += line.y[to++];
    while (place[from] < middle - half) sum -= line.y[from++];
    means.push(sum / (to - from));
  }
  return means;
}

// Leaves the start of training above the picture: else the untrained loss flattens every curve.
// Where any line has begun to learn, one that has not begun is left above too.
function range(lines, logY, marks) {
  const begun = lines.filter((line) => line.y.length > 1);
  const settled = (begun.length ? begun : lines).flatMap((line) =>
    [...line.y.slice(line.y.length < 4 ? 0 : Math.ceil(line.y.length / 12)), line.y.at(-1)]);
  const all = lines.flatMap((line) => line.y);
  const level = marks.map((mark) => mark.y);
  let low = Math.min(...all, ...level), high = Math.max(...settled, ...level);
  const top = Math.max(...all);
  if (logY) return { low: low / 1.05, high: Math.max(top, low * 1.1) * 1.05, above: null };
  if (top - low < 1.6 * (high - low)) high = top;
  const room = 0.06 * (high - low) || Math.abs(high) * 0.05 || 0.5;
  return { low: low - room, high: high + room, above: top > high + room ? top : null };
}

const path = (points) => `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;

// The index of the value whose place is nearest.
function nearest(values, wanted, place) {
  let low = 0, high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle; else high = middle;
  }
  return Math.abs(place(values[low]) - place(wanted)) <= Math.abs(place(values[high]) - place(wanted)) ? low : high;
}
