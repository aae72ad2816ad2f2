// The browser's half of picture_editor.py: it changes an edit, and sends it when the hand rests; what is read then
// comes back from the server. Places are in pixels of the picture from its middle, those of a box after it was turned.

const MAX_HEIGHT = 300; // CSS pixels of the picture
const GRIP = 14; // CSS pixels: how near a side of the box takes hold of it
const STEP = 4; // pixels of the picture that an arrow key moves by
const LEAST = 8; // pixels of the picture: the smallest box
const FARTHEST = 1000; // pixels of the picture from its middle, beyond every picture
const MARGIN = 0.06; // of a mark's longer side, around it
const REST_MS = 150; // after a key or a step of the slider, which come in rows

const editors = new WeakMap(); // root element → Editor: outlives the calls that Streamlit makes per update

export default function pictureEditor({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".picture-editor");
  if (!editors.has(root)) editors.set(root, new Editor(root));
  return editors.get(root).update(data, setStateValue);
}

class Editor {
  erasing = false;
  pen = [0, 0]; // where the keyboard erases
  held = null; // what the pointer moves: {move} of its place, and whether anything has moved
  updates = 0;

  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector(".picture");
    this.image = new Image();
    this.image.onload = () => this.render();
    this.listening = new AbortController();
    const on = (target, type, handler) => target.addEventListener(type, handler, { signal: this.listening.signal });
    const find = (name) => root.querySelector(name);
    on(this.canvas, "pointerdown", (event) => this.pointerDown(event));
    on(this.canvas, "pointermove", (event) => this.pointerMove(event));
    on(this.canvas, "pointerup", () => this.pointerUp());
    on(this.canvas, "pointercancel", () => this.pointerUp());
    on(this.canvas, "keydown", (event) => this.keyDown(event));
    on(this.canvas, "focus", () => this.render());
    on(this.canvas, "blur", () => this.render());
    on(find(".left"), "click", () => this.turnQuarter(-1));
    on(find(".right"), "click", () => this.turnQuarter(1));
    on(find(".invert"), "click", () => this.change({ dark_ink: !(this.edit.dark_ink ?? this.data.dark_ink) }, "Inverted"));
    on(find(".erase"), "click", () => this.setErasing(!this.erasing));
    on(find(".next"), "click", () => this.nextMark());
    on(find(".reset"), "click", () => this.change({ turn: 0, box: null, dark_ink: null, erased: [] }, "As it was"));
    on(find("input"), "input", (event) => this.turnTo(this.quarter() + Number(event.target.value)));
    this.resized = new ResizeObserver(() => this.render());
    this.resized.observe(this.canvas.parentElement);
  }

  // Called at mount and when `data` changes. Its edit replaces ours only with another picture: otherwise it is the
  // one that the answer belongs to, and may be older than ours.
  update(data, setStateValue) {
    this.setStateValue = setStateValue;
    if (data.picture !== this.image.src) {
      this.image.src = data.picture;
      this.edit = data.edit;
      this.setErasing(false);
    }
    this.data = data;
    this.render();
    const latest = ++this.updates;
    return () => latest === this.updates && this.destroy();
  }

  destroy() {
    clearTimeout(this.timer);
    this.listening.abort();
    this.resized.disconnect();
    editors.delete(this.root);
  }

  // ---- the edit

  change(part, status, rest = 0) {
    this.edit = { ...this.edit, ...part };
    if (status) this.root.querySelector(".status").textContent = status;
    this.render();
    clearTimeout(this.timer);
    if (!this.held) this.timer = setTimeout(() => this.setStateValue("edit", this.edit), rest);
  }

  answered() {
    return JSON.stringify(this.data.edit) === JSON.stringify(this.edit);
  }

  box() {
    return this.edit.box ?? (this.answered() && this.data.boxes.length ? around(this.data.boxes[0]) : null);
  }

  marks() {
    return this.data.edit.turn === this.edit.turn ? this.data.boxes.map(around) : [];
  }

  quarter() {
    return 90 * Math.round(this.edit.turn / 90);
  }

  turnQuarter(way) {
    const turn = this.edit.turn + 90 * way, box = this.edit.box;
    this.change({
      turn: turn > 180 ? turn - 360 : turn <= -180 ? turn + 360 : turn,
      box: box && (way > 0 ? [-box[3], box[0], -box[1], box[2]] : [box[1], -box[2], box[3], -box[0]]),
    }, way > 0 ? "Turned right" : "Turned left");
  }

  turnTo(turn) {
    const box = this.edit.box && [...this.edit.box];
    if (box) {
      const middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
      const moved = rotated(middle, turn - this.edit.turn);
      [0, 1, 2, 3].forEach((side) => (box[side] += moved[side % 2] - middle[side % 2]));
    }
    this.change({ turn, box }, null, REST_MS);
  }

  nextMark() {
    const marks = this.marks(), now = JSON.stringify(this.box());
    const next = (marks.findIndex((mark) => JSON.stringify(mark) === now) + 1) % marks.length;
    this.change({ box: marks[next] }, `Mark ${next + 1} of ${marks.length}`);
  }

  setErasing(erasing) {
    this.erasing = erasing;
    this.root.querySelector(".erase").ariaPressed = String(erasing);
    this.canvas.style.cursor = erasing ? "cell" : "crosshair";
    if (this.data) this.render();
  }

  // ---- pointer and keyboard

  pointerDown(event) {
    if (event.button !== 0 || this.held) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true, focusVisible: false });
    this.canvas.setPointerCapture(event.pointerId);
    const start = this.place(event);
    this.held = { before: this.edit };
    if (this.erasing) {
      const others = this.edit.erased, stroke = [];
      this.held.move = (place) => {
        const next = rotated(place, -this.edit.turn).map(tenth);
        if (Math.hypot(next[0] - stroke.at(-2), next[1] - stroke.at(-1)) < this.data.brush / 4) return;
        stroke.push(...next);
        this.change({ erased: [...others, [...stroke]] });
      };
      return this.held.move(start);
    }
    const grip = GRIP / this.scale, box = this.box();
    const near = (at, one, other) => (Math.abs(at - one) < grip ? 0 : Math.abs(at - other) < grip ? 1 : -1);
    const within = (outer, by) =>
      outer && start.every((at, axis) => at > outer[axis] - by && at < outer[axis + 2] + by);
    const mark = this.marks().find((each) => within(each, 0) && JSON.stringify(each) !== JSON.stringify(box));
    if (within(box, grip)) {
      const sides = [near(start[0], box[0], box[2]), near(start[1], box[1], box[3])];
      const inside = sides.every((side) => side < 0);
      this.held.move = (place) => this.setBox(box.map((value, side) => {
        const axis = side % 2;
        return inside || sides[axis] === (side > 1 ? 1 : 0) ? value + place[axis] - start[axis] : value;
      }));
    } else if (mark) {
      this.held.move = () => {};
      this.change({ box: mark }, "Another mark");
    } else {
      this.held.move = (place) => this.setBox([0, 1].map((axis) => Math.min(start[axis], place[axis])).concat(
        [0, 1].map((axis) => Math.max(start[axis], place[axis]))));
    }
  }

  pointerMove(event) {
    if (this.held) this.held.move(this.place(event));
  }

  pointerUp() {
    if (!this.held) return;
    const changed = this.held.before !== this.edit;
    this.held = null;
    if (changed) this.change({});
  }

  setBox(box) {
    if (box[2] - box[0] < LEAST || box[3] - box[1] < LEAST) return;
    this.change({ box: box.map((side) => tenth(Math.max(-FARTHEST, Math.min(FARTHEST, side)))) }, null, REST_MS);
  }

  place(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [event.clientX - frame.left - frame.width / 2, event.clientY - frame.top - frame.height / 2].map(
      (value) => value / this.scale);
  }

  keyDown(event) {
    const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    const box = this.box();
    if (step && this.erasing) {
      this.pen = this.pen.map((at, axis) => at + step[axis]);
      this.render();
    } else if (step && box) {
      this.setBox(box.map((value, side) => (event.shiftKey && side < 2 ? value : value + step[side % 2])));
    } else if (event.key === " " && this.erasing) {
      this.change({ erased: [...this.edit.erased, rotated(this.pen, -this.edit.turn).map(tenth)] }, "Erased");
    } else {
      return;
    }
    event.preventDefault();
  }

  // ---- pictures

  render() {
    const room = this.canvas.parentElement.clientWidth;
    if (!this.data || !this.image.complete || !room) return;
    const { canvas, edit } = this, [width, height] = this.data.size;
    const [cos, sin] = [Math.cos, Math.sin].map((of) => Math.abs(of((edit.turn * Math.PI) / 180)));
    const [across, down] = [width * cos + height * sin, width * sin + height * cos];
    this.scale = Math.min(room / across, MAX_HEIGHT / down);
    canvas.style.width = `${across * this.scale}px`;
    canvas.width = Math.round(across * this.scale * devicePixelRatio);
    canvas.height = Math.round(down * this.scale * devicePixelRatio);
    const context = canvas.getContext("2d"), unit = this.scale * devicePixelRatio;
    context.setTransform(unit, 0, 0, unit, canvas.width / 2, canvas.height / 2);
    context.rotate((edit.turn * Math.PI) / 180);
    context.drawImage(this.image, -width / 2, -height / 2, width, height);
    context.strokeStyle = this.data.paper;
    context.lineWidth = this.data.brush;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of edit.erased) {
      context.beginPath();
      context.moveTo(stroke[0] + 0.01, stroke[1]);
      for (let i = 0; i < stroke.length; i += 2) context.lineTo(stroke[i], stroke[i + 1]);
      context.stroke();
    }
    context.rotate((-edit.turn * Math.PI) / 180);
    const box = this.box(), marks = this.marks();
    for (const mark of marks) this.outline(context, mark, 1.5, [5, 4]);
    if (box) this.outline(context, box, 3, []);
    if (this.erasing && canvas.matches(":focus-visible"))
      this.outline(context, this.pen.concat(this.pen).map((at, i) => at + (this.data.brush / 2) * (i < 2 ? -1 : 1)), 2, []);

    this.root.querySelector(".next").hidden = marks.length < 2;
    this.root.querySelector("input").value = edit.turn - this.quarter();
    this.root.querySelector("output").textContent = `${edit.turn - this.quarter()}°`.replace("-", "−");
    const seen = this.root.querySelector(".seen");
    setShape(this.data.shape);
    paint(seen, this.data.seen);
    seen.classList.toggle("old", !this.answered());
    seen.style.rotate = `${edit.turn - this.data.edit.turn}deg`; // at once; the answer is upright
  }

  // A line that shows on any picture: dark, and within it the theme's colour.
  outline(context, [left, top, right, bottom], width, dashes) {
    const style = getComputedStyle(this.root);
    context.setLineDash(dashes.map((length) => length / this.scale));
    for (const [more, colour] of [[2, "white"], [0, style.getPropertyValue("--st-primary-color")]]) {
      context.lineWidth = (width + more) / this.scale;
      context.strokeStyle = colour;
      context.strokeRect(left, top, right - left, bottom - top);
    }
    context.setLineDash([]);
  }
}

function around([left, top, right, bottom]) {
  const margin = MARGIN * Math.max(right - left, bottom - top);
  return [left - margin, top - margin, right + margin, bottom + margin].map(tenth);
}

// A place after a turn, clockwise as seen.
function rotated([x, y], degrees) {
  const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  return [cos * x - sin * y, sin * x + cos * y];
}

const tenth = (value) => Math.round(value * 10) / 10;
