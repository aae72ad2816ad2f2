// From a place on a map to a code, as iwae/analysis/latent.py does it.

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
  return { count, places, codes };
}

// latent.place_on_map, from the map to the codes: the mean code of the nearest images, weighted by UMAP's strength of membership.
function blended({ count, places, codes }, place) {
  const distance = Float64Array.from({ length: count }, (_, i) =>
    Math.hypot(places[2 * i] - place[0], places[2 * i + 1] - place[1]));
  const near = nearest(distance, Math.min(NEIGHBOURS, count));
  const enough = Math.log2(Math.max(near.length, 2));
  let low = 1e-12, high = 1e6, scale;
  for (let step = 0; step < 80; step++) {
    scale = Math.sqrt(low * high);
    if (near.reduce((sum, i) => sum + Math.exp(-distance[i] / scale), 0) > enough) high = scale;
    else low = scale;
  }
  const weights = near.map((i) => Math.exp(-(distance[i] - distance[near[0]]) / scale));
  const total = weights.reduce((a, b) => a + b, 0), units = codes.length / count;
  const result = new Float64Array(units);
  near.forEach((i, order) => {
    for (let unit = 0; unit < units; unit++) result[unit] += (weights[order] / total) * codes[i * units + unit];
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
