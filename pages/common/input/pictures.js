// What the components with live pictures share: painting, and files that are fetched once.

const GAP = 1; // pixels between two pictures of a row

let rows = 28, columns = 28; // of every picture of this component

function setShape(shape) {
  [rows, columns] = shape;
}

const files = new Map(); // address → promise of what was read

// Grey levels of one or more pictures in a row; nothing for null.
function paint(canvas, pictures) {
  const size = rows * columns, count = pictures ? pictures.length / size : 0;
  const context = canvas.getContext("2d");
  const width = Math.max(1, count) * (columns + GAP) - GAP;
  if (count && canvas.width !== width) canvas.width = width;
  canvas.height === rows || (canvas.height = rows);
  context.clearRect(0, 0, canvas.width, rows);
  for (let place = 0; place < count; place++) {
    const image = context.createImageData(columns, rows);
    for (let i = 0; i < size; i++) {
      image.data.fill(pictures[place * size + i], 4 * i, 4 * i + 3);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, place * (columns + GAP), 0);
  }
}

// What `read` makes of the bytes at an address, which holds a hash of them.
function fetched(address, read) {
  if (!files.has(address)) {
    const loading = fetch(address).then(async (response) => {
      if (!response.ok) throw new Error(`${address}: ${response.status}`);
      return read(await response.arrayBuffer());
    });
    loading.catch(() => files.delete(address));
    files.set(address, loading);
    if (files.size > 8) files.delete(files.keys().next().value); // a few MB each
  }
  return files.get(address);
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

const numbers = (base64) => new Float32Array(bytes(base64).buffer);

const whenIdle = (work) => (window.requestIdleCallback ?? setTimeout)(work); // after the first paint
