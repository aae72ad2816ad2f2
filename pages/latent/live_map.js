// The browser's half of live_map.py: wherever the pointer is on a map, both models decode that place; the arrow keys
// move it from here. Places can be pinned, with a slider between them, and the digit's own top units can be moved.

const STEP = 0.02; // of the map's width, for one press of a key
const REST_MS = 250; // without a movement: then the place is read out, and asked of the server if need be
const REACH = 4; // of a slider, in standard deviations of the prior

const panels = new WeakMap(); // root element → Panel: outlives the calls that Streamlit makes per update

export default function liveMap({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".live-map").parentElement;
  if (!panels.has(root)) panels.set(root, new Panel(root));
  return panels.get(root).update(data, setStateValue);
}

class Panel {
  // What is decoded: `parts` are places [x, y, weight] on the maps, whose codes are mixed, or none for the digit's own
  // code; `moved` then sets units of it, { unit: value } for each model. null: the digit in hand as it is.
  spot = null;
  pins = []; // places [x, y]
  moved = [{}, {}];
  models = [];
  updates = 0;

  constructor(root) {
    this.root = root;
    this.maps = new Maps((place) => this.moveTo(place), (place) => this.pin(place));
    root.querySelector(".live-map").addEventListener("keydown", (event) => this.keyDown(event));
    root.querySelector(".pinning").addEventListener("change", ({ target }) => (this.maps.pinning = target.checked));
    root.querySelector(".slide").addEventListener("input", () => this.slide());
    root.querySelector(".clear").addEventListener("click", () => this.unpin());
  }

  update(data, setStateValue) {
    this.data = data;
    this.setStateValue = setStateValue;
    setShape(data.shape);
    const shown = JSON.stringify(data.models.map(({ title, kind, note, units }) => [title, kind, note, units]));
    if (data.map !== this.map) {
      // a place of another map, or of another pair, says nothing here
      [this.spot, this.pins, this.moved, this.map] = [null, [], [{}, {}], data.map];
      this.showPins();
    }
    if (shown !== this.shown) this.build(data.models, shown);
    data.models.forEach((given, number) => this.give(this.models[number], given));
    this.loadImages(data.images);
    if (this.spot) this.follow();
    else this.setStatus("The digit in hand, at its own place under each model.");
    const current = JSON.stringify(data.spot) === JSON.stringify(this.spot);
    data.models.forEach((given, number) => {
      if (current || !this.spot) paint(this.models[number].canvas, bytes(this.spot ? given.there : given.own));
    });
    this.mark();
    const latest = ++this.updates;
    return () => latest === this.updates && this.destroy();
  }

  build(models, shown) {
    this.shown = shown;
    this.moved = [{}, {}];
    if (this.spot && !this.spot.parts.length) this.spot = null;
    this.models = models.map(({ title, kind, note, units }, number) => {
      const row = this.root.querySelector("template").content.firstElementChild.cloneNode(true);
      row.classList.add(kind);
      row.ariaLabel = row.querySelector(".title").textContent = title;
      row.querySelector(".note").textContent = note;
      const canvas = row.querySelector("canvas");
      canvas.ariaLabel = `${title}: what this place decodes to`;
      const ranges = units.map(({ unit, nats, value }) => {
        const label = document.createElement("label"), range = document.createElement("input");
        Object.assign(range, { type: "range", min: -REACH, max: REACH, step: 0.05, value });
        label.append(`unit ${unit} · ${nats} nats`, range);
        range.addEventListener("input", () => this.move(number, unit, Number(range.value)));
        row.querySelector("details div").append(label);
        return range;
      });
      row.querySelector("button").addEventListener("click", () => {
        ranges.forEach((range, place) => (range.value = units[place].value));
        this.move(number);
      });
      return { row, canvas };
    });
    this.root.querySelector(".models").replaceChildren(...this.models.map(({ row }) => row));
  }

