// Pictures beside the drawing surface that follow its strokes: the page itself encodes, samples and decodes. What the
// server answers about the same drawing replaces them.

class LivePictures {
  models = []; // what is on the page of each: { network, noise, mean, draws }

  constructor(host) {
    this.host = host;
    this.seen = host.querySelector(".seen canvas");
  }

  // `live` is what live.py sends; `answered` says that it is about what is drawn now.
  update(live, answered) {
    this.host.hidden = !live;
    if (!live) return;
    this.thresholds = bytes(live.thresholds);
    this.likeMnist = live.like_mnist;
    this.host.style.setProperty("--columns", columns);
    this.host.style.setProperty("--rows", rows);
    if (JSON.stringify(live.models.map(({ title, kind, note }) => [title, kind, note])) !== this.shown) this.build(live);
    live.models.forEach(({ weights, noise }, place) => {
      const model = this.models[place];
      if (model.address !== weights) Object.assign(model, { address: weights, network: null });
      model.noise = noise && numbers(noise);
      if (weights && !model.network) whenIdle(() => this.load(model, weights));
    });
    if (answered) {
      this.cancel();
      paint(this.seen, live.seen && bytes(live.seen));
      live.models.forEach((one, place) => this.show(this.models[place], one.pictures && bytes(one.pictures)));
    }
  }

  build(live) {
    this.shown = JSON.stringify(live.models.map(({ title, kind, note }) => [title, kind, note]));
    this.models = live.models.map(({ title, kind, note }) => {
      const row = this.host.querySelector("template").content.firstElementChild.cloneNode(true);
      row.classList.add(kind);
      row.ariaLabel = title;
      row.querySelector(".title").textContent = title;
      row.querySelector(".note").textContent = note;
      const [mean, draws] = row.querySelectorAll("canvas");
      mean.ariaLabel = `${title}: decoded from the mean of q`;
      draws.ariaLabel = `${title}: ${live.draws} decoded draws from q`;
      row.querySelector(".draws figcaption").textContent = `${live.draws} draws from q(h|x)`;
      draws.style.setProperty("--draws", live.draws);
      return { row, mean, draws };
    });
    this.host.querySelector(".models").replaceChildren(...this.models.map(({ row }) => row));
  }

  async load(model, address) {
    try {
      const network = await fetched(address, readNetwork);
      if (model.address === address) model.network = network;
    } catch {
      // the pictures then follow by the server, when the pen is lifted; the next answer tries again
    }
  }

  // Called for every change of the drawing; `pixels` gives its values, or null for blank paper.
  follow(pixels) {
    if (this.host.hidden) return;
    this.pixels = pixels;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.compute(this.pixels());
    });
  }

  cancel() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
  }

  compute(pixels) {
    const x = pixels && binarize(this.likeMnist ? prepareDigit(pixels) : pixels, this.thresholds);
    paint(this.seen, x && x.map((bit) => 255 * bit));
    for (const model of this.models) if (model.network || !x) this.show(model, x && decoded(model, x));
  }

  // The first picture is decoded from the mean, the others from draws.
  show({ mean, draws }, pictures) {
    paint(mean, pictures && pictures.subarray(0, rows * columns));
    paint(draws, pictures && pictures.subarray(rows * columns));
  }
}

// Grey levels of the picture of q's mean, and of those of its draws.
function decoded({ network, noise }, x) {
  const values = run(network, network.encoder[0], { x, noise_1: noise });
  return run(network, network.decoder, values).pixels.map((probability) => 255 * probability);
}
