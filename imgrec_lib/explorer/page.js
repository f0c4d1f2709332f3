// The page of `imgrec explore`: the explorer with a server in the place of a notebook's kernel.
import explorer from "./explorer.js";

const values = { address: location.search.slice(1), html: "", shown: "" };
const listeners = {};
let asking = null;
const emit = (event, ...details) => (listeners[event] ?? []).forEach((act) => act(...details));

async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (!response.ok) throw new Error((await response.text()) || response.statusText);
  return response;
}

function refuse(error) {
  if (error.name === "AbortError") return;
  const alert = document.createElement("p");
  alert.setAttribute("role", "alert");
  alert.textContent = error instanceof TypeError
    ? "imgrec does not answer any more. Start it again with the command that opened this page; this address stays good."
    : error.message;
  values.html = alert.outerHTML;
  emit("change:html");
}

const model = {
  get: (name) => values[name],
  set: (name, value) => { values[name] = value; },
  on: (event, act) => (listeners[event] ??= []).push(act),
  save_changes() {
    asking?.abort();
    asking = new AbortController();
    ask(`answer?${values.address}`, { signal: asking.signal })
      .then((response) => response.json())
      .then(({ html, shown }) => {
        values.html = html;
        values.shown = values.address = shown;
        history.replaceState(null, "", `?${shown}`);
        emit("change:html");
      })
      .catch(refuse);
  },
  visited(address, typing) {
    history[typing ? "replaceState" : "pushState"](null, "", `?${address}`);
  },
  send(content, _, buffers) {
    if (content.kind === "picture")
      ask(`picture?${content.address}`, { method: "POST", body: buffers[0] })
        .then((response) => response.text())
        .then((address) => emit("msg:custom", { kind: "go", address }))
        .catch(refuse);
    const reply = (more, buffers = []) => emit("msg:custom", { id: content.id, ...more }, buffers);
    if (content.kind === "library") {
      const script = document.createElement("script");
      script.src = "deck.js";
      script.onload = () => reply();
      document.head.append(script);
    }
    if (content.kind === "points")
      ask(`points?${content.address}`)
        .then((response) => response.arrayBuffer())
        .then((buffer) => reply({}, [new DataView(buffer)]))
        .catch(refuse);
    if (content.kind === "pictures")
      ask(`pictures?run=${encodeURIComponent(content.run)}&items=${content.items}`)
        .then((response) => response.json())
        .then((found) => reply({ found }))
        .catch(refuse);
    if (content.kind === "share")
      ask(`share?${content.address}`)
        .then((response) => response.text())
        .then((text) => emit("msg:custom", { kind: "file", name: "imgrec.html", text }))
        .catch(refuse);
  },
};

const { go } = explorer.render({ model, el: document.getElementById("explorer") });
window.addEventListener("popstate", () => go(location.search.slice(1), { kept: true }));
go(values.address, { kept: true });
