// How a histogram changed over training: one ridge a snapshot, the newest in front.

import { h, svg } from "./dom.js";
import { exact, tick } from "./format.js";
import { ticks } from "./scale.js";

const HEIGHT = 200, LEFT = 10, RIGHT = 46, TOP = 6, BOTTOM = 26, BINS = 60;
const SHARE = 0.45; // of the height that the highest ridge takes, where there are several

export class Ridges {
  constructor(name) {
    this.name = name;
    this.box = h("div", { class: "plot", role: "img" });
    this.said = h("p", { class: "caption" });
    this.node = h("div", { class: "chart ridges" }, h("h4", {}, name), this.box, this.said);
    this.snapshots = [];
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  show(snapshots) {
    const stamp = `${snapshots.length}:${snapshots.at(-1)?.step}`;
    if (stamp === this.stamp) return;
    this.stamp = stamp;
    this.snapshots = snapshots;
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth;
    const found = this.snapshots.filter((each) => each.counts);
    if (!width || !found.length) return;
    const [low, high] = [Math.min(...found.map((each) => each.edges[0])), Math.max(...found.map((each) => each.edges.at(-1)))];
    const ridges = found.map((each) => ({ step: each.step, height: densities(each, low, high) }));
    const top = Math.max(...ridges.flatMap((ridge) => ridge.height)) || 1;
    const x = (value) => LEFT + (value - low) / (high - low || 1) * (width - LEFT - RIGHT);
    const room = HEIGHT - TOP - BOTTOM, tall = ridges.length > 1 ? room * SHARE : room;
    const gap = ridges.length > 1 ? (room - tall) / (ridges.length - 1) : 0;
    const root = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" });
    for (const value of ticks(low, high, width / 90, false)) {
      root.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: TOP, y2: HEIGHT - BOTTOM }),
        svg("text", { class: "number", x: x(value), y: HEIGHT - 8, "text-anchor": "middle" }, tick(value)));
    }
    const labelled = new Set([0, Math.floor((ridges.length - 1) / 2), ridges.length - 1]);
    ridges.forEach((ridge, k) => {
      const base = TOP + tall + k * gap;
      const points = ridge.height.map((size, bin) => [
        x(low + (bin + 0.5) / BINS * (high - low)), base - size / top * tall,
      ]);
      const line = `M${x(low).toFixed(1)} ${base}L${points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}L${x(high).toFixed(1)} ${base}`;
      const age = ridges.length > 1 ? k / (ridges.length - 1) : 1;
      root.append(svg("path", { class: "ridge", d: `${line}Z`, "stroke-opacity": 0.35 + 0.65 * age },
        svg("title", {}, `step ${ridge.step}`)));
      if (labelled.has(k)) root.append(svg("text", { class: "number", x: width - RIGHT + 6, y: base + 4 }, tick(ridge.step)));
    });
    this.box.replaceChildren(root);
    const last = found.at(-1);
    const words = `step ${last.step}: from ${exact(last.edges[0])} to ${exact(last.edges.at(-1))}, half of it between ${quantile(last, 0.25)} and ${quantile(last, 0.75)}`;
    this.said.textContent = words;
    this.box.setAttribute("aria-label", `${this.name}, ${words}`);
  }
}

// Heights over BINS equal bins of one range, whatever bins the snapshot had.
function densities({ counts, edges }, low, high) {
  const heights = new Array(BINS).fill(0), width = (high - low) / BINS || 1;
  const total = counts.reduce((sum, count) => sum + count, 0) || 1;
  counts.forEach((count, k) => {
    const [from, to] = [edges[k], edges[k + 1]];
    const first = Math.max(0, Math.floor((from - low) / width)), last = Math.min(BINS - 1, Math.floor((to - low) / width));
    for (let bin = first; bin <= last; bin += 1) {
      const overlap = Math.min(to, low + (bin + 1) * width) - Math.max(from, low + bin * width);
      const share = to > from ? Math.max(0, overlap) / (to - from) : bin === first ? 1 : 0;
      heights[bin] += count / total * share;
    }
  });
  return heights;
}

function quantile({ counts, edges }, share) {
  const wanted = counts.reduce((sum, count) => sum + count, 0) * share;
  let sum = 0;
  for (let k = 0; k < counts.length; k += 1) {
    if (sum + counts[k] >= wanted && counts[k]) {
      return exact(edges[k] + (edges[k + 1] - edges[k]) * (wanted - sum) / counts[k]);
    }
    sum += counts[k];
  }
  return exact(edges.at(-1));
}
