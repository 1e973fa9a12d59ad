// Two runs, or two checkpoints of one, on the same task side by side.

const chosen = { left: null, right: null, task: null, sample: null, only: "" };

async function viewCompare(main) {
  show(main, el("p", { class: "quiet" }, "reading trajectories …"));
  const { rows } = await allRows();
  const places = data.runs.flatMap((run, r) => run.sources.map((source) => `${r} ${source.name}`))
    .filter((place) => rows.some((row) => placeOf(row) === place));
  if (!places.length) return show(main, el("p", { class: "quiet" }, "The run has no trajectories to compare yet."));
  [chosen.left, chosen.right] = [chosen.left, chosen.right].every((p) => places.includes(p)) ? [chosen.left, chosen.right] : furthest(places, rows);
  const sides = ["left", "right"].map((side) => byTask(rows.filter((row) => placeOf(row) === chosen[side])));
  const tasks = [...sides[0].keys()].filter((task) => sides[1].has(task)).filter((task) => keeps(sides, task));
  if (!tasks.includes(chosen.task)) chosen.task = tasks[0];
  const samples = tasks.length ? inBoth(sides.map((side) => side.get(chosen.task))) : [];
  if (!samples.includes(chosen.sample)) chosen.sample = samples[0];
  const bar = choices(places, sides, tasks, samples);
  if (!tasks.length) return show(main, bar, el("p", { class: "quiet" }, chosen.only ? "No task is in both like that."
    : "No task is in both. A training step draws tasks of its own; all evaluations of a run play the same ones."));
  const pair = sides.map((side) => side.get(chosen.task).find((row) => episodeName(row) === chosen.sample) || side.get(chosen.task)[0]);
  const told = await Promise.all(pair.map(trajectory));
  const parting = told[0].turns.findIndex((turn, k) => !told[1].turns[k] || told[1].turns[k].action !== turn.action);
  const limits = limitsOf(told);
  show(main, bar, el("h2", {}, told[0].goal), el("div", { class: "columns" }, told.map((one, i) => el("div", { class: "column" },
    el("h3", {}, el("a", { href: address("t", pair[i].run, pair[i].source, pair[i].line) }, placeName(placeOf(pair[i]))),
      el("span", { class: pair[i].won ? "good" : "bad" }, " " + result(pair[i])), ` · ${pair[i].turns} turns`),
    one.turns.map((turn, k) => turnBox(one, turn, k, limits, k === parting))))));
}

function choices(places, sides, tasks, samples) {
  const pick = (label, name, options) => choice(label, options, chosen[name], (value) => { chosen[name] = value; route(); });
  const named = places.map((place) => [place, placeName(place)]);
  const several = sides.some((side) => [...side.values()].some((played) => played.length > 1));
  return el("div", { class: "bar" }, pick("left", "left", named), pick("right", "right", named),
    pick("tasks", "only", [["", "all"], ["gained", several ? "won more often" : "lost, then won"],
      ["dropped", several ? "won less often" : "won, then lost"], ["parted", "parted in the result"]]),
    tasks.length > 0 && pick("task", "task", tasks.map((task) => [task, taskName(sides, task)])),
    samples.length > 1 && pick("sample", "sample", samples.map((name) => [name, name])),
    el("span", { class: "quiet", role: "status" }, `${number(tasks.length)} tasks in both`));
}

function placeOf(row) {
  return `${row.run} ${row.source}`;
}

function placeName(place) {
  const [run, source] = place.split(" ");
  return (data.runs.length > 1 ? data.runs[run].name + ", " : "") + sourceName(source);
}

// Without a choice: the first evaluation against the last one, or else the two that are the
// furthest apart of those that have played the same task.
function furthest(places, rows) {
  const measured = places.filter((place) => /^\d+ eval/.test(place));
  const some = measured.length > 1 ? measured : places;
  const tasks = new Map(some.map((place) => [place, new Set()]));
  for (const row of rows) tasks.get(placeOf(row))?.add(row.task);
  for (const left of some) {
    const right = some.findLast((place) => place !== left && [...tasks.get(place)].some((task) => tasks.get(left).has(task)));
    if (right) return [left, right];
  }
  return [some[0], some.at(-1)];
}

function byTask(rows) {
  const found = new Map();
  for (const row of rows) found.set(row.task, [...(found.get(row.task) || []), row]);
  return found;
}

// The episodes of a task that both sides have, by name.
function inBoth([left, right]) {
  const names = new Set(right.map(episodeName));
  return left.map(episodeName).filter((name) => names.has(name));
}

function won(rows) {
  return rows.filter((row) => row.won).length;
}

function keeps(sides, task) {
  const [before, after] = sides.map((side) => won(side.get(task)) / side.get(task).length);
  return !chosen.only || (chosen.only === "gained" ? before < after : chosen.only === "dropped" ? before > after : before !== after);
}

function taskName(sides, task) {
  const samples = sides.map((side) => side.get(task));
  if (samples.every((rows) => rows.length === 1)) return samples.map(([row]) => (row.won ? "✓" : "✗")).join("") + ` ${task}`;
  return samples.map((rows) => `${won(rows)}/${rows.length}`).join(" → ") + ` ${task}`;
}
