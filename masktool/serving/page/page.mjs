// The page: what a person does and sees. What computes is the back end: `back-end.mjs` beside this file, which is the
// server's client in masktool/serving/page, and ONNX Runtime in a Web Worker in examples/browser. A back end exports
//
//   place                    where the photograph goes, in a sentence
//   findChoices()            a promise of [{name, label, values, within}]: what a person may choose; `within` names the
//                            choice that this one's values, then an object of lists, depend on
//   explain(photograph, chosen, answer)
//                            starts, and returns a function that ends the work
//
// and calls `answer` with objects of one `kind`:
//   loading   {loaded, total}: bytes of the model; total is 0 where that is not known
//   starting  {text}: what is being prepared
//   running   {text, done, total}: what is computed; total is 0 where that is not known
//   done      {classes, map, width, height, box, seconds, method, settings, signed}
//   failed    {message}
import * as backEnd from "./back-end.mjs";

const find = (id) => document.getElementById(id);
const SHOWN_CLASSES = 5;
const FOR = [214, 56, 32]; // red: speaks for the class
const AGAINST = [38, 118, 208]; // blue, of the same lightness: speaks against it
let stop; // ends the work that is being done
let clock;
let began;
let shown; // {photograph, map}: two pictures, and where on the photograph the map lies

// -- what a person does

find("file").onchange = () => find("file").files[0] && start(find("file").files[0]);
addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
addEventListener("dragleave", () => find("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) start(event.dataTransfer.files[0]);
});
find("cancel").onclick = () => {
  end();
  tell("Cancelled.");
  find("file").focus(); // the button is gone, and the keyboard goes on from here
};
find("strength").oninput = draw;

// -- what a person may choose

find("place").textContent = backEnd.place;
backEnd.findChoices().then(offer, (error) => tell(error.message, null, true));

const listOf = (choice) => `choose-${choice}`;

/** Shows a list for every choice that there is. */
function offer(choices) {
  for (const choice of choices) {
    const list = Object.assign(document.createElement("select"), { id: listOf(choice.name), name: choice.name });
    const label = Object.assign(document.createElement("label"), { textContent: choice.label });
    label.append(list);
    find("choices").append(label);
    const fill = () => {
      const values = choice.within ? choice.values[find(listOf(choice.within)).value] : choice.values;
      list.replaceChildren(...values.map((value) => new Option(value, value)));
      label.hidden = values.length < 2;
    };
    fill();
    if (choice.within) find(listOf(choice.within)).addEventListener("change", fill);
  }
  find("choices").hidden = choices.length === 0;
}

const chosen = () => Object.fromEntries([...document.querySelectorAll("#choices select")].map((l) => [l.name, l.value]));

// -- the work

function start(photograph) {
  end(); // a new photograph ends the work on the last one
  find("result").hidden = true;
  find("cancel").hidden = false;
  tell("Starting …", {});
  stop = backEnd.explain(photograph, chosen(), (answer) => ANSWERS[answer.kind](answer, photograph));
}

function end() {
  stop?.();
  settle();
}

function settle() {
  stop = undefined;
  began = undefined;
  clearInterval(clock);
  find("detail").textContent = "";
  find("cancel").hidden = true;
  find("progress").hidden = true;
  find("file").value = "";
}

const ANSWERS = {
  loading({ loaded, total }) {
    const size = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
    tell(total ? `Loading the model: ${size(loaded)} of ${size(total)}` : `Loading the model: ${size(loaded)}`, {
      value: total ? loaded / total : undefined,
    });
  },
  starting: ({ text }) => tell(text, {}),
  running({ text, done, total }) {
    tell(text, { value: total ? done / total : undefined });
    if (began !== undefined) return;
    began = performance.now();
    const tick = () => {
      find("detail").textContent = `${Math.floor((performance.now() - began) / 1000)} s`;
    };
    tick();
    clock = setInterval(tick, 1000);
  },
  async done(result, photograph) {
    settle();
    tell(`Done in ${result.seconds.toFixed(1)} s.`);
    await show(result, photograph).catch(() => tell("This browser cannot show the file as a picture.", null, true));
  },
  failed({ message }) {
    settle();
    tell(message, null, true);
  },
};

