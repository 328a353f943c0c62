// The page's back end on a server: `masktool serve` explains the photograph as a job. See page.mjs for what it exports.

export const place = "The photograph goes to this server, which forgets it once it is explained.";
const POLL = 250; // milliseconds between two looks at a job
let details = {}; // what the server says of each model

/** Returns what the server answers, or throws what it says is wrong. */
async function ask(address, options) {
  const response = await fetch(address, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server does not answer.");
  });
  const document = await response.json();
  if (!response.ok) throw new Error(document.error);
  return document;
}

export async function findChoices() {
  const { models } = await ask("v2/models");
  const found = await Promise.all(models.map((name) => ask(`v2/models/${name}`)));
  details = Object.fromEntries(found.map(({ name, parameters }) => [name, parameters]));
  const methods = Object.fromEntries(found.map(({ name, parameters }) => [name, parameters.methods]));
  return [
    { name: "model", label: "Model", values: models },
    { name: "method", label: "Method", values: methods, within: "model" },
  ];
}

export function explain(photograph, { model, method }, answer) {
  const ending = new AbortController();
  let job;
  const drop = () => job && fetch(job.status, { method: "DELETE", keepalive: true }).catch(() => {}); // it may be gone

  async function work() {
    const { signal } = ending;
    answer({ kind: "starting", text: "Sending the photograph …" });
    const query = new URLSearchParams({ method });
    job = await ask(`v2/models/${model}/explanations?${query}`, { method: "POST", body: photograph, signal });
    while (job.state === "queued" || job.state === "running") {
      const { done, total } = job.progress;
      if (job.state === "queued") answer({ kind: "starting", text: `Waiting: ${job.ahead ?? 0} ahead` });
      else answer({ kind: "running", text: `Explaining by ${method}`, done, total });
      await new Promise((resume) => setTimeout(resume, POLL));
      job = await ask(job.status, { signal });
    }
    if (job.state !== "done") throw new Error(job.error ?? "The explanation was cancelled.");
    const document = await ask(job.result, { signal, headers: { Accept: "application/json" } });
    drop(); // the server need not keep it
    answer({ kind: "done", ...translate(document, details[model]) });
  }

  work().catch((error) => {
    if (!ending.signal.aborted) answer({ kind: "failed", message: error.message });
  });
  return () => {
    ending.abort();
    drop();
  };
}

/** Returns an explanation's document in the page's words. */
function translate(document, { signed_methods: signed }) {
  const { scores, settings, timing, method, image } = document;
  const rows = document.model_attributions;
  const [height, width] = [rows.length, rows[0].length];
  const value = ({ index, label, ...score }) => Object.values(score)[0];
  return {
    classes: scores.map((each) => ({ ...each, label: each.label ?? `class ${each.index}`, probability: value(each) })),
    map: Float32Array.from(rows.flat(), (number) => number ?? 0),
    width,
    height,
    box: image.crop_box ?? [0, 0, image.width, image.height],
    seconds: timing.seconds,
    method,
    settings: Object.fromEntries(Object.entries(settings).filter(([, value]) => typeof value !== "object")),
    signed: signed.includes(method),
  };
}
