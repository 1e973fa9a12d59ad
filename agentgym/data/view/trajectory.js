// One trajectory as a conversation, its group beside it, its branches as a tree.

const COLOURINGS = [["", "nothing"], ["advantage", "advantage"], ["entropy", "entropy"], ["ratio", "ratio"], ["logprob", "probability"]];
let colouring = "advantage";
let sideBySide = false;

async function viewTrajectory(main, [run, source, line]) {
  show(main, el("p", { class: "quiet" }, "reading …"));
  const { rows } = await allRows();
  const row = rows.find((one) => one.run === Number(run) && one.source === source && one.line === Number(line));
  if (!row) return show(main, el("p", {}, "There is no such trajectory in this run. ", el("a", { href: "#trajectories" }, "All of them")));
  const group = rows.filter((one) => one.run === row.run && one.source === row.source && one.task === row.task);
  const shown = sideBySide ? group : [row];
  const told = await Promise.all(shown.map(trajectory));
  const columns = el("div", {});
  function paint() {
    const limits = limitsOf(told);
    const legend = el("span", { class: "scale" }, scaleOf(limits));
    show(columns, el("div", { class: "bar" }, ...controls(paint, told, group), legend),
      el("div", { class: "columns" + (shown.length > 1 ? "" : " one") },
        told.map((one, i) => conversation(one, shown[i], limits, shown.length > 1))));
  }
  show(main, leaf(row, rows), facts(told[shown.indexOf(row)], row), group.length > 1 ? tree(group, row) : null, columns);
  paint();
}

function leaf(row, rows) {
  const all = matches.length ? matches : sorted(rows.filter(passes));
  const at = all.findIndex((one) => one.run === row.run && one.source === row.source && one.line === row.line);
  const link = (to, text) => to && el("a", { href: address("t", to.run, to.source, to.line) }, text);
  return el("div", { class: "bar" }, el("a", { href: "#trajectories" }, "all trajectories"),
    at > 0 && link(all[at - 1], "← previous"), at >= 0 && link(all[at + 1], "next →"));
}

function controls(paint, told, group) {
  const known = told.some((one) => one.tokens);
  return [
    known ? choice("colour by", COLOURINGS, colouring, (value) => { colouring = value; paint(); })
      : el("span", { class: "quiet" }, "no tokens were recorded of this episode (save.token_fields)"),
    group.length > 1 && el("button", { "aria-pressed": String(sideBySide), onclick: () => { sideBySide = !sideBySide; route(); } },
      `group side by side (${group.length})`),
  ];
}

function facts(told, row) {
  const fact = (name, value, kind) => el("span", { class: kind }, el("span", { class: "quiet" }, name + " "), el("b", {}, value));
  return el("div", {}, el("h2", {}, told.goal || told.task), el("div", { class: "facts" },
    fact("task", told.task), fact("episode", episodeName(row)), fact("of", sourceName(row.source)),
    data.runs.length > 1 && fact("run", data.runs[row.run].name),
    fact("result", row.won ? "✓ won" : "✗ lost", row.won ? "good" : "bad"), fact("score", number(row.score)),
    row.return !== null && fact("return", number(row.return)), fact("stop", row.stop), fact("turns", row.turns),
    row.unparsed > 0 && fact("off the format", row.unparsed, "bad"),
    row.inadmissible > 0 && fact("unknown actions", row.inadmissible, "bad"), row.repeated > 0 && fact("repeated", row.repeated, "bad"),
    told.error && fact("error", told.error, "bad")));
}

function conversation(told, row, limits, named) {
  const title = named && el("h3", {}, el("a", { href: address("t", row.run, row.source, row.line) }, "episode " + episodeName(row)),
    el("span", { class: row.won ? "good" : "bad" }, " " + result(row)), ` · ${row.turns} turns`);
  return el("div", { class: "column" }, title, told.turns.map((turn, k) => turnBox(told, turn, k, limits)),
    told.turns.length ? null : el("p", { class: "quiet" }, "This episode has no turns."));
}

function turnBox(told, turn, k, limits, differs) {
  const shared = k < told.shared_turns;
  const tokens = told.tokens && told.tokens[k];
  const repeats = k > 0 && told.turns[k - 1].action === turn.action;
  const named = tokens && tokens.some((token) => token.text !== undefined);
  const flags = [
    tokens && !named && el("span", { class: "mono" }, turn.text),
    turn.parse_error !== null && turn.parse_error !== undefined && el("span", { class: "bad" }, "off the format: " + turn.parse_error),
    turn.admissible === false && el("span", { class: "bad" }, "the environment does not know this action"),
    repeats && el("span", { class: "bad" }, "repeats the action before"),
    turn.action !== turn.text && el("span", {}, "action: ", el("span", { class: "mono" }, turn.action || "(none)")),
    turn.reward ? el("span", { class: "good" }, "reward " + number(turn.reward)) : null,
  ].filter(Boolean);
  return el("div", { class: "turn" + (differs ? " differs" : "") + (shared ? " shared" : "") },
    el("div", { class: "number" }, "turn " + k, shared && el("span", {}, "shared with the episode it branched off from"),
      differs && el("span", {}, "here the two part")),
    el("div", { class: "observation" }, turn.observation),
    el("div", { class: "said mono" }, tokens ? tokens.map((token) => tokenSpan(token, limits)) : turn.text),
    flags.length ? el("div", { class: "flags" }, flags) : null);
}

// Tokens -----------------------------------------------------------------------------------------