/** Says how the work stands. `progress` is null where there is none, else holds the share that is done, if known. */
function tell(text, progress = null, failed = false) {
  if (find("status").textContent !== text) find("status").textContent = text; // a screen reader reads what changes
  find("status").classList.toggle("failed", failed);
  find("progress").hidden = !progress;
  if (progress?.value === undefined) find("progress").removeAttribute("value");
  else find("progress").value = progress.value;
}

// -- what is shown

async function show(result, photograph) {
  const { classes, box, method, settings } = result;
  shown = { photograph: await createImageBitmap(photograph), map: await paint(result), box };
  find("classes").replaceChildren(...classes.slice(0, SHOWN_CLASSES).map(row));
  const [top] = classes;
  find("picture").setAttribute("aria-label", `The photograph, with what speaks for ${top.label} marked`);
  describe(result, top.label);
  const words = Object.entries(settings).map(([name, value]) => `${name} ${value}`);
  find("method").textContent = `Method: ${[method, ...words].join(", ")}.`;
  const numbers = { classes, saliency_map: [...result.map], height: result.height, width: result.width, box };
  URL.revokeObjectURL(find("save").href);
  find("save").href = URL.createObjectURL(new Blob([JSON.stringify(numbers)], { type: "application/json" }));
  find("result").hidden = false;
  draw();
}

function row({ label, probability }) {
  const item = document.createElement("li");
  const meter = Object.assign(document.createElement("meter"), { value: probability });
  meter.setAttribute("aria-hidden", "true"); // the number says the same
  item.append(label, Object.assign(document.createElement("span"), { textContent: probability.toFixed(3) }), meter);
  return item;
}

function describe({ map, signed }, label) {
  const key = (colour) => {
    const dot = Object.assign(document.createElement("span"), { className: "key" });
    dot.style.background = `rgb(${colour})`;
    return dot;
  };
  find("caption").replaceChildren(key(FOR), `speaks for ${label} `);
  if (signed && map.some((value) => value < 0)) find("caption").append(key(AGAINST), "speaks against it");
}

/** Returns the map as a picture: red where it is positive, blue where negative, clear where 0. Where signs mean
 * nothing, clear where it is lowest. */
function paint({ map, width, height, signed }) {
  const pixels = new ImageData(width, height);
  const zero = signed ? 0 : map.reduce((least, value) => Math.min(least, value), Infinity);
  const largest = map.reduce((most, value) => Math.max(most, Math.abs(value - zero)), 0);
  map.forEach((value, index) => {
    const strength = largest ? Math.abs(value - zero) / largest : 0;
    pixels.data.set([...(value < zero ? AGAINST : FOR), Math.round(255 * strength)], 4 * index);
  });
  return createImageBitmap(pixels, { premultiplyAlpha: "none" });
}

/** Draws the photograph, in soft colours, and the map over the part that the network has seen. */
function draw() {
  const { photograph, map, box } = shown;
  const canvas = find("picture");
  [canvas.width, canvas.height] = [photograph.width, photograph.height];
  const strength = Number(find("strength").value);
  const context = canvas.getContext("2d");
  context.filter = `saturate(${1 - 0.7 * strength})`;
  context.drawImage(photograph, 0, 0);
  context.filter = "none";
  context.globalAlpha = strength;
  context.drawImage(map, box[0], box[1], box[2] - box[0], box[3] - box[1]);
  context.globalAlpha = 0.6 * Math.sign(strength); // what lies outside was cropped away, and is dimmed
  context.fillStyle = "#303030";
  context.beginPath();
  context.rect(0, 0, canvas.width, canvas.height);
  context.rect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
  context.fill("evenodd");
}
