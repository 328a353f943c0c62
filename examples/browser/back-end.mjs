// The page's back end in the browser: ONNX Runtime in a Web Worker, so that the work can be ended at any time. See
// page.mjs for what it exports.

export const place = "The photograph stays in this browser: the network and its explanation run here.";
const MISSING = "The page is incomplete: copy ONNX Runtime's files beside it, as its README says.";
const model = new URL(new URLSearchParams(location.search).get("model") ?? "model.onnx", location.href);
let worker; // kept between photographs, with the model that it has opened

export const findChoices = async () => []; // the file settles all

export function explain(photograph, chosen, answer) {
  worker ??= new Worker("explain.js", { type: "module" });
  const end = () => {
    worker?.terminate();
    worker = undefined;
  };
  const fail = (message) => {
    end();
    answer({ kind: "failed", message });
  };
  worker.onmessage = ({ data }) => (data.kind === "failed" ? fail(data.message) : answer(data));
  worker.onerror = (event) => fail(event.message || MISSING);
  answer({ kind: "starting", text: "Loading the model …" });
  worker.postMessage({ model: model.href, photograph });
  return end;
}