function valueOf(token) {
  if (colouring === "ratio") return known(token.logprob) && known(token.behaviour_logprob) ? token.logprob - token.behaviour_logprob : null;
  if (colouring === "logprob") return known(token.behaviour_logprob) ? -token.behaviour_logprob : null;
  return known(token[colouring]) ? token[colouring] : null;
}

function known(value) {
  return value !== null && value !== undefined;
}

function limitsOf(told) {
  const values = told.flatMap((one) => (one.tokens || []).flat()).map((token) => (colouring ? valueOf(token) : null)).filter(known);
  return { size: values.reduce((a, b) => Math.max(a, Math.abs(b)), 0), some: values.length > 0 };
}

function shade(value, size) {
  const hue = colouring === "entropy" || colouring === "logprob" ? "--much" : value < 0 ? "--minus" : "--plus";
  return `rgba(var(${hue}), ${((Math.abs(value) / (size || 1)) * 0.6).toFixed(3)})`;
}

function tokenSpan(token, limits) {
  const value = colouring ? valueOf(token) : null;
  const facts = [["token", JSON.stringify(token.text ?? "")], ["id", token.ids], ["advantage", token.advantage],
    ["entropy", token.entropy], ["logprob, sampler", token.behaviour_logprob], ["logprob, before the update", token.logprob],
    ["ratio", known(token.logprob) ? Math.exp(token.logprob - token.behaviour_logprob) : null]];
  const span = el("span", { class: "token", title: facts.filter(([, v]) => known(v))
    .map(([name, v]) => `${name}: ${typeof v === "number" ? number(v, 5) : v}`).join("\n") },
    token.text === undefined ? `⟨${token.ids}⟩` : token.text.replaceAll("\n", "↵\n"));
  if (known(value)) span.style.background = shade(value, limits.size);
  return span;
}

function scaleOf({ size, some }) {
  if (!colouring || !some) return [];
  const bar = el("span", { class: "ramp" });
  const one = colouring === "entropy" || colouring === "logprob";
  const at = (value) => shade(value, size || 1);
  bar.style.background = `linear-gradient(90deg, ${one ? "transparent" : at(-(size || 1))}, ${one ? at((size || 1) / 2) : "transparent"}, ${at(size || 1)})`;
  const ends = { ratio: [number(Math.exp(-size), 6), number(Math.exp(size), 6)], logprob: ["1", number(Math.exp(-size))],
    entropy: ["0", number(size) + " nats"], advantage: [number(-size), number(size)] }[colouring];
  return [ends[0], bar, ends[1]];
}

// The group as a tree ----------------------------------------------------------------------------

const LANE = 22;

function tree(group, chosen) {
  const lanes = lanesOf(group);
  const longest = Math.max(1, ...group.map((row) => row.turns));
  const left = 80;
  const words = 24 + 7 * Math.max(...group.map((row) => ending(row).length)); // pixels, rather too many
  const room = Math.max(90, Math.min(620, document.getElementById("main").clientWidth - left - words));
  const unit = Math.min(22, room / longest);
  const width = left + longest * unit + words;
  const picture = svg("svg", { width, height: lanes.length * LANE + 16, role: "list", "aria-label": "The group: one line an episode" });
  const place = new Map(lanes.map((row, i) => [episodeName(row), i]));
  lanes.forEach((row, i) => {
    const y = 12 + i * LANE;
    const begin = left + row.shared * unit;
    const end = left + row.turns * unit;
    const from = row.parent && place.get(nameOf(...row.parent));
    const lane = svg("a", { class: "pick" + (row === chosen ? " chosen" : ""), href: address("t", row.run, row.source, row.line), role: "listitem",
      "aria-label": `episode ${episodeName(row)}, ${row.won ? "won" : "lost"}, ${row.turns} turns` },
      svg("rect", { class: "hit", x: 0, y: y - LANE / 2, width, height: LANE, fill: "transparent", rx: 4 }),
      svg("text", { x: 4, y: y + 4, "font-weight": row === chosen ? 700 : 400 }, "episode " + episodeName(row)));
    const line = svg("path", { "stroke-width": 2, fill: "none",
      d: (from === undefined || from === null ? "" : `M ${begin} ${12 + from * LANE} V ${y} `) + `M ${begin} ${y} H ${end}` });
    line.style.stroke = row.won ? "var(--good)" : "var(--quiet)";
    const dot = svg("circle", { cx: end, cy: y, r: 4 });
    dot.style.fill = row.won ? "var(--good)" : "var(--back)";
    dot.style.stroke = row.won ? "var(--good)" : "var(--bad)";
    lane.append(line, dot, svg("text", { x: end + 10, y: y + 4 }, ending(row)));
    picture.append(lane);
  });
  return el("div", { class: "group" }, picture);
}

function ending(row) {
  return `${result(row)}, ${row.turns} turns${row.parent ? `, branches off at ${row.shared}` : ""}`;
}

// Each episode stands below the one that it branched off from.
function lanesOf(group) {
  const known = new Set(group.map(episodeName));
  const children = new Map();
  for (const row of group) {
    const parent = row.parent && known.has(nameOf(...row.parent)) ? nameOf(...row.parent) : "";
    children.set(parent, [...(children.get(parent) || []), row]);
  }
  const lanes = [];
  const seen = new Set();
  const visit = (parent) => (children.get(parent) || []).forEach((row) => {
    if (seen.has(row)) return;
    seen.add(row);
    lanes.push(row);
    visit(episodeName(row));
  });
  visit("");
  return [...lanes, ...group.filter((row) => !seen.has(row))];
}
