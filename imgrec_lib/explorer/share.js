// A shared page of the explorer: filters, sorts and goes from run to run without anyone to ask.
const data = JSON.parse(document.getElementById("data").textContent);
const sections = [...document.querySelectorAll("section[data-run]")];
for (const image of document.querySelectorAll("img[data-picture]")) image.src = data.pictures[image.dataset.picture];
// Links lead into a running explorer, which is not here.
for (const link of document.querySelectorAll("section a[href^='?']")) link.replaceWith(...link.childNodes);
for (const form of document.querySelectorAll("section form")) form.remove();
for (const list of document.querySelectorAll("section ul")) {
  const figures = [...list.querySelectorAll("figure")];
  list.replaceChildren(...figures.map((figure, place) => {
    const cell = document.createElement("li");
    figure.dataset.place = place;
    figure.tabIndex = -1;
    cell.append(figure);
    return cell;
  }));
}

const chosen = { run: data.run, sort: "", ...Object.fromEntries(Object.entries(data.where).map(([k, v]) => [`where.${k}`, v])) };
const controls = document.getElementById("controls");

function choice(name, title, options) {
  const label = document.createElement("label"), select = document.createElement("select");
  label.append(title, select);
  select.name = name;
  for (const [value, text] of options) select.add(new Option(text, value, false, value === (chosen[name] ?? "")));
  select.addEventListener("change", () => { chosen[name] = select.value; apply(); });
  controls.append(label);
}

choice("run", "Model", Object.entries(data.titles));
choice("sort", "Sort by", [["", "as listed"], ["score", "score"], ["name", "name"], ["popularity", "popularity"]]);
for (const column of data.columns) {
  const counts = {};
  for (const item of Object.values(data.items)) counts[item[`where.${column}`]] = (counts[item[`where.${column}`]] ?? 0) + 1;
  const values = Object.keys(counts).sort();
  if (values.length > 1) choice(`where.${column}`, column.replaceAll("_", " "), [["", "any"], ...values.map((v) => [v, `${v} (${counts[v]})`])]);
}

function keyOf(figure) {
  const item = data.items[figure.dataset.item];
  if (chosen.sort === "score") return -Number(figure.querySelector(".score")?.textContent ?? -Infinity);
  if (chosen.sort === "popularity") return -(item?.popularity ?? 0);
  return chosen.sort === "name" ? (item?.name ?? "") : Number(figure.dataset.place);
}

function apply() {
  const wanted = Object.entries(chosen).filter(([name, value]) => name.startsWith("where.") && value);
  let shown = 0, all = 0;
  for (const section of sections) {
    section.hidden = section.dataset.run !== chosen.run;
    for (const list of section.querySelectorAll("ul")) {
      const cells = [...list.children];
      for (const cell of cells) {
        const item = data.items[cell.firstChild.dataset.item];
        cell.hidden = !wanted.every(([name, value]) => item?.[name] === value);
        if (!section.hidden) { all += 1; shown += !cell.hidden; }
      }
      cells.sort((a, b) => {
        const [x, y] = [keyOf(a.firstChild), keyOf(b.firstChild)];
        return (x > y) - (x < y) || a.firstChild.dataset.place - b.firstChild.dataset.place;
      });
      list.append(...cells);
    }
  }
  document.getElementById("told").textContent =
    `${data.titles[chosen.run]}; ${shown} of ${all} pictures pass the filters. Links, search and other users need imgrec.`;
}

// A heading of a table sorts its rows.
for (const table of document.querySelectorAll("section table")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const falling = heading.getAttribute("aria-sort") === "ascending";
      for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => row.cells[column].textContent.trim();
      const number = (text) => Number(text.replaceAll(",", "").replace("−", "-"));
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)], numbers = [number(x), number(y)];
        const order = numbers.some(Number.isNaN) ? x.localeCompare(y) : numbers[0] - numbers[1];
        return falling ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
apply();
