// The viewer: any two of image, truth and predictions of one test image behind a draggable boundary.

const PICTURES = DATA.pictures;
const VOID = 255;
const ERROR = { wrong: [213, 94, 0], void: [20, 20, 20] }; // Okabe–Ito vermilion; right pixels show the image in grey
const COLOURS = DATA.classes.map(({ colour }) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));

const viewer = { target: 0, image: 0, left: "image", right: "truth", style: "classes", split: 50, drawing: 0, layers: [] };
const decoded = new Map();

/** The train ids (H·W) behind base64 of deflated bytes; each map is inflated once. */
function labelsOf(packed) {
  if (!decoded.has(packed)) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    decoded.set(packed, new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer)));
  }
  return decoded.get(packed);
}

/** The RGBA pixels of the test image. */
async function pixelsOf(entry) {
  const image = new Image();
  image.src = entry.image;
  await image.decode();
  const context = new OffscreenCanvas(entry.width, entry.height).getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, entry.width, entry.height).data;
}

const currentImage = () => PICTURES.targets[viewer.target].images[viewer.image];
const classTitle = (id) => DATA.classes[id]?.name ?? "void";

/** What a layer is called: `image`, `truth`, or `row/<key>`. */
function layerTitle(layer) {
  if (!layer.startsWith("row/")) return layer;
  const key = layer.slice(4);
  return `${DATA.rows.find((row) => row.key === key).title}, seed ${PICTURES.seeds[key]}`;
}

/** Share of non-void pixels that `labels` gets wrong, percent. */
function wrongShare(labels, truth) {
  let [wrong, all] = [0, 0];
  for (let at = 0; at < truth.length; at += 1) {
    if (truth[at] === VOID) continue;
    all += 1;
    if (labels[at] !== truth[at]) wrong += 1;
  }
  return all ? (100 * wrong) / all : null;
}

/** RGBA of a layer: colours of the classes, those over the image, or right, wrong and void against the truth. */
function paint(labels, truth, photo, style) {
  const pixels = new Uint8ClampedArray(photo);
  for (let at = 0; at < labels.length; at += 1) {
    const place = 4 * at;
    const grey = 0.3 * photo[place] + 0.59 * photo[place + 1] + 0.11 * photo[place + 2];
    let [colour, weight, ground] = [COLOURS[labels[at]] ?? [0, 0, 0], 1, photo.subarray(place, place + 3)];
    if (style === "overlay") weight = 0.55;
    if (style === "errors") {
      ground = [0, 0, 0].fill(110 + 0.5 * grey);
      colour = truth[at] === VOID ? ERROR.void : ERROR.wrong;
      weight = truth[at] === VOID || labels[at] !== truth[at] ? 1 : 0;
    }
    for (let channel = 0; channel < 3; channel += 1) {
      pixels[place + channel] = weight * colour[channel] + (1 - weight) * ground[channel];
    }
  }
  return pixels;
}

/** Draw both sides; a newer call wins over one that is still decoding. */
async function drawViewer() {
  viewer.drawing += 1;
  const turn = viewer.drawing;
  const entry = currentImage();
  const [photo, truth] = await Promise.all([pixelsOf(entry), labelsOf(entry.truth)]);
  const layers = await Promise.all(
    [viewer.left, viewer.right].map(async (layer) => {
      if (layer === "image") return { layer, labels: null };
      return { layer, labels: layer === "truth" ? truth : await labelsOf(entry.predictions[layer.slice(4)]) };
    }),
  );
  if (turn !== viewer.drawing) return;
  viewer.layers = layers;
  viewer.truth = truth;
  layers.forEach(({ layer, labels }, side) => {
    const canvas = byId(side ? "canvas-right" : "canvas-left");
    [canvas.width, canvas.height] = [entry.width, entry.height];
    canvas.classList.toggle("smooth", !labels);
    const pixels = labels ? paint(labels, truth, photo, viewer.style) : photo;
    canvas.getContext("2d").putImageData(new ImageData(pixels, entry.width, entry.height), 0, 0);
    const wrong = layer.startsWith("row/") ? ` · ${number(wrongShare(labels, truth))} % wrong` : "";
    byId(side ? "title-right" : "title-left").textContent = layerTitle(layer) + wrong;
  });
  byId("stage").style.aspectRatio = `${entry.width} / ${entry.height}`;
  byId("stage").dataset.drawn = String(turn);
  drawLegend();
}

