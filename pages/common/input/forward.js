// Runs the files of iwae/export/browser.py: the layers of an encoder and a decoder, one after the other.
// A value is a Float32Array of rows; a row has as many numbers as the layer that made it has units.

const PROGRAM_VERSION = 1;

const ELEMENTWISE = {
  tanh: Math.tanh,
  relu: (z) => Math.max(z, 0),
  silu: (z) => z / (1 + Math.exp(-z)),
  exp: Math.exp,
  sigmoid: (z) => 1 / (1 + Math.exp(-z)),
};

// The bytes of a file → { encoder, decoder, tensors }.
function readNetwork(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const program = JSON.parse(__metadata__.program);
  if (program.version !== PROGRAM_VERSION) throw new Error(`a program of version ${program.version}`);
  const tensors = {};
  for (const [name, { data_offsets: [start, end] }] of Object.entries(entries))
    tensors[name] = fromHalf(new Uint16Array(buffer, 8 + length + start, (end - start) / 2));
  return { ...program, tensors };
}

// Takes the steps in turn, and adds each result to the values.
function run(network, steps, values) {
  for (const { op, of, to, weights } of steps) {
    const given = of.map((name) => values[name]);
    if (op === "affine") values[to] = affine(given[0], network.tensors[`${weights}.weight`], network.tensors[`${weights}.bias`]);
    else if (op === "normal") values[to] = normal(...given);
    else if (op in ELEMENTWISE) values[to] = given[0].map(ELEMENTWISE[op]);
    else throw new Error(`an unknown step, ${op}`);
  }
  return values;
}

function affine(value, weight, bias) {
  const outputs = bias.length, inputs = weight.length / outputs, rows = value.length / inputs;
  const result = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row++)
    for (let output = 0; output < outputs; output++) {
      let sum = bias[output];
      for (let i = row * inputs, j = output * inputs, end = j + inputs; j < end; i++, j++) sum += value[i] * weight[j];
      result[row * outputs + output] = sum;
    }
  return result;
}

// Mean and std of one row serve all rows of noise.
function normal(mean, std, noise) {
  return noise.map((eps, i) => mean[i % mean.length] + std[i % std.length] * eps);
}

// float16 → float32; what is not finite does not occur.
function fromHalf(bits) {
  const powers = Float32Array.from({ length: 32 }, (_, exponent) => 2 ** (Math.max(exponent, 1) - 25));
  const values = new Float32Array(bits.length);
  bits.forEach((half, i) => {
    const exponent = (half >> 10) & 31;
    const size = powers[exponent] * ((exponent ? 1024 : 0) + (half & 1023));
    values[i] = half & 0x8000 ? -size : size;
  });
  return values;
}
