// A click on a heading sorts its table; cells without a key go last.
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table");
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.key;
    const order = (a, b) => head.classList.contains("text")
      ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (a === "") - (b === "") || (up ? order(a, b) : order(b, a)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}

// Open <details> where a link leads into them, and for printing.
const reveal = () => document.getElementById(location.hash.slice(1))?.closest("details")
  ?.setAttribute("open", "");
addEventListener("hashchange", reveal);
reveal();
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});

// A pointer over a figure of curves reads them off at the nearest of their points.
for (const figure of document.querySelectorAll("[data-readings]")) {
  const { x: title, lines } = JSON.parse(figure.dataset.readings);
  const box = Object.assign(document.createElement("div"), { className: "reading", hidden: true });
  const rule = Object.assign(document.createElement("div"), { className: "rule", hidden: true });
  figure.append(rule, box);
  figure.addEventListener("pointermove", (event) => {
    const { left, width, height } = figure.getBoundingClientRect();
    const at = (event.clientX - left) / width;
    const nearest = (points) => points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
    const found = lines.map(({ style, label, points }) => ({ style, label, point: nearest(points) }));
    if (!found.length) return;
    const place = found.reduce((a, b) => Math.abs(b.point[0] - at) < Math.abs(a.point[0] - at) ? b : a).point;
    box.replaceChildren(...[`${place[1]} ${title}`, ...found
      .sort((a, b) => b.point[2] - a.point[2])
      .map(({ label, point }) => `${point[2]}  ${label}${point[1] === place[1] ? "" : ` (at ${point[1]})`}`)]
      .map((text) => Object.assign(document.createElement("div"), { textContent: text })));
    box.hidden = rule.hidden = false;
    rule.style.left = `${place[0] * width}px`;
    rule.style.height = `${height}px`;
    box.style.left = place[0] < 0.5 ? `${place[0] * width + 10}px` : "";
    box.style.right = place[0] < 0.5 ? "" : `${(1 - place[0]) * width + 10}px`;
  });
  figure.addEventListener("pointerleave", () => { box.hidden = rule.hidden = true; });
}
