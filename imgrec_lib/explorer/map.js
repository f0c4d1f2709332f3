// The map of the catalogue: deck.gl draws the dots, and HTML the pictures, the marks and the buttons over them.
// Positions lie from 0 to 1; deck.gl's plane is as large as the map where it is widest.
const PLANE = [960, 560];
const DOT = 3;  // pixels: of dots that would cover one another only the first, which is the more popular, is drawn
const PICTURE = 60;  // pixels that a picture takes
const PICTURES = 400;  // items in view, at most, for their pictures to stand in the place of dots
const CORNERS = 60;  // of what is drawn by hand, at most

function itemMap({ ask, change }) {
  const host = document.createElement("div");
  host.className = "map-inside";
  host.id = "imgrec-map";
  host.innerHTML = '<div class="over"></div><svg aria-hidden="true"><polyline></polyline></svg>';
  host.tabIndex = 0;
  host.setAttribute("role", "group");
  host.setAttribute("aria-label", "Map of items: arrows move it, plus and minus zoom, 0 shows all; its words are below");
  const over = host.querySelector(".over"), lasso = host.querySelector("polyline"), tip = document.createElement("div");
  tip.className = "tip";
  // Above the map: on a telephone they would cover its upper edge. By its name the one in use is found again.
  const tools = document.createElement("div");
  tools.className = "map-tools";
  tools.innerHTML = ["Zoom in", "Zoom out", "Whole map", "Lasso"].map((name) =>
    `<button type="button" name="${name}">${name}</button>`).join("");
  const buttons = tools.children;
  const known = new Map();  // what has been asked for of items: picture, name, id
  let deck = null, loading = null, place = null, dots = null, cells = null, view = null, sent = null, timer = null, run = "";

  const width = () => host.clientWidth || PLANE[0], height = () => host.clientHeight || PLANE[1];
  const scale = () => 2 ** view.zoom;
  const screen = (x, y) => [
    (PLANE[0] * x - view.target[0]) * scale() + width() / 2, (PLANE[1] * y - view.target[1]) * scale() + height() / 2];
  const plane = (x, y) => [
    ((x - width() / 2) / scale() + view.target[0]) / PLANE[0], ((y - height() / 2) / scale() + view.target[1]) / PLANE[1]];
  // A little smaller than the frame: a dot on the edge is seen whole.
  const whole = () => Math.log2(Math.min(width() / PLANE[0], height() / PLANE[1])) - 0.04;
  const numbers = (text) => text.split(" ").filter(Boolean).map(Number);
  const written = (values) => values.map((value) => value.toFixed(4)).join(" ");

  // The answer has come: where it has a map, this one is it.
  async function show(inside) {
    place = inside.querySelector("[data-points]");
    if (!place) return;
    place.append(host);
    place.before(tools);
    run = new URLSearchParams(place.dataset.points).get("run") ?? "";
    try {
      await (loading ??= load());
    } catch {
      tools.remove();
      host.textContent = "This browser draws no map; its words are below.";
      return;
    }
    if (!place) return;
    const { points, zoom } = place.dataset;
    if (dots?.points !== points) {
      const { buffers } = await ask("points", { address: points });
      if (place?.dataset.points !== points) return;
      const { buffer, byteOffset, byteLength } = buffers[0], n = byteLength / 16, part = (Kind, from, length) =>
        new Kind(buffer.slice(byteOffset + from, byteOffset + from + 4 * length));
      if (dots && new URLSearchParams(dots.points).get("run") !== run) known.clear();
      dots = { points, n, xy: part(Float32Array, 0, 2 * n), items: part(Int32Array, 8 * n, n), groups: part(Int32Array, 12 * n, n) };
    }
    dots.colours = place.dataset.colours.split(" ").map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
    if (!view || sent !== zoom) {
      sent = zoom;
      const [left, top, right, bottom] = zoom ? numbers(zoom) : [0, 0, 1, 1];
      const [w, h] = [right - left, bottom - top];
      view = {
        target: [PLANE[0] * (left + w / 2), PLANE[1] * (top + h / 2)],
        zoom: zoom ? Math.min(Math.log2(width() / (PLANE[0] * w)), Math.log2(height() / (PLANE[1] * h))) : whole(),
      };
    }
    deck ??= new globalThis.deck.Deck({
      parent: host, style: { zIndex: "0" }, useDevicePixels: false, controller: { keyboard: false },
      views: new globalThis.deck.OrthographicView({ flipY: true }),
      viewState: view, layers: [],
      onViewStateChange: ({ viewState }) => { move({ target: viewState.target, zoom: viewState.zoom }); },
      onResize: () => { if (view && dots) draw(); },
    });
    draw();
    look();
  }

  async function load() {
    const { buffers } = await ask("library");
    if (globalThis.deck) return;
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = URL.createObjectURL(new Blob([buffers[0]], { type: "text/javascript" }));
      Object.assign(script, { onload: done, onerror: failed });
      document.head.append(script);
    });
  }

  function move(next) {
    view = { ...next, zoom: Math.min(Math.max(next.zoom, whole()), 12) };
    if (view.zoom === whole()) view.target = [PLANE[0] / 2, PLANE[1] / 2];
    draw();
    clearTimeout(timer);
    timer = setTimeout(look, 200);
  }

  // Which dots are drawn, which cell of the screen has which, and how many items are in view.
  function thin() {
    const columns = Math.ceil(width() / DOT), rows = Math.ceil(height() / DOT), { xy, n } = dots;
    cells = { columns, rows, at: new Int32Array(columns * rows).fill(-1) };
    const drawn = [], [a, b] = screen(0, 0), [c, d] = [PLANE[0] * scale() / DOT, PLANE[1] * scale() / DOT];
    let inView = 0;
    for (let i = 0; i < n; i += 1) {
      const column = Math.floor(a / DOT + xy[i] * c), row = Math.floor(b / DOT + xy[n + i] * d);
      if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
      inView += 1;
      const cell = row * columns + column;
      if (cells.at[cell] >= 0) continue;
      cells.at[cell] = i;
      drawn.push(i);
    }
    return { drawn, inView };
  }

  function draw() {
    if (!place) return;
    const { drawn, inView } = thin(), { xy, n, groups, colours } = dots;
    const positions = new Float32Array(2 * drawn.length), fill = new Uint8Array(4 * drawn.length);
    // The more popular lie above the others.
    for (let j = drawn.length - 1, k = 0; j >= 0; j -= 1, k += 1) {
      positions[2 * k] = PLANE[0] * xy[drawn[j]];
      positions[2 * k + 1] = PLANE[1] * xy[n + drawn[j]];
      fill.set([...colours[groups[drawn[j]]], 255], 4 * k);
    }
    const corners = numbers(place.dataset.region), [l, t, r, b] = corners;
    const outline = corners.length === 4 ? [l, t, r, t, r, b, l, b] : corners, path = [];
    for (let j = 0; j < outline.length; j += 2) path.push([PLANE[0] * outline[j], PLANE[1] * outline[j + 1]]);
    const { PolygonLayer, ScatterplotLayer } = globalThis.deck;
    deck.setProps({ viewState: view, layers: [
      new PolygonLayer({ id: "region", data: path.length ? [path] : [], getPolygon: (each) => each, getFillColor: [11, 92, 173, 30],
        getLineColor: [11, 92, 173], getLineWidth: 2, lineWidthUnits: "pixels" }),
      new ScatterplotLayer({ id: "dots", radiusUnits: "pixels", getRadius: inView > 5000 ? 2 : 3.5, antialiasing: false,
        data: { length: drawn.length, attributes: {
          getPosition: { value: positions, size: 2 }, getFillColor: { value: fill, size: 4 } } } }),
    ] });
    host.dataset.drawn = drawn.length;
    host.dataset.inView = inView;
    tip.remove();
    for (const each of over.children) each.style.cssText += at(each.dataset.x, each.dataset.y);
  }

  const at = (x, y) => { const [left, top] = screen(Number(x), Number(y)); return `left:${left}px;top:${top}px;`; };

  // What items look like, what they are called, and their ids; each is asked for once.
  async function tell(items) {
    const strange = items.filter((item) => !known.has(item));
    if (strange.length) {
      const { found } = await ask("pictures", { run, items: strange });
      for (const [item, each] of Object.entries(found)) known.set(Number(item), each);
    }
    return items.map((item) => known.get(item) ?? ["", "", ""]);
  }

  // The eye rests: the address says where, the marks stand there, and dots become pictures where there is room for them.
  async function look() {
    if (!place) return;
    const [left, top] = plane(0, 0), [right, bottom] = plane(width(), height());
    const zoom = view.zoom - whole() < 0.01 ? "" : written([left, top, right, bottom]);
    if (zoom !== sent) {
      sent = zoom;
      change([["zoom", zoom]], { typing: true, quiet: true });
    }
    const before = view, taken = new Set(), chosen = [];
    if (Number(host.dataset.inView) <= PICTURES)
      for (const i of cells.at) if (i >= 0) chosen.push(i);
    chosen.sort((a, b) => a - b);
    const free = chosen.filter((i) => {
      const [x, y] = screen(dots.xy[i], dots.xy[dots.n + i]), cell = `${Math.floor(x / PICTURE)} ${Math.floor(y / PICTURE)}`;
      return !taken.has(cell) && taken.add(cell);
    });
    const told = await tell(free.map((i) => dots.items[i]));
    if (view !== before || !place) return;
    const small = free.flatMap((i, k) => {
      if (!told[k][0]) return [];
      const image = new Image();
      Object.assign(image, { src: told[k][0], alt: told[k][1], className: "small" });
      Object.assign(image.dataset, { x: dots.xy[i], y: dots.xy[dots.n + i], item: dots.items[i] });
      image.style.borderColor = `rgb(${dots.colours[dots.groups[i]]})`;
      return [image];
    });
    const marks = JSON.parse(place.dataset.marks).map(([x, y, kind, title]) => {
      const mark = document.createElement("b");
      mark.className = `mark ${kind}`;
      mark.title = title;
      Object.assign(mark.dataset, { x, y });
      return mark;
    });
    over.replaceChildren(...small, ...marks);
    for (const each of over.children) each.style.cssText += at(each.dataset.x, each.dataset.y);
  }

  // The dot at a point of the screen, or within 8 pixels of it; -1 where there is none.
  function nearest(x, y) {
    const reach = Math.ceil(8 / DOT), column = Math.floor(x / DOT), row = Math.floor(y / DOT);
    let best = -1, least = 64;
    for (let j = row - reach; j <= row + reach; j += 1) for (let i = column - reach; i <= column + reach; i += 1) {
      const dot = i >= 0 && j >= 0 && i < cells.columns && j < cells.rows ? cells.at[j * cells.columns + i] : -1;
      if (dot < 0) continue;
      const [a, b] = screen(dots.xy[dot], dots.xy[dots.n + dot]), far = (a - x) ** 2 + (b - y) ** 2;
      if (far < least) [best, least] = [dot, far];
    }
    return best;
  }

  let hovered = -1;
  async function hover(x, y) {
    const dot = hovered = nearest(x, y);
    if (dot < 0) return tip.remove();
    const [[source, name]] = await tell([dots.items[dot]]);
    if (hovered !== dot) return;
    const image = new Image();
    Object.assign(image, { src: source, alt: "" });
    tip.replaceChildren(...(source ? [image] : []), name);
    tip.style.cssText = `left:${Math.min(x, width() - 190)}px;top:${Math.min(y, Math.max(0, height() - 170))}px`;
    host.append(tip);
  }

  const step = (dx, dy) => move({ ...view, target: [view.target[0] + dx * width() / 4 / scale(), view.target[1] + dy * height() / 4 / scale()] });
  const acts = [
    () => move({ ...view, zoom: view.zoom + 1 }),
    () => move({ ...view, zoom: view.zoom - 1 }),
    () => move({ ...view, zoom: whole() }),
    () => choosing(!host.classList.contains("choosing")),
  ];
  function choosing(on) {
    host.classList.toggle("choosing", on);
    buttons[3].setAttribute("aria-pressed", on);
  }
  choosing(false);
  [...buttons].forEach((button, k) => button.addEventListener("click", () => { if (deck) acts[k](); }));
  host.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!deck || event.target !== host) return;
    if (keys[event.key]) step(...keys[event.key]);
    else if ("+=".includes(event.key)) acts[0]();
    else if (event.key === "-") acts[1]();
    else if (event.key === "0") acts[2]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  // The cells of the screen know which dot they have: nothing need be drawn once more to find it.
  let pressed = [];
  const within = ({ clientX, clientY }) => { const box = host.getBoundingClientRect(); return [clientX - box.left, clientY - box.top]; };
  const onMap = (event) => cells && !event.target.closest("svg");
  host.addEventListener("pointermove", (event) => { if (onMap(event) && !event.buttons) hover(...within(event)); });
  host.addEventListener("pointerleave", () => { hovered = -1; tip.remove(); });
  host.addEventListener("pointerdown", (event) => { pressed = within(event); });
  host.addEventListener("click", async (event) => {
    const [x, y] = within(event);
    if (!onMap(event) || Math.hypot(x - pressed[0], y - pressed[1]) > 4) return;
    const dot = nearest(x, y);
    if (dot >= 0) change([["item", (await tell([dots.items[dot]]))[0][2]]]);
  });

  // A line drawn around dots chooses them.
  const surface = host.querySelector("svg");
  surface.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    surface.setPointerCapture(event.pointerId);
    const path = [], box = host.getBoundingClientRect();
    const add = ({ clientX, clientY }) => {
      path.push([clientX - box.left, clientY - box.top]);
      lasso.setAttribute("points", path.map((each) => each.join()).join(" "));
    };
    add(event);
    surface.addEventListener("pointermove", add);
    surface.addEventListener("pointerup", () => {
      surface.removeEventListener("pointermove", add);
      lasso.setAttribute("points", "");
      choosing(false);
      const stride = Math.ceil(path.length / CORNERS), corners = path.filter((_, k) => k % stride === 0);
      const clip = (value) => Math.min(1, Math.max(0, value));
      if (corners.length > 2) change([["region", written(corners.flatMap(([x, y]) => plane(x, y).map(clip)))]]);
    }, { once: true });
  });
  return { show };
}

