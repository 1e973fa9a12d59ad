// What all views share. Text is only ever put in as text: nothing a model or a game said is markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child));
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e4 || size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

function choice(label, options, value, changed) {
  const select = el("select", { onchange: () => changed(select.value), "aria-label": label });
  for (const [key, text] of options) select.append(el("option", { value: key }, text));
  select.value = value;
  return el("label", {}, label, select);
}

function tick(label, value, changed) {
  const box = el("input", { type: "checkbox", onchange: () => changed(box.checked) });
  box.checked = value;
  return el("label", {}, box, label);
}

// Where the page is: #view/part/part, each part escaped.
function address(...parts) {
  return "#" + parts.map((part) => encodeURIComponent(part)).join("/");
}

function here() {
  return location.hash.slice(1).split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  });
}

// What a page that was exported carries, a served one asks for.
async function ask(path, parameters) {
  const answer = await fetch(path + "?" + new URLSearchParams(parameters));
  if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
  return answer.json();
}

let rowsAsked = null;
function allRows() {
  rowsAsked ||= data.rows ? Promise.resolve(data.rows) : ask("rows", {});
  return rowsAsked.then(({ columns, rows, problems, left_out: leftOut }) => ({
    problems,
    leftOut,
    rows: rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]]))),
  }));
}

const asked = new Map(); // the last trajectories that were looked at
function trajectory(row) {
  const key = [row.run, row.source, row.line].join(" ");
  if (data.trajectories) return Promise.resolve(data.trajectories[key]);
  if (!asked.has(key)) {
    if (asked.size > 200) asked.delete(asked.keys().next().value);
    const found = ask("trajectory", { run: row.run, source: row.source, line: row.line });
    asked.set(key, found);
    found.catch(() => asked.delete(key));
  }
  return asked.get(key);
}

// An evaluation by itself has no step; one of several after a step names its suite.
function sourceName(name) {
  const [kind, step, ...suite] = name.split("/");
  const what = kind === "eval" ? "evaluation" : "training";
  return what + (step === undefined ? "" : ` step ${step}`) + (suite.length ? `, ${suite.join("/")}` : "");
}

function result(row) {
  return row.won ? "✓ won" : `✗ lost (${row.stop})`;
}
