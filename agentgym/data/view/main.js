// What the run is, and which view is shown.

function viewAbout(main) {
  const list = (table) => el("dl", { class: "mono" }, Object.entries(table).map(([name, value]) =>
    [el("dt", {}, name), el("dd", {}, typeof value === "string" ? value : JSON.stringify(value))]));
  show(main, data.runs.map((run) => el("section", {}, el("h2", {}, run.name), el("p", { class: "quiet" }, run.title),
    el("h3", {}, "configuration"), list(run.config), el("h3", {}, "made with"), list(run.about))));
}

const VIEWS = { curves: viewCurves, trajectories: viewList, t: viewTrajectory, compare: viewCompare, about: viewAbout };
const TABS = [["curves", "Curves"], ["trajectories", "Trajectories"], ["compare", "Compare"], ["about", "About"]];
const noted = new Set();

function noteOnce(problems) {
  const notes = document.getElementById("notes");
  for (const problem of problems || []) {
    if (!noted.has(problem)) notes.append(el("div", { class: "note" }, problem));
    noted.add(problem);
  }
}

// An evaluation by itself has no curves to speak of.
function first() {
  const sources = data.runs.flatMap((run) => run.sources);
  return sources.length && sources.every((source) => source.name === "eval") ? "trajectories" : "curves";
}

async function route() {
  const main = document.getElementById("main");
  const page = el("div"); // what is read for a page that was left is painted where nobody sees it
  show(main, page);
  const [view, ...rest] = here();
  const name = VIEWS[view] ? view : first();
  const tab = name === "t" ? "trajectories" : name;
  show(document.getElementById("tabs"), TABS.map(([to, title]) =>
    el("a", { href: "#" + to, "aria-current": to === tab ? "page" : null }, title)));
  try {
    await VIEWS[name](page, rest);
  } catch (error) {
    show(page, el("p", { class: "bad" }, "This could not be shown: " + error.message));
  }
  if (page.isConnected) main.dataset.shown = location.hash || "#";
}

document.getElementById("title").textContent = data.runs.map((run) => run.title).join(" · ");
noteOnce(data.runs.flatMap((run) => run.problems));
addEventListener("hashchange", route);
route();
