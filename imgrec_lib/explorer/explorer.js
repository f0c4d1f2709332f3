// The browser's side of the explorer, the same in a notebook and in the page. What is shown is an address: a link or a
// control makes the next one, Python answers with the HTML that belongs to it. A model is what anywidget calls so:
// "address" is what is asked for, "html" the answer, "shown" the address that it belongs to.

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "imgrec-explorer";
  root.innerHTML = '<div class="busy"></div><p class="unseen" role="status" aria-live="polite" data-said></p><div data-inside></div>';
  el.append(root);
  const inside = root.querySelector("[data-inside]"), said = root.querySelector("[data-said]");
  const before = {};

  let slow = null;
  function busy(sentence) {
    clearTimeout(slow);
    root.setAttribute("aria-busy", sentence ? "true" : "false");
    said.classList.add("unseen");
    said.textContent = sentence;
    if (sentence) slow = setTimeout(
      () => say(`${sentence}. What is prepared for the first time, such as features of all pictures, is kept for the next.`), 2000);
  }

  function say(sentence) {
    said.classList.remove("unseen");
    said.textContent = sentence;
  }

  function go(address, { typing = false, kept = false, quiet = false } = {}) {
    if (!kept) model.visited?.(address, typing);
    if (!quiet) busy("Working on it");
    model.set("address", address);
    model.save_changes();
  }

  const current = () => new URLSearchParams(model.get("address"));

  function change(fields, options) {
    const address = current();
    for (const [name, value] of fields) value === "" ? address.delete(name) : address.set(name, value);
    if (!fields.some(([name]) => name === "page")) address.delete("page");
    go(address.toString(), options);
  }

  // Some answers are no views: the map asks for its dots and pictures.
  const waiting = {};
  let asked = 0;
  const ask = (kind, details = {}) => new Promise((answered) => {
    waiting[asked += 1] = answered;
    model.send({ kind, id: asked, ...details });
  });
  const map = itemMap({ ask, change });

  // Only the parts that differ are replaced, and what had the focus keeps it.
  function draw() {
    // What somebody drags stays where it is until it is let go.
    if (inside.querySelector(".map-inside:active")) return window.addEventListener("pointerup", draw, { once: true });
    const page = document.createElement("template");
    page.innerHTML = model.get("html");
    const focused = root.contains(document.activeElement) ? document.activeElement : null;
    const open = [...root.querySelectorAll("details[open]")].map((each) => each.id);
    const kept = focused && { selector: selector(focused), at: focused.selectionStart, value: focused.value };
    const typing = focused?.matches("[data-typing]");
    const opened = !inside.querySelector("[data-part=card]") && page.content.querySelector("[data-part=card]");
    if (typing && inside.querySelector("[data-part=bar]")) {
      for (const name of ["status"]) swap(name, page);
      inside.querySelector(".columns").replaceWith(page.content.querySelector(".columns"));
      map.show(inside);
      refresh(page);
    } else {
      inside.replaceChildren(page.content);
      map.show(inside);
      for (const id of open) if (kept?.selector && id && focused?.closest?.("details")?.id === id)
        inside.querySelector(`#${id}`)?.setAttribute("open", "");
      const again = kept?.selector && inside.querySelector(kept.selector);
      if (again) {
        again.focus({ preventScroll: true });
        if (kept.at != null && again.setSelectionRange) try { again.setSelectionRange(kept.at, kept.at); } catch { /* not a text */ }
      }
    }
    if (opened && root.clientWidth < 760) inside.querySelector("[data-part=card]")?.scrollIntoView({ block: "start" });
    if (model.get("shown") === model.get("address") || !model.get("waiting")) busy("");
    model.drawn?.(inside);
  }

  function swap(name, page) {
    inside.querySelector(`[data-part=${name}]`).replaceWith(page.content.querySelector(`[data-part=${name}]`));
  }

  // While somebody types the bar stays, but its links must lead on from what is asked for now.
  function refresh(page) {
    const fresh = [...page.content.querySelectorAll("[data-part=bar] a[href]")];
    const old = [...inside.querySelectorAll("[data-part=bar] a[href]")];
    if (fresh.length === old.length) old.forEach((link, place) => link.setAttribute("href", fresh[place].getAttribute("href")));
  }

  function selector(element) {
    if (element.id) return `#${CSS.escape(element.id)}`;
    if (element.tagName === "SUMMARY") return `#${CSS.escape(element.parentElement.id)} > summary`;
    if (element.name) return `${element.tagName.toLowerCase()}[name="${CSS.escape(element.name)}"]`;
    const figure = element.closest("figure[data-item]");
    if (figure) return `figure[data-item="${figure.dataset.item}"] a`;
    if (element.getAttribute("aria-label")) return `[aria-label="${CSS.escape(element.getAttribute("aria-label"))}"]`;
    return element.tagName === "A" ? `${element.closest("nav") ? "nav" : ""} a[href="${CSS.escape(element.getAttribute("href"))}"]` : null;
  }

  root.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='?']");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault();
      go(link.getAttribute("href").slice(1));
    }
    if (event.target.closest("[data-share]")) {
      busy("Making the page to share");
      model.send({ kind: "share", address: model.get("address") });
    }
    for (const menu of root.querySelectorAll("details.menu[open]"))
      if (!menu.contains(event.target)) menu.removeAttribute("open");
  });
  root.addEventListener("submit", (event) => { event.preventDefault(); });
  root.addEventListener("keydown", (event) => {
    if (["INPUT", "SELECT", "SUMMARY", "A", "BUTTON"].includes(event.target.tagName)) event.stopPropagation();  // a notebook has keys of its own
    if (event.key === "Escape") {
      const menu = event.target.closest("details.menu[open]");
      if (menu) { menu.removeAttribute("open"); menu.querySelector("summary").focus(); }
    }
    if (event.key === "Enter" && event.target.matches("[data-typing]")) type(event.target, 0);
  });
  root.addEventListener("change", (event) => {
    const control = event.target;
    if (control.matches("[data-upload]")) {
      const file = control.files[0];
      if (file) file.arrayBuffer().then((data) => {
        busy("Looking at the picture");
        model.send({ kind: "picture", address: model.get("address") }, undefined, [data]);
      });
    } else if (control.name && !control.matches("[data-typing]")) change([[control.name, control.value]]);
  });

  let timer = null;
  function type(control, wait) {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if ((current().get("search") ?? "") !== control.value) change([["search", control.value]], { typing: true });
    }, wait);
  }
  root.addEventListener("input", (event) => {
    const control = event.target;
    if (control.matches("[data-typing]")) type(control, 120);
    if (control.dataset.narrow) {
      const words = control.value.toLowerCase().split(/\s+/);
      for (const row of root.querySelectorAll(`#${control.dataset.narrow} tbody tr:not(.group)`))
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    }
  });

  model.on("msg:custom", (message, buffers) => {
    if (message.id) {
      waiting[message.id]?.({ ...message, buffers });
      delete waiting[message.id];
      return;
    }
    busy("");
    if (message.kind === "go") go(message.address);
    if (message.kind === "file") {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([message.text], { type: "text/html" }));
      link.download = message.name;
      link.click();
      URL.revokeObjectURL(link.href);
    }
    if (message.kind === "said") say(message.text);
  });
  model.on("change:html", draw);
  if (model.get("html")) draw(); else busy("Opening the runs");
  return { go };
}

export default { render };
