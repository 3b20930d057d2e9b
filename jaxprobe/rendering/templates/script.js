"use strict";
// Sorting, search and tooltips. The page says the same without them.

function sortValue(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
}

function sortBy(table, header, column) {
  const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const numeric = header.classList.contains("num");
  const body = table.tBodies[0];
  const compare = (a, b) => {
    const [x, y] = [sortValue(a, column), sortValue(b, column)];
    if (!numeric) return direction * x.localeCompare(y, "en", { numeric: true });
    const [p, q] = [parseFloat(x), parseFloat(y)];
    if (Number.isNaN(p) || Number.isNaN(q)) return Number.isNaN(p) - Number.isNaN(q); // n/a last
    return direction * (p - q);
  };
  body.append(...[...body.rows].sort(compare));
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
}

for (const header of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  header.append(button);
  header.setAttribute("aria-sort", "none");
  button.addEventListener("click", () => sortBy(header.closest("table"), header, header.cellIndex));
}

for (const box of document.querySelectorAll(".search")) {
  const rows = [...document.getElementById(box.dataset.table).tBodies[0].rows];
  const input = box.querySelector("input");
  const status = box.querySelector("[role=status]");
  const update = () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = wanted ? `${shown} of ${rows.length} ${box.dataset.unit}` : "";
  };
  input.addEventListener("input", update);
  box.hidden = false;
}

const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
document.body.append(tip);

function showTip(dot) {
  tip.textContent = dot.getAttribute("aria-label");
  tip.hidden = false;
  const at = dot.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.min(Math.max(at.left + at.width / 2 - tip.offsetWidth / 2, 4), width - tip.offsetWidth - 4);
  tip.style.left = `${left + window.scrollX}px`;
  tip.style.top = `${at.top + window.scrollY - tip.offsetHeight - 4}px`;
}

function hideTip() {
  tip.hidden = true;
}

for (const figure of document.querySelectorAll("figure.scatter")) {
  const dots = [...figure.querySelectorAll(".dot")];
  dots.forEach((dot, place) => {
    dot.querySelector("title").remove(); // the tooltip takes its place
    dot.addEventListener("mouseenter", () => showTip(dot));
    dot.addEventListener("mouseleave", hideTip);
    dot.addEventListener("focus", () => showTip(dot));
    dot.addEventListener("blur", hideTip);
    dot.addEventListener("keydown", (event) => {
      // One tab stop for the figure; arrow keys go from dot to dot.
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hideTip();
      if (!step) return;
      event.preventDefault();
      const next = dots[(place + step + dots.length) % dots.length];
      dot.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}
