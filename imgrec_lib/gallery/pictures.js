// The browser's side of live.py: shows `html`, and tells which picture was chosen.

function render({ model, el }) {
  const CHOOSABLE = "[data-item]";

  function mark() {
    for (const each of el.querySelectorAll("[data-item]"))
      each.setAttribute("aria-pressed", String(Number(each.dataset.item) === model.get("chosen")));
  }

  function draw() {
    const focused = el.contains(document.activeElement) ? document.activeElement.dataset : {};
    el.innerHTML = model.get("html");
    for (const each of el.querySelectorAll(CHOOSABLE)) {
      if (each.dataset.item === "-1") continue;
      each.tabIndex = 0;
      each.setAttribute("role", "button");
      const picture = each.querySelector("img");
      each.setAttribute("aria-label", picture ? picture.alt : each.textContent);
    }
    mark();
    if (focused.item) el.querySelector(`[data-item="${focused.item}"]`)?.focus();
  }

  function choose(each) {
    if (each.dataset.item !== "-1") model.set("chosen", Number(each.dataset.item));
    model.save_changes();
  }

  el.addEventListener("keydown", (event) => {
    const each = event.target.closest(CHOOSABLE);
    if (each && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      event.stopPropagation();  // the notebook has meanings of its own for these keys
      choose(each);
    }
  });

  el.addEventListener("click", (event) => {
    const each = event.target.closest(CHOOSABLE);
    if (each) choose(each);
  });

  model.on("change:html", draw);
  model.on("change:chosen", mark);
  draw();
}

export default { render };
