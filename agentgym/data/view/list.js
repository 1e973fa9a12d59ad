// All trajectories, filtered and sorted. Only the rows in sight are elements.

const ROW = 28;
const COLUMNS = [
  ["run", "Run", 1.6], ["source", "Where", 1], ["won", "Result", 0.9], ["task", "Task", 2.4], ["goal", "Goal", 2.6],
  ["member", "Episode", 1.1, "number"], ["task_type", "Type", 1.6], ["score", "Score", 0.85, "number"], ["stop", "Stop", 1.35],
  ["turns", "Turns", 0.85, "number"], ["unparsed", "Off format", 1.4, "number", "turns whose text does not follow the action format"],
  ["inadmissible", "Unknown", 1.35, "number", "turns with an action that the environment does not know"],
  ["repeated", "Repeated", 1.35, "number", "turns that took the very action of the turn before"], ["return", "Return", 1.05, "number"], ["tokens", "Tokens", 1],
];
const filters = { text: "", run: "", source: "", won: "", stop: "", type: "", unparsed: false, inadmissible: false, repeated: false, tokens: false, branched: false };
const order = { by: null, down: false };
let matches = []; // the rows of the list as it was last shown, which a trajectory leafs through

async function viewList(main) {
  show(main, el("p", { class: "quiet" }, "reading trajectories …"));
  const { rows, problems, leftOut } = await allRows();
  noteOnce(problems);
  const head = el("div", { class: "row head", role: "row" });
  const body = el("div", { role: "rowgroup" });
  const table = el("div", { class: "table", role: "table", "aria-label": "Trajectories" }, head, body);
  const count = el("span", { class: "quiet", id: "count", role: "status" });
  const columns = COLUMNS.filter(([name]) => (name !== "run" || data.runs.length > 1) && (name !== "task_type" || rows.some(tellsMore)));
  const layout = columns.map(([, , width]) => `minmax(${60 * width}px, ${width}fr)`).join(" ");
  head.style.gridTemplateColumns = layout;

  function refresh() {
    matches = sorted(rows.filter(passes));
    count.textContent = `${number(matches.length)} of ${number(rows.length)}` +
      (leftOut ? `; ${number(leftOut)} more are in the run and not in this file` : "");
    show(head, columns.map(([name, title, , kind, about]) => el("span", { class: kind, title: about, role: "columnheader",
      "aria-sort": order.by === name ? (order.down ? "descending" : "ascending") : null },
      el("button", { onclick: () => { sortBy(name); refresh(); } }, title + (order.by === name ? (order.down ? " ↓" : " ↑") : "")))));
    table.scrollTop = 0;
    paint();
  }

  function paint() {
    const first = Math.max(0, Math.floor(table.scrollTop / ROW) - 10);
    const last = Math.min(matches.length, first + Math.ceil(table.clientHeight / ROW) + 20);
    body.style.height = matches.length * ROW + "px";
    body.style.position = "relative";
    show(body, matches.length ? matches.slice(first, last).map((row, i) => item(row, columns, layout, first + i))
      : el("div", { class: "empty" }, rows.length ? "No trajectory is like that." : "The run has no trajectories yet."));
  }

  table.addEventListener("scroll", () => requestAnimationFrame(paint));
  show(main, filterBar(rows, refresh, count), table);
  refresh();
}

function filterBar(rows, refresh, count) {
  const set = (name) => (value) => { filters[name] = value; refresh(); };
  const some = (label, name, values, text = (v) => v) => values.length < 2 ? null
    : choice(label, [["", "all"], ...values.map((v) => [String(v), text(v)])], filters[name], set(name));
  const distinct = (name) => [...new Set(rows.map((row) => row[name]))].sort();
  const bySource = data.runs.flatMap((run) => run.sources.map((source) => source.name));
  const search = el("input", { type: "search", placeholder: "task or goal", value: filters.text, "aria-label": "Task or goal",
    oninput: () => set("text")(search.value) });
  return el("div", { class: "bar" }, search,
    some("run", "run", data.runs.map((_, i) => i), (i) => data.runs[i].name),
    some("where", "source", [...new Set(bySource)], sourceName),
    choice("result", [["", "all"], ["1", "won"], ["0", "not won"]], filters.won, set("won")),
    some("stop", "stop", distinct("stop")), some("type", "type", distinct("task_type")),
    tick("off the format", filters.unparsed, set("unparsed")), tick("unknown action", filters.inadmissible, set("inadmissible")),
    tick("repeated action", filters.repeated, set("repeated")),
    tick("tokens", filters.tokens, set("tokens")), tick("branched", filters.branched, set("branched")), count);
}

function passes(row) {
  const text = filters.text.toLowerCase();
  return (!text || row.task.toLowerCase().includes(text) || row.goal.toLowerCase().includes(text)) &&
    (!filters.run || row.run === Number(filters.run)) && (!filters.source || row.source === filters.source) &&
    (!filters.won || row.won === (filters.won === "1")) && (!filters.stop || row.stop === filters.stop) &&
    (!filters.type || row.task_type === filters.type) && (!filters.unparsed || row.unparsed > 0) &&
    (!filters.inadmissible || row.inadmissible > 0) && (!filters.repeated || row.repeated > 0) && (!filters.tokens || row.tokens) && (!filters.branched || row.parent !== null);
}

// Most tasks are named by their type, which is then no column of its own.
function tellsMore(row) {
  return row.task_type && !row.task.startsWith(row.task_type);
}

// Upwards, downwards, and as they came.
function sortBy(name) {
  if (order.by !== name) Object.assign(order, { by: name, down: false });
  else if (!order.down) order.down = true;
  else Object.assign(order, { by: null, down: false });
}

function sorted(rows) {
  if (order.by === null) return rows;
  const sign = order.down ? -1 : 1;
  const key = (row) => (order.by === "source" ? Number(row.source.split("/")[1] || 0) : row[order.by]);
  return [...rows].sort((a, b) => sign * (key(a) > key(b) ? 1 : key(a) < key(b) ? -1 : 0));
}

function item(row, columns, layout, index) {
  const cells = { ...row, run: data.runs[row.run].name, source: row.source.replace("/", " "), member: episodeName(row),
    won: row.won ? "✓ won" : "✗ lost", score: number(row.score), return: number(row.return), tokens: row.tokens ? "yes" : "" };
  const link = el("a", { class: "row item", role: "row", href: address("t", row.run, row.source, row.line), title: row.goal },
    columns.map(([name, , , kind]) => el("span", { role: "cell",
      title: name === "task" ? row.task : null,
      class: [kind, name === "task" && "tail", name === "won" && (row.won ? "good" : "bad")].filter(Boolean).join(" ") || null }, name === "task" ? el("bdi", {}, row.task) : cells[name])));
  link.style.top = index * ROW + "px";
  link.style.gridTemplateColumns = layout;
  return link;
}

function episodeName(row) {
  return nameOf(row.member, row.branch);
}

function nameOf(member, branch) {
  return branch ? `${member}.${branch}` : String(member);
}
