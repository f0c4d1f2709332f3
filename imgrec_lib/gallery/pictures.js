// The browser's side of live.py: shows `html`, and tells which picture or which part of a map was chosen.

function render({ model, el }) {
  const CHOOSABLE = "[data-item], [data-region]";

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
    if (focused.region) el.querySelector(`[data-region="${focused.region}"]`)?.focus();
  }

  function choose(each) {
    if (each.dataset.region) model.set("region", each.dataset.region.split(" ").map(Number));
    else if (each.dataset.item !== "-1") model.set("chosen", Number(each.dataset.item));
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

  // A rectangle drawn on a map chooses what lies in it; a mere click chooses the picture under it.
  let start = null, frame = null;
  const position = (event, map) => {
    const box = map.getBoundingClientRect();
    const clip = (value) => Math.min(1, Math.max(0, value));
    return [clip((event.clientX - box.left) / box.width), clip((event.clientY - box.top) / box.height)];
  };
  const rectangle = ([x0, y0], [x1, y1]) => [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  el.addEventListener("pointerdown", (event) => {
    const map = event.target.closest("[data-map]");
    if (!map || event.button !== 0) return;
    event.preventDefault();
    start = { map, at: position(event, map) };
    frame = map.appendChild(document.createElement("div"));
    frame.className = "frame";
    const move = (moved) => {
      const [left, top, right, bottom] = rectangle(start.at, position(moved, map)).map((value) => 100 * value);
      frame.style.cssText = `left:${left}%;top:${top}%;width:${right - left}%;height:${bottom - top}%`;
    };
    const done = (last) => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", done);
      frame.remove();
      const region = rectangle(start.at, position(last, map));
      if (region[2] - region[0] > 0.01 && region[3] - region[1] > 0.01) {
        model.set("region", region);
        model.save_changes();
      } else {
        const each = document.elementFromPoint(last.clientX, last.clientY)?.closest(CHOOSABLE);
        if (each && el.contains(each)) choose(each);
      }
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", done);
  });
  el.addEventListener("click", (event) => {
    const each = event.target.closest(CHOOSABLE);
    if (each && !each.closest("[data-map]")) choose(each);
  });

  model.on("change:html", draw);
  model.on("change:chosen", mark);
  draw();
}

export default { render };
