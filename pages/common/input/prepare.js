// What iwae/images/digits.py does to a drawing, for pictures that follow the strokes: crop to the ink, scale to fit
// 20×20 with its aspect kept, centre of mass to the middle of 28×28. A pen of this surface is never so thin that its
// strokes have to be widened. Where rounding differs from the server's, the server's picture replaces this one.

const FRAME = 28; // pixels of the result along one side
const INNER = 20; // of them that the ink may take

// 784 grey levels 0…255, some of them above 0 → as many, as the models' training data have them.
function prepareDigit(pixels) {
  const inked = [...pixels.keys()].filter((i) => pixels[i] > 0);
  const rows = inked.map((i) => Math.floor(i / FRAME)), columns = inked.map((i) => i % FRAME);
  const top = Math.min(...rows), left = Math.min(...columns);
  const height = Math.max(...rows) - top + 1, width = Math.max(...columns) - left + 1;
  const factor = INNER / Math.max(height, width);
  const size = (length) => Math.max(1, roundHalfEven(length * factor));
  let ink = { width, height, values: Float32Array.from({ length: width * height }, (_, i) =>
    pixels[(top + Math.floor(i / width)) * FRAME + left + (i % width)] / 255) };
  ink.values = relative(ink.values);
  ink = transposed(resized(transposed(resized(ink, size(width), factor)), size(height), factor));
  ink.values = relative(ink.values);

  const across = offset(ink), down = offset(transposed(ink));
  const grey = new Uint8Array(FRAME * FRAME);
  ink.values.forEach((value, i) => {
    grey[(down + Math.floor(i / ink.width)) * FRAME + across + (i % ink.width)] = roundHalfEven(Math.fround(255 * value));
  });
  return grey;
}

// On where its grey level is above its threshold: the Bernoulli draw of the server, whose thresholds these are.
function binarize(grey, thresholds) {
  return Float32Array.from(grey, (level, i) => (thresholds[i] < level ? 1 : 0));
}

function relative(values) {
  const largest = values.reduce((a, b) => Math.max(a, b), 0);
  return values.map((value) => value / largest);
}

// Each row to a new width, as Pillow resamples: a box filter to make it smaller, a triangle to make it larger.
function resized({ width, height, values }, outputs, factor) {
  if (outputs === width) return { width, height, values };
  const filter = factor < 1 ? (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) : (x) => Math.max(0, 1 - Math.abs(x));
  const scale = width / outputs, stretch = Math.max(scale, 1), support = (factor < 1 ? 0.5 : 1) * stretch;
  const result = new Float32Array(outputs * height);
  for (let output = 0; output < outputs; output++) {
    const centre = (output + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(width, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: end - start }, (_, i) => filter((start + i - centre + 0.5) / stretch));
    const total = weights.reduce((a, b) => a + b, 0);
    for (let row = 0; row < height; row++) {
      let sum = 0;
      weights.forEach((weight, i) => (sum += (values[row * width + start + i] * weight) / total));
      result[row * outputs + output] = sum;
    }
  }
  return { width: outputs, height, values: result };
}

function transposed({ width, height, values }) {
  const turned = values.map((_, i) => values[(i % height) * width + Math.floor(i / height)]);
  return { width: height, height: width, values: turned };
}

// How far from the left its columns begin, for their centre of mass to be near the middle.
function offset({ width, values }) {
  let mass = 0, moment = 0;
  values.forEach((value, i) => ((mass += value), (moment += value * (i % width))));
  const centre = Math.round((moment / mass) * 1000) / 1000;
  return Math.min(FRAME - width, Math.max(0, roundHalfEven(FRAME / 2 - roundHalfEven(centre))));
}

function roundHalfEven(value) {
  const below = Math.floor(value), rest = value - below;
  return rest === 0.5 ? below + (below % 2) : Math.round(value);
}
