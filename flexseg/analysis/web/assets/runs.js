// The runs behind a number: a dialog with one seed at a time, which #run=<row>/<seed> opens too.

let runColumn = 0;
let opener = null;

const runHash = (row, seed) => `#run=${encodeURIComponent(DATA.rows[row].key)}/${DATA.seeds[seed]}`;

/** Open the runs of `row` at its seed number `seed`, with the values of `column` in the view that is shown. */
function openRun(row, seed, column) {
  runColumn = column;
  opener = document.activeElement;
  if (location.hash === runHash(row, seed)) route();
  else location.hash = runHash(row, seed);
}

/** Show what the address asks for; an address that names no run closes the dialog. */
function route() {
  const dialog = byId("run");
  const match = /^#run=([^/]+)\/(\d+)$/.exec(location.hash);
  let key = null;
  try {
    key = match && decodeURIComponent(match[1]);
  } catch {
    // A damaged address names no run.
  }
  const row = DATA.rows.findIndex((each) => each.key === key);
  const seed = match ? DATA.seeds.indexOf(Number(match[2])) : -1;
  if (row < 0 || seed < 0) {
    if (dialog.open) dialog.close();
    return;
  }
  drawRun(row, seed);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

/** Leave the address without the run and the focus where it was. */
function leaveRun() {
  if (location.hash.startsWith("#run=")) history.replaceState(null, "", location.href.split("#")[0]);
  // The table may have been drawn anew; its cell is then another element with the same place.
  const { row, column } = opener?.dataset ?? {};
  const cell = row === undefined ? opener : document.querySelector(`.cell[data-row="${row}"][data-column="${column}"]`);
  cell?.focus();
}

const pairs = (entries) =>
  el("dl", { class: "pairs" }, entries.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value))));

const mebibytes = (bytes) => (finite(bytes) ? `${number(bytes / 2 ** 20, 0)} MiB` : null);

function seedTabs(row, seed, view, column) {
  return DATA.seeds.map((name, index) => {
    const value = view.values[row][column][index];
    const status = DATA.rows[row].runs[index].status;
    const text = finite(value) ? number(value, view.quantity.digits + 1) : status === "finished" ? "no value" : status;
    const link = { href: runHash(row, index), "aria-current": index === seed ? "true" : null };
    return el("li", null, el("a", link, el("span", null, `seed ${name}`), el("strong", null, text)));
  });
}

function valueTable(row, seed, view) {
  const lines = view.columns.map((column, index) => {
    const values = view.values[row][index];
    const mean = meanOf(values);
    return el(
      "tr",
      { class: index === runColumn ? "chosen" : null },
      el("th", { scope: "row" }, column.title),
      el("td", null, number(values[seed], view.quantity.digits + 1)),
      el("td", null, `${number(mean.value, view.quantity.digits)} ± ${number(mean.half, view.quantity.digits)}`),
    );
  });
  const heads = ["", `seed ${DATA.seeds[seed]}`, "all seeds"].map((title) => el("th", { scope: "col" }, title));
  return el("table", { class: "plain" }, el("caption", null, quantityTitle(view)), el("thead", null, el("tr", null, heads)), el("tbody", null, lines));
}

function optionTable(run) {
  const options = DATA.options[run.options];
  if (!options) return el("p", { class: "note" }, "The method has no options.");
  const lines = options.map(([name, value, standard, origin, help]) =>
    el(
      "tr",
      null,
      el("th", { scope: "row" }, el("code", null, name), help ? el("span", { class: "note" }, help) : null),
      el("td", null, value, value === standard ? null : el("span", { class: "note" }, `default ${standard}`)),
      el("td", null, el("span", { class: "tag" }, value !== standard ? "set" : origin || "default")),
    ),
  );
  const heads = ["Option", "Value", "Origin"].map((title) => el("th", { scope: "col" }, title));
  return el("table", { class: "plain options" }, el("thead", null, el("tr", null, heads)), el("tbody", null, lines));
}

/** The last logged value of each term, the loss terms first. */
function lastTerms(row, seed) {
  const log = DATA.curves.rows[row][seed];
  const last = DATA.curves.terms.map((name) => [name, log.terms[name]?.findLast(finite)]).filter(([, value]) => finite(value));
  return last.map(([name, value]) => [name, number(value, curveDigits(value))]);
}

function drawRun(row, seed) {
  const view = currentView();
  const run = DATA.rows[row].runs[seed];
  runColumn = Math.min(runColumn, view.columns.length - 1);
  const title = view.columns[runColumn].title;
  byId("run-title").textContent = DATA.rows[row].title;
  const last = lastTerms(row, seed);
  const log = DATA.curves.rows[row][seed];
  const commit = run.commit && `${run.commit}${run.dirty ? " with uncommitted changes" : ""}`;
  const code = run.code && `${run.code}${run.otherCode ? " † (not today’s)" : ""}`;
  const parts = [
    el("p", { class: "lead" }, `${quantityTitle(view)} on ${title}, one value per seed`),
    el("ul", { class: "seeds" }, seedTabs(row, seed, view, runColumn)),
    run.reason ? el("p", { class: "warning" }, run.reason) : null,
    ...run.absent.map((text) => el("p", { class: "warning" }, text)),
    pairs([["Status", run.status], ["Directory", el("code", null, run.folder)], ["Method", DATA.rows[row].method],
      ["Generated data", run.generated], ["Fingerprint", run.fingerprint && el("code", null, run.fingerprint)],
      ["Commit", commit && el("code", null, commit)], ["Code digest", code && el("code", null, code)],
      ["Started", run.started], ["Finished", run.finished], ["Machine", [run.processor, run.device].filter(Boolean).join("; ")]]),
    el("h3", null, "Values"),
    valueTable(row, seed, view),
    el("h3", null, "Training"),
    pairs([["Time", finite(run.train_seconds) ? `${number(run.train_seconds, 1)} s` : null], ["Images per second", finite(run.images_per_second) ? number(run.images_per_second, 1) : null],
      ["Peak memory", mebibytes(run.peak_memory_bytes)], ["Parameters", finite(run.parameters) ? String(run.parameters) : null],
      ["Last logged", last.length ? `iteration ${log.iterations.at(-1)}` : "no training log"], ...last]),
    el("h3", null, "Configuration"),
    optionTable(run),
  ];
  byId("run-body").replaceChildren(...parts.filter(Boolean));
}

function startRuns() {
  const dialog = byId("run");
  byId("close-run").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", leaveRun);
  // A press on the backdrop, outside the box itself, closes too.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  addEventListener("hashchange", route);
  route();
}
