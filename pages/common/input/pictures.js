// What the components with live pictures share: painting, and files that are fetched once.

const FRAME = 28; // pixels of a picture along one side
const PICTURE = FRAME * FRAME;
const GAP = 1; // pixels between two pictures of a row

const files = new Map(); // address → promise of what was read

// Grey levels of one or more pictures in a row; nothing for null.
function paint(canvas, pictures) {
  const count = pictures ? pictures.length / PICTURE : 0;
  const context = canvas.getContext("2d");
  const width = Math.max(1, count) * (FRAME + GAP) - GAP;
  if (count && canvas.width !== width) canvas.width = width;
  canvas.height === FRAME || (canvas.height = FRAME);
  context.clearRect(0, 0, canvas.width, FRAME);
  for (let place = 0; place < count; place++) {
    const image = context.createImageData(FRAME, FRAME);
    for (let i = 0; i < PICTURE; i++) {
      image.data.fill(pictures[place * PICTURE + i], 4 * i, 4 * i + 3);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, place * (FRAME + GAP), 0);
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
