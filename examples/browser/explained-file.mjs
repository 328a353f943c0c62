// What a file that `masktool export MODEL --explain METHOD` has written says of itself, how a photograph becomes its
// input, and what its scores mean. Plain JavaScript for browsers and Node; the pixels are those of masktool in Python
// (and so of Pillow), bit for bit.

// ---- What the file says -------------------------------------------------------------------------------------------

// An .onnx file is one protobuf message (ONNX's ModelProto). Its field 14 holds pairs of texts, a key (field 1) and a
// value (field 2); masktool's keys begin with "masktool." and their values are JSON. ONNX Runtime's JavaScript API does
// not hand them over, so they are read here; everything else in the file is skipped.
const METADATA_FIELD = 14;
const KEY_FIELD = 1;
const VALUE_FIELD = 2;
const PREFIX = "masktool.";
const READ = ["image_input", "class_output", "output_kind", "preprocessing", "labels", "explanation"];

/** Yields [number, bytes] for every field of a protobuf message that holds bytes. */
function* readFields(bytes) {
  let position = 0;
  const readNumber = () => {
    for (let value = 0, factor = 1; ; factor *= 128) {
      const byte = bytes[position++];
      value += (byte & 127) * factor;
      if (!(byte & 128)) return value;
    }
  };
  while (position < bytes.length) {
    const tag = readNumber();
    const kind = tag & 7; // 0: a number, 1: eight bytes, 2: bytes behind their length, 5: four bytes
    if (kind === 0) readNumber();
    else if (kind === 1) position += 8;
    else if (kind === 5) position += 4;
    else if (kind === 2) {
      const length = readNumber();
      yield [Math.floor(tag / 8), bytes.subarray(position, position + length)];
      position += length;
    } else throw new Error("This is no ONNX file.");
  }
}

/** Returns what the bytes (a Uint8Array) of a file say: image_input, class_output, output_kind, preprocessing, labels,
 * and explanation, which holds the method and its settings. */
export function readMetadata(bytes) {
  const text = (part) => new TextDecoder().decode(part);
  const found = {};
  for (const [number, content] of readFields(bytes)) {
    if (number !== METADATA_FIELD) continue;
    const pair = Object.fromEntries(readFields(content));
    const name = text(pair[KEY_FIELD]).replace(PREFIX, "");
    if (READ.includes(name)) found[name] = JSON.parse(text(pair[VALUE_FIELD]));
  }
  if (!found.explanation) {
    throw new Error("This file does not explain itself: make one by `masktool export MODEL --explain METHOD`.");
  }
  return found;
}

// ---- From a photograph to the input -------------------------------------------------------------------------------

/** Filters by name: how far they reach, in pixels, and their weight at a distance. They are Pillow's. */
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)))],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const STEEPNESS = -0.5; // of the bicubic filter

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

