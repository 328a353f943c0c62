// Predicts and explains in one run: a class and its probability, and the saliency map.
//
//     node explain.mjs MODEL.onnx PHOTOGRAPH RESULT.json      the photograph's preprocessing is the one in the file
//     node explain.mjs MODEL.onnx INPUT.f32 RESULT.json       the network's own input, raw float32
//
// MODEL.onnx comes from `masktool export MODEL --explain METHOD`.
import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { prepare, rankClasses, readMetadata } from "../browser/explained-file.mjs";

const [model, picture, result] = process.argv.slice(2);
if (!result) {
  console.error("usage: node explain.mjs MODEL.onnx PHOTOGRAPH|INPUT.f32 RESULT.json");
  process.exit(2);
}

/** Returns a photograph's pixels: upright, without transparency, three bytes for each. */
async function readPhotograph(path) {
  const { default: sharp } = await import("sharp"); // decodes JPEG, PNG, WebP, TIFF, AVIF
  const upright = sharp(path).rotate().flatten({ background: "white" }).toColourspace("srgb");
  const { data, info } = await upright.raw().toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height, step: info.channels };
}

/** Returns the network's input from a file of float32 numbers: one image. */
async function readInput(path) {
  const bytes = await readFile(path);
  const values = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  const image = session.inputMetadata.find((input) => input.name === metadata.image_input); // since version 1.22
  return { type: "float32", values, shape: [1, ...image.shape.slice(1)] };
}

const metadata = readMetadata(await readFile(model));
const session = await ort.InferenceSession.create(model);
const { type, values, shape } = picture.endsWith(".f32")
  ? await readInput(picture)
  : prepare(await readPhotograph(picture), metadata);

const feeds = { [metadata.image_input]: new ort.Tensor(type, values, shape) };
if (session.inputNames.includes("target")) feeds.target = new ort.Tensor("int64", [-1n], [1]); // -1: the top prediction
if (session.inputNames.includes("explain")) feeds.explain = new ort.Tensor("bool", [true], [1]);
const outputs = await session.run(feeds);

const [top] = rankClasses(outputs[metadata.class_output].data, metadata);
const { data: map, dims } = outputs.saliency_map; // (1, 1, height, width) float32
console.log(`${top.label}: ${top.probability.toFixed(4)}, explained by ${metadata.explanation.method}`);
const [height, width] = dims.slice(2);
await writeFile(result, JSON.stringify({ ...top, height, width, saliency_map: Array.from(map) }));
