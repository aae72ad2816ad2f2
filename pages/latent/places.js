// From a place on a map to a code and back, as iwae/analysis/latent.py does it.

const NEIGHBOURS = 15;

// LinearProjection.lift: the point moved within the plane until it lies at the place. `at` is where it lies itself.
function lifted({ axes, point, at }, place) {
  const units = point.length;
  return point.map((value, i) => value + (place[0] - at[0]) * axes[i] + (place[1] - at[1]) * axes[units + i]);
}

// The bytes of a file of [n, 2 + latent] numbers, n first → places and codes.
function readCodes(buffer) {
  const count = new Uint32Array(buffer, 0, 1)[0];
  const places = new Float32Array(buffer, 4, 2 * count), codes = new Float32Array(buffer, 4 + 8 * count);
  return { places, codes };
}

// The code at places [x, y, weight] of a model's map, mixed by weight.
function codeOf({ plane, codes }, parts) {
  const found = parts.map((place) => (codes ? blended(codes.places, codes.codes, place.slice(0, 2)) : lifted(plane, place)));
  return found[0].map((_, unit) => parts.reduce((sum, [, , weight], part) => sum + weight * found[part][unit], 0));
}

// Where a code lies on a model's map; null where the page has not got what that takes.
function placeOf({ plane, codes }, code) {
  if (codes) return [...blended(codes.codes, codes.places, code)];
  if (!plane) return null;
  const along = (axis) => code.reduce((sum, value, i) => sum + (value - plane.point[i]) * plane.axes[axis * code.length + i], 0);
  return [plane.at[0] + along(0), plane.at[1] + along(1)];
}

// latent.place_on_map from one space to another, of n points in each: the mean of `to` over the points whose `from` is
// nearest, weighted by UMAP's strength of membership.
function blended(from, to, point) {
  const across = point.length, count = from.length / across;
  const distance = Float64Array.from({ length: count }, (_, i) => {
    let sum = 0;
    for (let axis = 0; axis < across; axis++) sum += (from[i * across + axis] - point[axis]) ** 2;
    return Math.sqrt(sum);
  });
  const near = nearest(distance, Math.min(NEIGHBOURS, count));
  const enough = Math.log2(Math.max(near.length, 2));
  let low = 1e-12, high = 1e6, scale;
  for (let step = 0; step < 80; step++) {
    scale = Math.sqrt(low * high);
    if (near.reduce((sum, i) => sum + Math.exp(-distance[i] / scale), 0) > enough) high = scale;
    else low = scale;
  }
  const weights = near.map((i) => Math.exp(-(distance[i] - distance[near[0]]) / scale));
  const total = weights.reduce((a, b) => a + b, 0), width = to.length / count;
  const result = new Float64Array(width);
  near.forEach((i, order) => {
    for (let axis = 0; axis < width; axis++) result[axis] += (weights[order] / total) * to[i * width + axis];
  });
  return Float32Array.from(result);
}

// Indices of the k smallest, the smallest first.
function nearest(distance, k) {
  const found = [];
  for (let i = 0; i < distance.length; i++) {
    if (found.length === k && distance[i] >= distance[found[k - 1]]) continue;
    let place = found.length;
    while (place && distance[found[place - 1]] > distance[i]) place--;
    found.splice(place, 0, i);
    if (found.length > k) found.pop();
  }
  return found;
}