function cubic(x) {
  if (x < 1) return ((STEEPNESS + 2) * x - (STEEPNESS + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * STEEPNESS : 0;
}

const WEIGHT_ONE = 2 ** 22; // weights are whole numbers, this one stands for 1: Pillow's resizing is exact in integers

/** Returns, for each place from `start` to `end` of an axis that is resized, where its source pixels begin, and their
 * weights. */
function findSources(length, resized, start, end, interpolation) {
  const scale = length / resized;
  if (interpolation === "nearest") {
    let centre = scale / 2;
    const nearest = range(0, end).map(() => {
      const source = Math.floor(centre);
      centre += scale; // adding up, as Pillow does: where a centre falls between two pixels, rounding decides
      return [source, [WEIGHT_ONE]];
    });
    return nearest.slice(start);
  }
  const [reach, weigh] = FILTERS[interpolation];
  const stretch = Math.max(scale, 1); // a photograph that shrinks is smoothed first: that is antialiasing
  return range(start, end).map((place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const last = Math.min(length, Math.trunc(centre + reach * stretch + 0.5));
    const weights = range(first, last).map((source) => weigh((source - centre + 0.5) * (1 / stretch)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return [first, weights.map((weight) => Math.trunc((weight / total) * WEIGHT_ONE + (weight < 0 ? -0.5 : 0.5)))];
  });
}

const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

/** Returns an image, {pixels, channels, width, height}, with one axis resized: its columns, or its rows. */
function resizeAxis(image, sources, isColumns) {
  const { pixels, channels } = image;
  const width = isColumns ? sources.length : image.width;
  const height = isColumns ? image.height : sources.length;
  const step = (isColumns ? 1 : width) * channels; // from one pixel to the next along the axis
  const result = new Uint8ClampedArray(width * height * channels);
  let written = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [first, weights] = sources[isColumns ? x : y];
      const start = isColumns ? (y * image.width + first) * channels : (first * width + x) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = WEIGHT_ONE / 2; // so that rounding down rounds to the nearest
        for (let index = 0; index < weights.length; index++) {
          sum += pixels[start + channel + index * step] * weights[index];
        }
        result[written++] = Math.floor(sum / WEIGHT_ONE);
      }
    }
  }
  return { pixels: result, channels, width, height };
}

/** Rounds halves to the even neighbour, as Python does. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

/** Returns where the input lies in the resized photograph, along one axis: below 0 where that is smaller. */
const findStart = (length, crop) =>
  length >= crop ? roundHalfEven((length - crop) / 2) : -Math.floor((crop - length) / 2);

/** Returns [width, height] to which a photograph is resized. */
function findResizedSize(width, height, { resize, resize_to: short, size, padding }) {
  if (padding != null) throw new Error("photographs are not padded here");
  if (resize === "none") return [width, height];
  if (resize === "exact") return [size[1], size[0]];
  if (resize !== "shortest") throw new Error(`photographs are not resized like this here: ${resize}`);
  const long = Math.trunc((short * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [short, long] : [long, short];
}

/** Returns the channels that the network takes, one byte each: red, green, blue, or one of grey. */
function chooseChannels({ data, width, height, step }, order) {
  const channels = order === "L" ? 1 : 3;
  const chosen = new Uint8ClampedArray(width * height * channels);
  for (let pixel = 0; pixel < width * height; pixel++) {
    const [from, to] = [pixel * step, pixel * channels];
    if (order === "L") {
      const luma = data[from] * 19595 + data[from + 1] * 38470 + data[from + 2] * 7471; // Rec. 601's, times 65536
      chosen[to] = (luma + 32768) >> 16;
    } else {
      chosen[to] = data[order === "BGR" ? from + 2 : from];
      chosen[to + 1] = data[from + 1];
      chosen[to + 2] = data[order === "BGR" ? from : from + 2];
    }
  }
  return { pixels: chosen, channels, width, height };
}

/** Returns how a photograph is resized and cut: the resized size, where the input begins in it, and the box, the part
 * of the photograph that the network sees: [left, top, right, bottom] in pixels, which may reach outside. */
function plan({ width, height }, preprocessing) {
  const [rows, columns] = preprocessing.size;
  const [resizedWidth, resizedHeight] = findResizedSize(width, height, preprocessing);
  const left = findStart(resizedWidth, columns);
  const top = findStart(resizedHeight, rows);
  const [scaleX, scaleY] = [width / resizedWidth, height / resizedHeight];
  const box = [left * scaleX, top * scaleY, (left + columns) * scaleX, (top + rows) * scaleY];
  return { resizedWidth, resizedHeight, left, top, box };
}

/** Makes a photograph the input of a network.
 * @param photograph {data, width, height, step}: bytes 0..255, red, green, blue first of `step` bytes for each pixel
 * @param metadata what the file says of itself
 * @returns {type, values, shape, box}: the input, of ONNX Runtime's type, and the part of the photograph that the
 *     network sees: [left, top, right, bottom] in pixels, which may reach outside
 */
export function prepare(photograph, { preprocessing, explanation }) {
  if (!preprocessing) {
    throw new Error("This file does not say how a photograph becomes its input: export it with --preprocess.");
  }
  const { box } = plan(photograph, preprocessing);
  if (explanation.embed_preprocessing) {
    const { pixels, width, height } = chooseChannels(photograph, "RGB"); // the file does the rest itself
    return { type: "uint8", values: new Uint8Array(pixels.buffer), shape: [height, width, 3], box };
  }
  return { type: "float32", ...normalise(resize(photograph, preprocessing), preprocessing), box };
}

/** Returns the part of the input that the photograph fills: {pixels, channels, width, height}, and where it begins in
 * the input: {x, y}. */
function resize(photograph, preprocessing) {
  const { width, height } = photograph;
  const { size, interpolation, channel_order: order } = preprocessing;
  const { resizedWidth, resizedHeight, left, top } = plan(photograph, preprocessing);
  const across = [Math.max(left, 0), Math.min(left + size[1], resizedWidth)]; // only what is seen is computed
  const down = [Math.max(top, 0), Math.min(top + size[0], resizedHeight)];
  const asItIs = ([start, end]) => range(start, end).map((place) => [place, [WEIGHT_ONE]]);
  const columns = resizedWidth === width ? asItIs(across) : findSources(width, resizedWidth, ...across, interpolation);
  const rows = resizedHeight === height ? asItIs(down) : findSources(height, resizedHeight, ...down, interpolation);
  const narrow = resizeAxis(chooseChannels(photograph, order), columns, true); // columns first, as Pillow does
  return { ...resizeAxis(narrow, rows, false), x: Math.max(-left, 0), y: Math.max(-top, 0) };
}

/** Returns the input's {values, shape}: scaled and normalised, and 0 where the photograph does not reach. */
function normalise({ pixels, channels, width, height, x: startX, y: startY }, { size, mean, std, scale, layout }) {
  const [rows, columns] = size;
  const isLast = layout === "NHWC";
  const values = new Float32Array(channels * rows * columns);
  for (let channel = 0; channel < channels; channel++) {
    const levels = Float32Array.from({ length: 256 }, (_, level) => (level * scale - mean[channel]) / std[channel]);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const place = (y + startY) * columns + x + startX;
        values[isLast ? place * channels + channel : channel * rows * columns + place] =
          levels[pixels[(y * width + x) * channels + channel]];
      }
    }
  }
  return { values, shape: isLast ? [1, rows, columns, channels] : [1, channels, rows, columns] };
}

// ---- From scores to classes ---------------------------------------------------------------------------------------

/** Returns the classes of one image, most probable first: [{index, label, probability}].
 * @param scores the values of the output that metadata name `class_output`
 */
export function rankClasses(scores, { output_kind: kind, labels }) {
  const probabilities = toProbabilities(Array.from(scores, Number), kind);
  const names = labels?.length === 1 && probabilities.length === 2 ? [`not ${labels[0]}`, labels[0]] : labels;
  const name = (index) => names?.[index] ?? `${index}`;
  const classes = probabilities.map((probability, index) => ({ index, label: name(index), probability }));
  return classes.sort((one, other) => other.probability - one.probability);
}

/** Returns a probability for each class; scores of a kind that is not known stay as they are. */
function toProbabilities(scores, kind) {
  if (kind === "logits") {
    const largest = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - largest));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map((power) => power / total);
  }
  if (kind === "binary") return [1 / (1 + Math.exp(scores[0])), 1 / (1 + Math.exp(-scores[0]))];
  if (kind === "binary-probability") return [1 - scores[0], scores[0]];
  return scores;
}