  // Takes over what the server sends of a model; what is large is fetched.
  give(model, { weights, code, layer, plane, codes }) {
    Object.assign(model, { code: numbers(code), layer });
    model.plane = plane && { axes: numbers(plane.axes), point: model.code, at: plane.at };
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
        if (this.spot) this.follow();
      } catch {
        model.wanted = null; // the next update tries again
      }
    });
  }

  loadImages(address) {
    if (this.images === address) return;
    [this.images, this.maps.images] = [address, null];
    whenIdle(async () => {
      try {
        const found = await fetched(address, readImages);
        if (this.images === address) this.maps.images = found;
      } catch {
        this.images = null; // the next update tries again
      }
    });
  }

  destroy() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.maps.destroy();
    panels.delete(this.root);
  }

  // ---- input

  keyDown(event) {
    if (event.target !== event.currentTarget) return; // a slider takes the arrow keys itself
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (step) {
      const width = this.data.x[1] - this.data.x[0];
      this.moveTo(this.place().map((at, axis) => {
        const [low, high] = axis ? this.data.y : this.data.x;
        return Math.min(high, Math.max(low, at + STEP * width * step[axis]));
      }));
    } else if (event.key === "Enter") {
      this.pin(this.place());
    } else if (event.key === "Escape" && this.spot) {
      this.spot = null;
      this.update(this.data, this.setStateValue);
    } else {
      return;
    }
    event.preventDefault();
  }

  // Where the spot lies on the map of A.
  place() {
    return this.spot?.parts.length ? mixed(this.spot.parts) : this.data.start;
  }

  moveTo(place) {
    this.show([[...rounded(place), 1]]);
  }

  show(parts, moved = [{}, {}]) {
    this.spot = { parts, moved };
    this.follow();
  }

  move(number, unit, value) {
    if (unit === undefined) this.moved[number] = {};
    else this.moved[number] = { ...this.moved[number], [unit]: value };
    this.show([], [...this.moved]);
  }

  pin(place) {
    this.pins.push(rounded(place));
    this.showPins(this.pins.length - 1);
    this.moveTo(place);
  }

  unpin() {
    this.pins = [];
    this.showPins();
    this.setStatus("There are no pins.");
    this.root.querySelector(".live-map").focus(); // the button is gone
    this.mark();
  }

  showPins(at = 0) {
    const [between, slide] = [".between", ".slide"].map((name) => this.root.querySelector(name));
    this.root.querySelector(".clear").hidden = !this.pins.length;
    between.hidden = this.pins.length < 2;
    slide.max = Math.max(1, this.pins.length - 1);
    slide.value = at;
    slide.ariaValueText = `pin ${at + 1}`;
  }

  // A straight line between the codes of two pins.
  slide() {
    const along = Number(this.root.querySelector(".slide").value);
    const from = Math.min(Math.floor(along), this.pins.length - 2), share = Number((along - from).toFixed(2));
    this.root.querySelector(".slide").ariaValueText = `${Math.round(100 * share)}% from pin ${from + 1} to ${from + 2}`;
    this.show([[...this.pins[from], 1 - share], [...this.pins[from + 1], share]]);
  }

  // ---- pictures

  follow() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.spot) return;
      this.mark();
      this.models.forEach((model, number) => {
        if (model.network) paint(model.canvas, decoded(model, this.code(model, number)));
      });
    });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.rest(), REST_MS);
  }

  // What a model decodes.
  code(model, number) {
    const { parts, moved } = this.spot;
    const code = parts.length ? codeOf(model, parts) : Float32Array.from(model.code);
    for (const [unit, value] of Object.entries(moved[number])) code[unit] = value;
    return code;
  }

  rest() {
    if (!this.spot) return;
    const { parts } = this.spot, minus = (text) => text.replaceAll("-", "−");
    const at = minus(`At ${this.place().map((at) => at.toFixed(2)).join(", ")}.`);
    if (parts.length === 1 && String(parts[0].slice(0, 2)) === String(this.pins.at(-1)))
      this.setStatus(`Pin ${this.pins.length}. ${at}`);
    else if (parts.length) this.setStatus(at);
    else this.setStatus("The digit in hand, its units moved.");
    const waiting = this.models.some(({ network }) => !network);
    if (waiting && JSON.stringify(this.data.spot) !== JSON.stringify(this.spot))
      this.setStateValue("spot", { map: this.map, ...this.spot });
  }

  setStatus(message) {
    this.root.querySelector(".status").textContent = message;
  }

  // The pins, and a ring where what is decoded lies: of moved units, where each model's code lies on its own map.
  mark() {
    const pins = this.pins.map((at, place) => ({ at, text: place + 1 }));
    this.maps.mark(this.models.map((model, number) => {
      const at = !this.spot ? null : this.spot.parts.length ? this.place() : placeOf(model, this.code(model, number));
      return at ? [...pins, { at, text: "" }] : pins;
    }));
  }
}

const rounded = (place) => place.map((at) => Number(at.toPrecision(6)));

const mixed = (parts) => [0, 1].map((axis) => parts.reduce((sum, part) => sum + part[2] * part[axis], 0));

// Grey levels of what a model decodes a code of its layer to; the layers below are set to their means.
function decoded({ network, layer }, code) {
  const values = { [`h_${layer}`]: code };
  for (let above = layer - 1; above > 0; above--) run(network, network.above[above - 1], values);
  return run(network, network.decoder, values).pixels.map((probability) => 255 * probability);
}