function drawLegend() {
  const swatch = (colour, name) => {
    const box = el("i", { "aria-hidden": "true" });
    box.style.background = colour;
    return el("li", null, box, name);
  };
  const rgb = (colour) => `rgb(${colour.join(" ")})`;
  const entries =
    viewer.style === "errors"
      ? [["#b4b4b4", "right (image in grey)"], [rgb(ERROR.wrong), "wrong"], [rgb(ERROR.void), "void in the truth"]]
      : [...DATA.classes.filter(({ shown }) => shown).map(({ colour, name }) => [colour, name]), ["#000000", "void"]];
  byId("legend").replaceChildren(...entries.map(([colour, name]) => swatch(colour, name)));
}

/** Move the boundary to `percent` of the width. */
function setSplit(percent) {
  viewer.split = Math.max(0, Math.min(100, percent));
  byId("stage").style.setProperty("--split", `${viewer.split}%`);
  const handle = byId("handle");
  handle.setAttribute("aria-valuenow", String(Math.round(viewer.split)));
  handle.setAttribute("aria-valuetext", `${Math.round(viewer.split)} % ${layerTitle(viewer.left)}`);
}

/** The class names of both sides and the truth under the pointer. */
function readPixel(event) {
  const entry = currentImage();
  const box = byId("stage").getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * entry.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * entry.height);
  if (!viewer.truth || x < 0 || y < 0 || x >= entry.width || y >= entry.height) return;
  const at = y * entry.width + x;
  const parts = viewer.layers
    .filter(({ layer, labels }, side, all) => labels && layer !== "truth" && all.findIndex((o) => o.layer === layer) === side)
    .map(({ layer, labels }) => `${layerTitle(layer)}: ${classTitle(labels[at])}`);
  byId("readout").textContent = [`truth: ${classTitle(viewer.truth[at])}`, ...parts].join("  ·  ");
}

function startSlider() {
  const stage = byId("stage");
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    setSplit(((event.clientX - box.left) / box.width) * 100);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
    readPixel(event);
  });
  stage.addEventListener("pointerleave", () => {
    byId("readout").textContent = "Point at a pixel to read its classes.";
  });
  byId("handle").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 }[event.key];
    if (!step) return;
    event.preventDefault();
    setSplit(viewer.split + step);
  });
  setSplit(50);
}

/** Selects that depend on the image: its predictions. A layer that this image lacks falls back to the truth. */
function fillLayers() {
  const entry = currentImage();
  const rows = DATA.rows.filter((row) => row.key in entry.predictions).map((row) => `row/${row.key}`);
  const layers = ["image", "truth", ...rows];
  for (const side of ["left", "right"]) {
    if (!layers.includes(viewer[side])) viewer[side] = "truth";
    fillSelect(byId(`layer-${side}`), layers.map((layer) => [layer, layerTitle(layer)]), viewer[side]);
  }
}

function fillImages() {
  const images = PICTURES.targets[viewer.target].images.map((entry, index) => {
    const name = entry.condition ? `${index + 1}: ${entry.condition} (${entry.id})` : `${index + 1}: ${entry.id}`;
    return [String(index), name];
  });
  fillSelect(byId("viewer-image"), images, viewer.image);
}

function showImage(target, image) {
  Object.assign(viewer, { target, image });
  fillImages();
  fillLayers();
  drawViewer();
}

function startViewer() {
  if (!PICTURES.targets.length) {
    byId("viewer-body").hidden = true;
    byId("viewer-none").hidden = false;
    return;
  }
  [viewer.left, viewer.right] = PICTURES.pair.map((key) => `row/${key}`);
  if (viewer.left === viewer.right) viewer.left = "image";
  fillSelect(byId("viewer-target"), PICTURES.targets.map((each, index) => [String(index), each.title]), 0, (value) => showImage(Number(value), 0));
  byId("viewer-image").addEventListener("change", (event) => showImage(viewer.target, Number(event.target.value)));
  const step = (by) => {
    const count = PICTURES.targets[viewer.target].images.length;
    showImage(viewer.target, (viewer.image + by + count) % count);
  };
  byId("previous-image").addEventListener("click", () => step(-1));
  byId("next-image").addEventListener("click", () => step(1));
  for (const side of ["left", "right"]) {
    byId(`layer-${side}`).addEventListener("change", (event) => {
      viewer[side] = event.target.value;
      drawViewer();
      setSplit(viewer.split);
    });
  }
  for (const input of document.querySelectorAll("input[name=style]")) {
    input.addEventListener("change", () => {
      viewer.style = input.value;
      drawViewer();
    });
  }
  const left = PICTURES.leftOut;
  byId("viewer-note").textContent = left ? `${left} more images with predictions are not in this page, to keep it small.` : "";
  startSlider();
  showImage(0, 0);
}
