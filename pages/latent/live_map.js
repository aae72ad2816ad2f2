// The browser's half of live_map.py: wherever the pointer is on a map, both models decode that place; the arrow keys
// move it from here. The maps are Plotly's, which says of its axes what they show.

const MAPS = [".st-key-map-a .js-plotly-plot", ".st-key-map-b .js-plotly-plot"];
const STEP = 0.02; // of the map's width, for one press of a key
const REST_MS = 250; // without a movement: then the place is read out, and asked of the server if need be

const panels = new WeakMap(); // root element → Panel: outlives the calls that Streamlit makes per update

export default function liveMap({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".live-map");
  if (!panels.has(root)) panels.set(root, new Panel(root));
  return panels.get(root).update(data, setStateValue);
}

class Panel {
  place = null; // [x, y] on the maps; null: each model shows the image at its own place
  models = [];
  updates = 0;

  constructor(root) {
    this.root = root;
    this.listening = new AbortController();
    const on = (target, type, handler) =>
      target.addEventListener(type, handler, { capture: true, signal: this.listening.signal });
    on(document, "pointermove", (event) => this.over(event));
    on(document, "pointerdown", (event) => this.over(event));
    on(root, "keydown", (event) => this.keyDown(event));
  }

  update(data, setStateValue) {
    this.data = data;
    this.setStateValue = setStateValue;
    const shown = JSON.stringify(data.models.map(({ title, kind, note }) => [title, kind, note]));
    if (shown !== this.shown) this.build(data.models, shown);
    data.models.forEach((given, number) => this.give(this.models[number], given));
    // a place of another map, or of another pair, says nothing here
    if (data.map !== this.map) this.place = null;
    this.map = data.map;
    if (this.place) this.follow();
    else this.setStatus("The chosen image, at its own place under each model.");
    data.models.forEach((given, number) => {
      const current = JSON.stringify(data.place) === JSON.stringify(this.place);
      if (current || !this.place) paint(this.models[number].canvas, bytes(this.place ? given.there : given.own));
    });
    this.mark();
    const latest = ++this.updates;
    return () => latest === this.updates && this.destroy();
  }

  build(models, shown) {
    this.shown = shown;
    this.models = models.map(({ title, kind, note }) => {
      const row = this.root.querySelector("template").content.firstElementChild.cloneNode(true);
      row.classList.add(kind);
      row.querySelector(".title").textContent = title;
      row.querySelector(".note").textContent = note;
      const canvas = row.querySelector("canvas");
      canvas.ariaLabel = `${title}: what this place decodes to`;
      return { row, canvas };
    });
    this.root.querySelector(".models").replaceChildren(...this.models.map(({ row }) => row));
  }

  // Takes over what the server sends of a model; what is large is fetched.
  give(model, { weights, plane, codes }) {
    model.plane = plane && { axes: numbers(plane.axes), point: numbers(plane.point), at: plane.at };
    const wanted = [weights, codes].join();
    if (model.wanted === wanted) return;
    Object.assign(model, { wanted, network: null, codes: null });
    if (!weights) return;
    whenIdle(async () => {
      try {
        const files = [fetched(weights, readNetwork), codes && fetched(codes, readCodes)];
        const [network, found] = await Promise.all(files);
        if (model.wanted !== wanted) return;
        Object.assign(model, { network, codes: found });
        if (this.place) this.follow();
      } catch {
        model.wanted = null; // the next update tries again
      }
    });
  }

  destroy() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.listening.abort();
    document.querySelectorAll(".live-map-place").forEach((mark) => mark.remove());
    panels.delete(this.root);
  }

  // ---- input

  over(event) {
    for (const map of document.querySelectorAll(MAPS)) {
      if (!event.composedPath().includes(map)) continue;
      const axes = axesOf(map);
      if (!axes) return;
      const [x, y] = [(event.clientX - axes.box.left) / axes.box.width, (event.clientY - axes.box.top) / axes.box.height];
      if (x < 0 || x > 1 || y < 0 || y > 1) return;
      this.moveTo([axes.x[0] + x * (axes.x[1] - axes.x[0]), axes.y[1] - y * (axes.y[1] - axes.y[0])]);
    }
  }

  keyDown(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (step) {
      const from = this.place ?? this.data.start;
      const width = this.data.x[1] - this.data.x[0];
      this.moveTo(from.map((at, axis) => {
        const [low, high] = axis ? this.data.y : this.data.x;
        return Math.min(high, Math.max(low, at + STEP * width * step[axis]));
      }));
    } else if (event.key === "Escape" && this.place) {
      this.place = null;
      this.update(this.data, this.setStateValue);
    } else {
      return;
    }
    event.preventDefault();
  }

  moveTo(place) {
    this.place = place.map((at) => Number(at.toPrecision(6)));
    this.follow();
  }

  // ---- pictures

  follow() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.place) return;
      this.mark();
      for (const model of this.models) if (model.network) paint(model.canvas, decodedAt(model, this.place));
    });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.rest(), REST_MS);
  }

  rest() {
    if (!this.place) return;
    this.setStatus(`At ${this.place.map((at) => at.toFixed(2).replace("-", "−")).join(", ")}.`);
    const waiting = this.models.some(({ network }) => !network);
    if (waiting && JSON.stringify(this.data.place) !== JSON.stringify(this.place))
      this.setStateValue("place", this.place);
  }

  setStatus(message) {
    this.root.querySelector(".status").textContent = message;
  }

  // A ring at the place, on both maps.
  mark() {
    for (const map of document.querySelectorAll(MAPS)) {
      const axes = this.place && axesOf(map);
      let mark = map.querySelector(":scope > .live-map-place");
      if (!axes) {
        mark?.remove();
        continue;
      }
      if (!mark) {
        mark = document.createElement("div");
        mark.className = "live-map-place";
        mark.ariaHidden = "true";
        mark.style.cssText =
          "position:absolute;width:14px;height:14px;margin:-7px 0 0 -7px;border:2px solid #fff;outline:2px solid #000;" +
          "border-radius:50%;pointer-events:none;box-sizing:border-box;z-index:2";
        map.append(mark);
      }
      const own = map.getBoundingClientRect();
      const across = (this.place[0] - axes.x[0]) / (axes.x[1] - axes.x[0]);
      const up = (this.place[1] - axes.y[0]) / (axes.y[1] - axes.y[0]);
      mark.style.left = `${axes.box.left - own.left + across * axes.box.width}px`;
      mark.style.top = `${axes.box.top - own.top + (1 - up) * axes.box.height}px`;
      mark.hidden = across < 0 || across > 1 || up < 0 || up > 1; // zoomed away
    }
  }
}

// What a map shows: its box on the screen, and the limits of both axes; null until it is drawn.
function axesOf(map) {
  const layout = map._fullLayout, area = map.querySelector(".nsewdrag");
  return layout?.xaxis && area && { box: area.getBoundingClientRect(), x: layout.xaxis.range, y: layout.yaxis.range };
}

// Grey levels of what a model decodes a place to.
function decodedAt(model, place) {
  const h = model.codes ? blended(model.codes, place) : lifted(model.plane, place);
  return run(model.network, model.network.decoder, { h_1: h }).pixels.map((probability) => 255 * probability);
}
