// Curves as small pictures that share their look. Colours tell runs apart, or metrics of one run.

const WIDE = 360;
const HIGH = 190;
const EDGE = { left: 44, right: 8, top: 8, bottom: 20 };
const STROKES = ["", "5 3", "1.5 2.5", "8 3 2 3", "1.5 6", "12 3"];
const HUES = 6;
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function viewCurves(main) {
  const drawn = data.panels.flatMap((panel) =>
    panel.heat ? data.runs.map((run) => heatPanel(panel, run)) : [linePanel(panel)],
  );
  const some = drawn.filter((panel) => panel);
  const empty = el("p", { class: "quiet" }, "No metrics have been written yet.");
  show(main, some.length ? el("div", { class: "charts" }, some) : empty);
}

function linesOf(panel) {
  const many = data.runs.length > 1;
  return data.runs.flatMap((run, r) =>
    panel.names.map((name, n) => ({
      points: run.metrics[name] || [],
      label: [panel.names.length > 1 && panel.labels[n], many && run.name].filter(Boolean).join(", "),
      colour: hue(many ? r : n),
      stroke: many ? n % STROKES.length : Math.floor(n / HUES) % STROKES.length,
    })),
  ).filter((line) => line.points.length);
}

function linePanel(panel) {
  const lines = linesOf(panel);
  if (!lines.length) return null;
  const steps = [...new Set(lines.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
  const values = lines.flatMap((line) => line.points.map(([, value]) => value));
  const x = scale(steps[0], steps.at(-1), EDGE.left, WIDE - EDGE.right);
  const [low, high] = range(values, panel);
  const y = scale(low, high, HIGH - EDGE.bottom, EDGE.top);
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": spoken(panel, lines) });
  picture.append(axes(x, y, ticks(low, high, 5), ticks(steps[0], steps.at(-1), 5).filter(Number.isInteger)));
  for (const line of lines) picture.append(stroke(line, x, y));
  const reading = el("div", { class: "reading" });
  follow(picture, x, steps, (step) => {
    const said = lines.map((line) => [line.label, line.points.find(([at]) => at === step)]);
    reading.textContent = step === null ? "" : `step ${step}: ` + said.filter(([, point]) => point)
      .map(([label, point]) => (label ? label + " " : "") + number(point[1])).join(", ");
  });
  const legend = legendOf(panel, lines);
  return frame(panel, legend.length ? el("div", { class: "legend" }, legend.map(swatch)) : null, picture, reading);
}

// Of several runs each colour is told once, and each stroke.
function legendOf(panel, lines) {
  if (data.runs.length === 1 || panel.names.length === 1) return lines.filter((line) => line.label);
  return [...data.runs.map((run, r) => ({ label: run.name, colour: hue(r), stroke: 0 })),
    ...panel.labels.map((label, n) => ({ label, colour: "var(--quiet)", stroke: n % STROKES.length }))];
}

function swatch({ label, colour, stroke }) {
  const line = svg("line", { x1: 0, x2: 24, y1: 5, y2: 5, "stroke-width": 2.4, "stroke-dasharray": STROKES[stroke] });
  line.style.stroke = colour;
  return el("span", {}, svg("svg", { width: 24, height: 10, "aria-hidden": "true" }, line), label);
}

function hue(n) {
  return `var(--c${n % HUES})`;
}

function frame(panel, ...inside) {
  const unit = panel.unit ? el("span", { class: "unit" }, ", " + panel.unit) : null;
  return el("section", { class: "chart" }, el("h3", {}, panel.title, unit), ...inside);
}

function spoken(panel, lines) {
  return `${panel.title}: ` + lines.map((line) => `${line.label} ${number(line.points.at(-1)[1])}`.trim()).join(", ");
}

function scale(a, b, from, to) {
  const at = (value) => (a === b ? (from + to) / 2 : from + ((value - a) / (b - a)) * (to - from));
  return Object.assign(at, { a, b, from, to });
}

function range(values, panel) {
  let low = values.reduce((a, b) => Math.min(a, b), Infinity);
  let high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (panel.low !== null) low = Math.min(low, panel.low);
  if (panel.high !== null) high = Math.max(high, panel.high);
  if (low === high) return [low - (Math.abs(low) || 1) * 0.1 * (panel.low === null), high + (Math.abs(high) || 1) * 0.1];
  const room = (high - low) * 0.05;
  return [panel.low === null ? low - room : low, panel.high === null ? high + room : high];
}

function ticks(low, high, wanted) {
  if (!(high > low)) return [low];
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

function axes(x, y, yTicks, xTicks) {
  return svg("g", {},
    yTicks.map((value) => [
      svg("line", { class: "grid", x1: x.from, x2: x.to, y1: y(value), y2: y(value) }),
      svg("text", { class: "axis", x: x.from - 5, y: y(value) + 3.5, "text-anchor": "end" }, number(value)),
    ]),
    xTicks.map((value) => svg("text", { class: "axis", x: x(value), y: HIGH - 5, "text-anchor": "middle" }, number(value))),
  );
}

function stroke(line, x, y) {
  const at = line.points.map(([step, value]) => [x(step).toFixed(1), y(value).toFixed(1)]);
  const path = svg("polyline", {
    points: at.map((point) => point.join(",")).join(" "), fill: "none", "stroke-width": 1.8,
    "stroke-linejoin": "round", "stroke-dasharray": STROKES[line.stroke], "--line-colour": line.colour,
  });
  path.style.stroke = line.colour;
  const dots = at.length < 12 ? at.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.4 })) : [];
  for (const dot of dots) dot.style.fill = line.colour;
  return svg("g", {}, path, dots);
}

