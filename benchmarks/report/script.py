"""The page's only script: it makes tables sortable and filterable. Without it they are tables all the same.

It is allowed by its hash (`POLICY`), so that no other script ever runs in a report, whatever a stranger's trial says.
"""

from __future__ import annotations

import base64
from hashlib import sha256

SCRIPT = """
(() => {
"use strict";
const words = new Intl.Collator(undefined, {numeric: true});
const number = cell => "v" in cell.dataset ? Number(cell.dataset.v) : NaN;
const order = (index, numeric) => (a, b) => {
  const [x, y] = [a.cells[index], b.cells[index]];
  if (!numeric) return words.compare(x.textContent, y.textContent);
  return number(x) - number(y);
};
const sortable = table => {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = rows.some(row => "v" in row.cells[index].dataset);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const next = now === "ascending" ? "descending" : now === "descending" ? null : "ascending";
      heads.forEach(each => each.removeAttribute("aria-sort"));
      const known = numeric ? rows.filter(row => !Number.isNaN(number(row.cells[index]))) : [...rows];
      const sorted = next ? known.sort(order(index, numeric)) : [...rows];
      if (next === "descending") sorted.reverse();
      if (next) head.setAttribute("aria-sort", next);
      body.append(...sorted, ...(next ? rows.filter(row => numeric && Number.isNaN(number(row.cells[index]))) : []));
    });
  });
  if (rows.length < 8) return;
  const tools = document.createElement("p"), label = document.createElement("label");
  const input = document.createElement("input"), count = document.createElement("output");
  tools.className = "tools";
  input.type = "search";
  label.append("Filter rows ", input);
  count.setAttribute("aria-live", "polite");
  tools.append(label, count);
  table.closest(".scroll").before(tools);
  const texts = rows.map(row => row.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !wanted.every(word => texts[index].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
  });
};
document.querySelectorAll("table[data-sort]").forEach(sortable);
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("section:not([aria-labelledby=trials]) details:not([open])")];
  opened.forEach(each => { each.open = true; });
});
addEventListener("afterprint", () => {
  opened.forEach(each => { each.open = false; });
  opened = [];
});
})();
"""
_HASH = base64.b64encode(sha256(SCRIPT.encode()).digest()).decode()
POLICY = f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; img-src data:"
"""What the page may do: run that script, show its own styles and pictures, and fetch nothing."""
