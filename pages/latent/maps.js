// The two maps, which are Plotly's: what their axes show, which place or image is under the pointer, and marks on them.

const MAPS = [".st-key-map-a .js-plotly-plot", ".st-key-map-b .js-plotly-plot"];
const CLICK = 4; // pixels: a pointer that moves further between press and release draws a lasso, and clicks nothing
const THUMBNAIL = 56; // pixels of the screen

class Maps {
  pinning = false; // a click pins its place, and Plotly hears nothing of it
  images = null; // of the points: { at: number → place in the sheet, sheet }
  listening = new AbortController();
  hovered = new WeakSet(); // maps that tell which point the pointer is on

  // `over` and `pin` are told of a place [x, y].
  constructor(over, pin) {
    const on = (type, handler) =>
      document.addEventListener(type, handler, { capture: true, signal: this.listening.signal });
    on("pointermove", (event) => this.at(event, over));
    on("pointerdown", (event) => {
      this.pressed = [event.clientX, event.clientY];
      this.at(event, over);
    });
    for (const type of ["mousedown", "mouseup", "click"])
      on(type, (event) => {
        if (!this.pinning || !event.target.closest?.(".nsewdrag")) return;
        this.at(event, (place) => {
          event.stopPropagation();
          if (type === "mouseup" && Math.hypot(event.clientX - this.pressed[0], event.clientY - this.pressed[1]) < CLICK)
            pin(place);
        });
      });
  }

  // Calls `act` with the place of an event on one of the maps.
  at(event, act) {
    for (const map of document.querySelectorAll(MAPS)) {
      if (!event.composedPath().includes(map)) continue;
      this.watch(map);
      const axes = axesOf(map);
      if (!axes) return;
      const [x, y] = [(event.clientX - axes.box.left) / axes.box.width, (event.clientY - axes.box.top) / axes.box.height];
      if (x < 0 || x > 1 || y < 0 || y > 1) return;
      act([axes.x[0] + x * (axes.x[1] - axes.x[0]), axes.y[1] - y * (axes.y[1] - axes.y[0])]);
    }
  }

  // Shows the picture of the image whose point the pointer is on.
  watch(map) {
    if (this.hovered.has(map) || !map.on) return;
    this.hovered.add(map);
    map.on("plotly_hover", ({ points: [point] }) => this.thumbnail(map, point));
    map.on("plotly_unhover", () => map.querySelector(":scope > .live-map-thumbnail")?.remove());
  }

  thumbnail(map, { customdata, x, y }) {
    const place = this.images?.at.get(Number(customdata));
    let canvas = map.querySelector(":scope > .live-map-thumbnail");
    if (place === undefined) return canvas?.remove();
    if (!canvas) {
      canvas = document.createElement("canvas");
      Object.assign(canvas, { className: "live-map-thumbnail", width: columns, height: rows, ariaHidden: "true" });
      canvas.style.cssText =
        `position:absolute;width:${THUMBNAIL}px;height:${THUMBNAIL}px;image-rendering:pixelated;object-fit:contain;` +
        "pointer-events:none;background:#000;" +
        "border:1px solid #fff;outline:1px solid #000;z-index:3";
      map.append(canvas);
    }
    const [left, top] = onScreen(map, axesOf(map), [x, y]);
    canvas.style.left = `${Math.max(0, left - THUMBNAIL - 12)}px`;
    canvas.style.top = `${Math.max(0, top - THUMBNAIL - 12)}px`;
    const across = this.images.sheet.width / columns;
    const from = [columns * (place % across), rows * Math.floor(place / across)];
    canvas.getContext("2d").drawImage(this.images.sheet, ...from, columns, rows, 0, 0, columns, rows);
  }

  // Puts marks { at: [x, y], text } on the maps: a list for each, instead of those that were there.
  mark(lists) {
    document.querySelectorAll(MAPS).forEach((map) => {
      // by its name: while a page gives way to another there may be more than two
      const list = lists[MAPS.findIndex((selector) => map.matches(selector))];
      const old = [...map.querySelectorAll(":scope > .live-map-place")];
      const axes = axesOf(map), marks = axes ? list : [];
      old.slice(marks.length).forEach((mark) => mark.remove());
      marks.forEach(({ at, text }, place) => {
        const mark = old[place] ?? map.appendChild(document.createElement("div"));
        Object.assign(mark, { className: "live-map-place", ariaHidden: "true", textContent: text });
        const [left, top, there] = onScreen(map, axes, at);
        mark.style.cssText =
          "position:absolute;width:16px;height:16px;margin:-8px 0 0 -8px;border:2px solid #fff;outline:2px solid #000;" +
          "border-radius:50%;pointer-events:none;box-sizing:border-box;z-index:2;font:bold 9px/12px sans-serif;" +
          `text-align:center;${text ? "background:#000;color:#fff;" : ""}left:${left}px;top:${top}px`;
        mark.hidden = !there; // zoomed away
      });
    });
  }

  destroy() {
    this.listening.abort();
    document.querySelectorAll(".live-map-place, .live-map-thumbnail").forEach((mark) => mark.remove());
  }
}

// What a map shows: its box on the screen, and the limits of both axes; null until it is drawn.
function axesOf(map) {
  const layout = map._fullLayout, area = map.querySelector(".nsewdrag");
  return layout?.xaxis && area && { box: area.getBoundingClientRect(), x: layout.xaxis.range, y: layout.yaxis.range };
}

// Pixels from the left and the top of a map, and whether its axes show the place.
function onScreen(map, { box, x, y }, place) {
  const own = map.getBoundingClientRect();
  const across = (place[0] - x[0]) / (x[1] - x[0]), up = (place[1] - y[0]) / (y[1] - y[0]);
  const there = across >= 0 && across <= 1 && up >= 0 && up <= 1;
  return [box.left - own.left + across * box.width, box.top - own.top + (1 - up) * box.height, there];
}

// The bytes of a file: how many images as uint32, their numbers, and a picture of all of them, row by row.
async function readImages(buffer) {
  const count = new Uint32Array(buffer, 0, 1)[0];
  const numbers = new Uint32Array(buffer, 4, count);
  const sheet = await createImageBitmap(new Blob([buffer.slice(4 + 4 * count)], { type: "image/png" }));
  return { at: new Map(Array.from(numbers, (number, place) => [number, place])), sheet };
}
