// Runs the model, in a Web Worker: the page stays alive meanwhile, and cancels by ending the worker.
//
// The page sends {model: a URL, photograph: a File}. Answers, each an object with one `kind`:
//   loading   {loaded, total}: bytes of the model; total is 0 where the server does not say
//   starting  {text}: the model is here, ONNX Runtime opens it
//   running   {text, done, total}: the file explains; how far it is, nobody knows
//   done      {classes, map, width, height, box, seconds, method, settings, signed}
//   failed    {message}
import * as ort from "./ort.wasm.min.mjs";
import { prepare, rankClasses, readMetadata } from "./explained-file.mjs";

ort.env.wasm.numThreads = 1; // more would need a server that isolates the page (the headers COOP and COEP)

let opened; // {model, session, metadata}: the model that is open

/** Returns the bytes of a file, and tells how far they have come. */
async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} cannot be loaded (${response.status} ${response.statusText}).`);
  const total = Number(response.headers.get("Content-Length") ?? 0);
  const parts = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    loaded += value.length;
    postMessage({ kind: "loading", loaded, total });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Opens a model, once. */
async function open(model) {
  if (opened?.model === model) return opened;
  const bytes = await download(model);
  const metadata = readMetadata(bytes);
  postMessage({ kind: "starting", text: "Opening the model …" });
  const session = await ort.InferenceSession.create(bytes);
  opened = { model, session, metadata };
  return opened;
}

/** Returns a photograph's pixels: upright, as its EXIF entry says, and over white where it is transparent. */
async function readPhotograph(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error("This browser cannot read the file as a picture.");
  });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = "white";
  canvas.fillRect(0, 0, width, height);
  canvas.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { data: canvas.getImageData(0, 0, width, height).data, width, height, step: 4 };
}

/** Predicts and explains: one run gives both. */
async function explain({ model, photograph }) {
  const { session, metadata } = await open(model);
  const { type, values, shape, box } = prepare(await readPhotograph(photograph), metadata);
  const feeds = { [metadata.image_input]: new ort.Tensor(type, values, shape) };
  if (session.inputNames.includes("target")) feeds.target = new ort.Tensor("int64", [-1n], [1]); // the top prediction
  if (session.inputNames.includes("explain")) feeds.explain = new ort.Tensor("bool", [true], [1]);
  const { method, settings } = metadata.explanation;
  postMessage({ kind: "running", text: `Explaining by ${method}`, done: 0, total: 0 });
  const start = performance.now();
  const outputs = await session.run(feeds);
  const seconds = (performance.now() - start) / 1000;
  const classes = rankClasses(outputs[metadata.class_output].data, metadata);
  const { data: map, dims } = outputs.saliency_map; // (1, 1, height, width) float32
  const [height, width] = dims.slice(2);
  postMessage({ kind: "done", classes, map, width, height, box, seconds, method, settings, signed: true });
}

onmessage = ({ data }) => {
  explain(data).catch((error) => postMessage({ kind: "failed", message: error.message ?? String(error) }));
};
