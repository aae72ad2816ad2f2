// The browser's half of canvas.py. A drawing is a list of strokes, so it stays crisp at any resolution and
// can be undone; the picture is computed from it. `null` in the history means "cleared here".

const OVERSAMPLING = 10; // the picture is the mean over blocks of 10×10 finer pixels
// [width, opacity], laid over each other: a soft edge. Widths are in pixels of a picture with a longer side of BRUSHED.
const BRUSH = [[3.2, 0.15], [2.8, 0.25], [2.4, 0.4], [2.0, 1]];
const BRUSHED = 28;
const MIN_STEP = 0.15; // points closer than this, in pixels of the picture, add nothing
const SEND_AFTER_MS = 250; // a digit of several strokes is sent once

const surfaces = new WeakMap(); // root element → Surface: outlives the calls that Streamlit makes per update

export default function digitCanvas({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".digit-canvas");
  if (!surfaces.has(root)) surfaces.set(root, new Surface(root));
  return surfaces.get(root).update(data, setStateValue);
}

class Surface {
  history = []; // strokes [x0, y0, x1, y1, …] in pixels of the picture, and nulls
  base = null; // the values of the picture under the strokes, or null
  stroke = null; // the stroke being drawn; it is also the last entry of history
  pointer = null; // id of the pointer that draws it; null while the keyboard draws
  pen = [0, 0]; // where the keyboard's pen stands
  updates = 0;

  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.live = new LivePictures(root.parentElement.querySelector(".live"));