function follow(picture, x, steps, read) {
  const cursor = svg("line", { class: "cursor", y1: EDGE.top, y2: HIGH - EDGE.bottom, visibility: "hidden" });
  picture.append(cursor);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDE;
    const step = steps.reduce((best, one) => (Math.abs(x(one) - at) < Math.abs(x(best) - at) ? one : best));
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(step));
    cursor.setAttribute("visibility", "visible");
    read(step);
  });
  picture.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    read(null);
  });
}

// A row for each turn, a column for each step.
function heatPanel(panel, run) {
  const names = panel.names.filter((name) => run.metrics[name]);
  if (!names.length) return null;
  const steps = [...new Set(names.flatMap((name) => run.metrics[name].map(([step]) => step)))].sort((a, b) => a - b);
  const column = new Map(steps.map((step, i) => [step, i]));
  const cells = names.flatMap((name, turn) => run.metrics[name].map(([step, value]) => ({ turn, i: column.get(step), value })));
  const low = cells.reduce((a, { value }) => Math.min(a, value), Infinity);
  const high = cells.reduce((a, { value }) => Math.max(a, value), -Infinity);
  const canvas = el("canvas", { width: steps.length, height: names.length, role: "img",
    "aria-label": `${panel.title}: from ${number(low)} to ${number(high)}` });
  const pen = canvas.getContext("2d");
  const at = new Map();
  for (const { turn, i, value } of cells) {
    pen.fillStyle = `rgb(${ramp((value - low) / (high - low || 1)).join()})`;
    pen.fillRect(i, names.length - 1 - turn, 1, 1);
    at.set(`${turn} ${i}`, value);
  }
  const reading = el("div", { class: "reading" });
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const i = Math.min(steps.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * steps.length)));
    const from = Math.floor(((event.clientY - box.top) / box.height) * names.length);
    const turn = Math.min(names.length - 1, Math.max(0, names.length - 1 - from));
    reading.textContent = `step ${steps[i]}, turn ${turn}: ${number(at.get(`${turn} ${i}`))}`;
  });
  canvas.addEventListener("pointerleave", () => { reading.textContent = ""; });
  const digits = number(low) === number(high) ? 6 : 3;
  const key = el("div", { class: "scale" }, number(low, digits), el("div", { class: "ramp", "--back": "none" }), number(high, digits));
  key.querySelector(".ramp").style.background =
    `linear-gradient(90deg, ${VIRIDIS.map((c) => `rgb(${c.join()})`).join()})`;
  return frame(panel, data.runs.length > 1 ? el("div", { class: "legend" }, run.name) : null, key,
    el("div", { class: "heat" },
      el("div", { class: "side" }, el("span", {}, "turn " + (names.length - 1)), el("span", {}, "0")), canvas,
      el("div", { class: "below" }, el("span", {}, "step " + steps[0]), el("span", {}, steps.at(-1)))),
    reading);
}

function ramp(share) {
  const at = Math.min(0.9999, Math.max(0, share)) * (VIRIDIS.length - 1);
  const [a, b] = [VIRIDIS[Math.floor(at)], VIRIDIS[Math.floor(at) + 1]];
  return a.map((value, i) => Math.round(value + (b[i] - value) * (at % 1)));
}
