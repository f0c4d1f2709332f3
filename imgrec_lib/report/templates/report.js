
// Each heading of a table becomes a button that sorts by its column; a page without scripts keeps plain tables.
for (const table of document.querySelectorAll("table.imgrec-table")) {
  const heads = [...table.tHead.rows[0].cells];
  const text = (row, column) => (row.cells[column].firstChild?.textContent ?? "").trim();
  const number = (row, column) => parseFloat(text(row, column).replaceAll(",", "").replace("\u2212", "-"));
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows];
      const numbers = rows.some((row) => !Number.isNaN(number(row, column)));
      // The first click puts the largest numbers, or the first names, on top.
      const down = head.ariaSort ? head.ariaSort === "ascending" : numbers;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = down ? "descending" : "ascending";
      const missing = (row) => numbers && Number.isNaN(number(row, column));
      rows.sort((a, b) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        const order = numbers ? number(a, column) - number(b, column) : text(a, column).localeCompare(text(b, column));
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// A link into a part that is closed opens it, also where the browser does not do so by itself.
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
