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
