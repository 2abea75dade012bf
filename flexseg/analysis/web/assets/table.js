// The results table: sorting, filtering, means or differences; a cell opens the runs behind it.

/** Sorting cycles best first → worst first → the benchmark's order. */
function sortBy(column, bestIsHigh) {
  const current = state.sort;
  if (!current || current.column !== column) choose({ sort: { column, descending: bestIsHigh } });
  else if (current.descending === bestIsHigh) choose({ sort: { column, descending: !bestIsHigh } });
  else choose({ sort: null });
}

function headCell(title, note, column, bestIsHigh, extra) {
  const active = state.sort?.column === column;
  const order = active ? (state.sort.descending ? "descending" : "ascending") : "none";
  const mark = active ? (state.sort.descending ? "▼" : "▲") : "";
  const button = el(
    "button",
    { type: "button", title: note || null, onclick: () => sortBy(column, bestIsHigh), "data-sort": column },
    title,
    el("span", { class: "mark", "aria-hidden": "true" }, mark),
  );
  return el("th", { scope: "col", "aria-sort": order, ...extra }, button);
}

function meanCell(mean, digits) {
  if (!mean.n) return [el("span", { class: "none" }, DASH)];
  return [
    el("span", { class: "value" }, number(mean.value, digits)),
    el("span", { class: "half" }, `± ${number(mean.half, digits)}`),
    mean.n < DATA.seeds.length ? el("sup", { title: `${mean.n} of ${DATA.seeds.length} seeds` }, `\u00a0n=${mean.n}`) : null,
  ];
}

function differenceCell(difference, digits) {
  if (difference === null) return [el("span", { class: "none" }, "reference")];
  if (!difference.n) return [el("span", { class: "none" }, DASH)];
  return [
    el(difference.shown ? "strong" : "span", { class: "value" }, number(difference.value, digits, true)),
    el("span", { class: "half" }, `${bracket(difference.low, difference.high, digits)}`),
  ];
}

function bodyRow(view, row, digits, first) {
  const { title, notes } = DATA.rows[row];
  const head = el(
    "th",
    { scope: "row" },
    el("button", { type: "button", class: "name", onclick: () => openRun(row, 0, view.overview ? DATA.main : 0) }, rowTitle(row)),
    row === state.reference && state.mode === "differences" ? el("span", { class: "tag" }, "reference") : null,
    notes.map((note) => el("span", { class: "note" }, note)),
  );
  const cells = view.columns.map((column, index) => {
    const mean = cellOf(view, row, index);
    const content =
      state.mode === "values" ? meanCell(mean, digits) : differenceCell(differenceOf(view, row, index), digits);
    const button = el(
      "button",
      {
        type: "button",
        class: "cell",
        tabindex: first && index === 0 ? "0" : "-1",
        "data-row": row,
        "data-column": index,
        "aria-label": `${title}, ${column.title}: ${content.map((part) => part?.textContent ?? "").join("")}. Show the runs`,
        onclick: () => openRun(row, 0, index),
      },
      content,
    );
    return el("td", { class: column.average ? "average" : null }, button);
  });
  const published = publishedShown(view) ? DATA.published.values[row] : [];
  cells.push(...published.map((value) => el("td", { class: "published" }, number(value, 2))));
  return el("tr", { "data-key": DATA.rows[row].key, class: row === DATA.reference ? "reference" : null }, head, cells);
}

/** Published numbers are averages of mIoU: they are shown beside nothing else. */
const publishedShown = (view) => DATA.published !== null && view.overview && view.quantity.name === "mIoU" && state.mode === "values";

function captionOf(view) {
  const seeds = DATA.seeds.length;
  const what = `${quantityTitle(view)}${view.quantity.description ? `: ${view.quantity.description}` : ""}.`;
  const better = view.quantity.higher ? "Higher is better." : "Lower is better.";
  if (state.mode === "values") return `${what} ${better} Mean over ${seeds} seed${seeds === 1 ? "" : "s"} ± half width of the 95 % t-interval over seeds.`;
  const against = `Paired difference to “${DATA.rows[state.reference].title}”.`;
  const how = resampled(view)
    ? "The 95 % interval is over seeds and test images. Bold: it excludes zero, for a single target after Holm over the targets."
    : "The 95 % interval is a t-interval over the common seeds alone, computed in this page and not adjusted for several comparisons. Bold: it excludes zero.";
  return `${what} ${better} ${against} ${how}`;
}

function drawTable() {
  const view = currentView();
  const digits = view.quantity.digits;
  const rows = shownRows(view);
  const beside = publishedShown(view) ? DATA.published : null;
  const bestIsHigh = view.quantity.higher;
  const heads = view.columns.map((column, index) =>
    headCell(column.title, column.note, index, bestIsHigh, { class: column.average ? "average" : null }),
  );
  const published = (beside?.columns ?? []).map((name, index) =>
    headCell(name, beside.heading, `published/${index}`, true, { class: "published" }),
  );
  const groups = beside
    ? el(
        "tr",
        { class: "groups" },
        el("td"),
        el("th", { scope: "colgroup", colspan: view.columns.length }, `measured: ${DATA.title}`),
        el("th", { scope: "colgroup", colspan: beside.columns.length, class: "published" }, beside.heading),
      )
    : null;
  const head = el("thead", null, groups, el("tr", null, headCell("Row", "", "row", false), heads, published));
  const body = el("tbody", null, rows.map((row, place) => bodyRow(view, row, digits, place === 0)));
  if (!rows.length) body.append(el("tr", null, el("td", { colspan: view.columns.length + 1, class: "empty" }, "No row matches the filter.")));
  body.addEventListener("keydown", moveInTable);
  const table = byId("table");
  const focused = document.activeElement?.closest?.("#table [data-sort]")?.dataset.sort;
  table.replaceChildren(el("caption", null, captionOf(view)), head, body);
  // Drawing anew must not lose the place of someone who sorts by keyboard.
  if (focused !== undefined) table.querySelector(`[data-sort="${focused}"]`)?.focus();
  byId("count").textContent = `${rows.length} of ${DATA.rows.length} rows`;
  byId("quantity").disabled = !view.overview;
}

/** Arrow keys walk over the cells; only one cell is a tab stop. */
function moveInTable(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const cell = event.target.closest(".cell");
  if (!step || !cell) return;
  const lines = [...byId("table").tBodies[0].rows];
  const line = lines.indexOf(cell.closest("tr")) + step[0];
  const next = lines[line]?.querySelectorAll(".cell")[Number(cell.dataset.column) + step[1]];
  if (!next) return;
  event.preventDefault();
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function startTable() {
  const views = [["overview", "Targets and averages"], ...DATA.slices.map((slice) => [slice.key, slice.title])];
  fillSelect(byId("view"), views, state.view, (view) => choose({ view, sort: null, plotColumn: view === "overview" ? DATA.main : 0 }));
  const names = DATA.quantities.map((each) => [each.name, each.unit ? `${each.name} (${each.unit})` : each.name]);
  fillSelect(byId("quantity"), names, state.quantity, (quantity) => choose({ quantity, sort: null }));
  const rows = DATA.rows.map((row, index) => [String(index), row.title]);
  fillSelect(byId("reference"), rows, state.reference, (value) => choose({ reference: Number(value) }));
  byId("filter").addEventListener("input", (event) => choose({ filter: event.target.value }));
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.addEventListener("change", () => choose({ mode: input.value }));
  }
  listeners.push(drawTable);
}