    this.listening = new AbortController();
    const on = (target, type, handler) =>
      target.addEventListener(type, handler, { capture: true, signal: this.listening.signal });
    on(this.canvas, "pointerdown", (event) => this.pointerDown(event));
    on(this.canvas, "pointermove", (event) => this.pointerMove(event));
    on(this.canvas, "pointerup", (event) => this.pointerUp(event));
    on(this.canvas, "pointercancel", (event) => this.pointerUp(event));
    on(this.canvas, "keydown", (event) => this.keyDown(event));
    on(this.canvas, "focus", () => this.render());
    on(this.canvas, "blur", () => this.endStroke());
    on(root.querySelector(".undo"), "click", () => this.undo());
    on(root.querySelector(".clear"), "click", () => this.clear());
    // Whatever the user turns to next, a page link say, must find the drawing already sent: Streamlit may
    // lose one of two messages that arrive at the same moment.
    on(this.canvas, "pointerleave", (event) => event.pointerType === "mouse" && this.flush());
    on(document, "pointerdown", (event) => event.composedPath().includes(root) || this.flush());
    this.resized = new ResizeObserver(() => this.render());
    this.resized.observe(this.canvas);
  }

  // Called at mount, when `data` changes and when the theme changes. Only a new revision replaces the
  // drawing: with the same one, `data` echoes what was sent, and may be a stroke behind.
  update(data, setStateValue) {
    this.setStateValue = setStateValue;
    this.root.style.setProperty("--size", `${data.size}px`);
    if (data.revision !== this.revision) {
      clearTimeout(this.timer);
      this.timer = this.stroke = this.pointer = null;
      ({ revision: this.revision, base: this.base } = data);
      if (String(data.shape) !== this.shape) this.resize(data.shape);
      this.history = [...data.history];
    }
    this.render();
    this.live.update(data.live, JSON.stringify(data.history) === JSON.stringify(this.history));
    // Streamlit may run the clean-up of an earlier, superseded call; only the latest one counts.
    const latest = ++this.updates;
    return () => latest === this.updates && this.destroy();
  }

  resize(shape) {
    this.shape = String(shape);
    setShape(shape);
    this.brush = Math.max(rows, columns) / BRUSHED;
    this.pen = [columns / 2, rows / 2];
    this.fine = blank(columns * OVERSAMPLING, rows * OVERSAMPLING);
    this.root.style.setProperty("--aspect", columns / rows);
  }

  destroy() {
    clearTimeout(this.timer);
    this.live.cancel();
    this.listening.abort();
    this.resized.disconnect();
    surfaces.delete(this.root);
  }

  // ---- strokes

  beginStroke(x, y) {
    this.stroke = [round(x), round(y)];
    this.history.push(this.stroke);
    clearTimeout(this.timer);
    this.redraw();
  }

  extendStroke(x, y) {
    const [lastX, lastY] = this.stroke.slice(-2);
    if (Math.hypot(x - lastX, y - lastY) >= MIN_STEP) this.stroke.push(round(x), round(y));
  }

  endStroke() {
    if (this.stroke) {
      this.stroke = this.pointer = null;
      this.changed();
    }
    this.render();
  }

  undo() {
    if (!this.history.length) return;
    this.history.pop();
    this.stroke = this.pointer = null;
    this.changed("Undone");
  }

  clear() {
    if (this.isBlank()) return;
    const earlier = this.history.lastIndexOf(null);
    this.history.splice(0, this.base ? earlier : earlier + 1); // undo reaches back over one clear
    this.history.push(null);
    this.stroke = this.pointer = null;
    this.changed("Cleared");
  }

  isBlank() {
    return this.history.length ? this.history.at(-1) === null : !this.base;
  }

  // ---- input

  pointerDown(event) {
    if (this.pointer !== null || event.button !== 0) return;
    this.endStroke();
    this.canvas.focus({ preventScroll: true, focusVisible: false });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.beginStroke(...this.position(event));
  }

  pointerMove(event) {
    if (event.pointerId !== this.pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const each of between.length ? between : [event]) this.extendStroke(...this.position(each));
    this.redraw();
  }

  pointerUp(event) {
    if (event.pointerId === this.pointer) this.endStroke();
  }

  position(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * columns,
      ((event.clientY - box.top) / box.height) * rows,
    ];
  }

  keyDown(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      this.pen = this.pen.map((at, axis) => Math.min(axis ? rows : columns, Math.max(0, at + step[axis])));
      if (this.stroke) this.extendStroke(...this.pen);
      this.redraw();
    } else if (event.key === " ") {
      if (event.repeat) return event.preventDefault();
      if (this.stroke) this.endStroke();
      else this.beginStroke(...this.pen);
      this.setStatus(this.stroke ? "Pen down" : "Pen up");
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      this.undo();
    } else {
      return;
    }
    event.preventDefault();
  }

  // ---- to Python

  changed(message) {
    if (message) this.setStatus(message);
    this.redraw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), SEND_AFTER_MS);
  }

  flush() {
    if (!this.timer || this.stroke) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.setStateValue("drawing", {
      revision: this.revision,
      history: this.history,
      pixels: this.pixels(),
    });
  }

  // ---- pictures

  // The drawing as opacity, at the resolution of the context's canvas.
  draw(context) {
    const scale = context.canvas.width / columns;
    const start = this.history.lastIndexOf(null) + 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    if (this.base && start === 0) {
      context.imageSmoothingEnabled = false; // so that the mean over a block is the pixel again
      context.drawImage(picture(this.base), 0, 0, columns, rows);
    }
    context.strokeStyle = "black";
    context.lineCap = context.lineJoin = "round";
    for (const points of this.history.slice(start)) {
      const line = curve(points);
      for (const [width, opacity] of BRUSH) {
        context.lineWidth = width * this.brush;
        context.globalAlpha = opacity;
        context.stroke(line);
      }
    }
    context.globalAlpha = 1;
  }

  pixels() {
    const width = columns * OVERSAMPLING, height = rows * OVERSAMPLING;
    this.draw(this.fine);
    const { data } = this.fine.getImageData(0, 0, width, height);
    const sums = new Array(rows * columns).fill(0);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        sums[Math.floor(y / OVERSAMPLING) * columns + Math.floor(x / OVERSAMPLING)] += data[4 * (y * width + x) + 3];
    return sums.map((sum) => Math.round(sum / OVERSAMPLING ** 2));
  }

  // After every change of the drawing.
  redraw() {
    this.render();
    this.live.follow(() => {
      const pixels = this.isBlank() ? [] : this.pixels();
      return pixels.some((value) => value > 0) ? pixels : null;
    });
  }

  render() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!side) return; // in a hidden tab; the ResizeObserver calls again
    const height = Math.round((side * rows) / columns);
    if (this.canvas.width !== side || this.canvas.height !== height)
      Object.assign(this.canvas, { width: side, height });
    const { context } = this;
    const style = getComputedStyle(this.canvas);
    this.draw(context);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = style.color;
    context.fillRect(0, 0, columns, rows);
    context.globalCompositeOperation = "source-over";
    if (this.canvas.matches(":focus-visible")) this.drawPen(style.getPropertyValue("--st-primary-color"));

    const blank = this.isBlank();
    this.root.querySelector(".hint").hidden = !blank;
    this.root.querySelector(".clear").ariaDisabled = String(blank);
    this.root.querySelector(".undo").ariaDisabled = String(!this.history.length);
  }

  drawPen(colour) {
    const { context } = this;
    context.beginPath();
    context.arc(...this.pen, (this.brush * BRUSH[0][0]) / 2, 0, 2 * Math.PI);
    context.lineWidth = 0.3 * this.brush;
    context.strokeStyle = context.fillStyle = colour;
    if (this.stroke) context.fill();
    else context.stroke();
  }

  setStatus(message) {
    this.root.querySelector(".status").textContent = message;
  }
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  return canvas.getContext("2d", { willReadFrequently: true });
}

function picture(pixels) {
  const context = blank(columns, rows);
  const image = context.createImageData(columns, rows);
  pixels.forEach((value, i) => (image.data[4 * i + 3] = value));
  context.putImageData(image, 0, 0);
  return context.canvas;
}

// A smooth curve: through the middles of the segments, with the points themselves as control points.
function curve(points) {
  const line = new Path2D();
  line.moveTo(points[0], points[1]);
  for (let i = 2; i + 3 < points.length; i += 2) {
    const [x, y, nextX, nextY] = points.slice(i, i + 4);
    line.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  const [x, y] = points.slice(-2);
  line.lineTo(x + 0.01, y); // not of length zero, so that a tap leaves a dot
  return line;
}

const round = (value) => Math.round(value * 100) / 100;
