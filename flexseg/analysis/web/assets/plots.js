// Dot plots of the table's rows: means with intervals and every seed, and differences to the reference.

const LINE = 30; // height of a row of a plot, px
const NARROW = 560; // below this width row titles stand above their lines

/** The width of each plot's place, px: read together, since each reading after a change lays the page out anew. */
const widths = new Map();

function measure() {
  for (const holder of document.querySelectorAll(".plot")) widths.set(holder.id, Math.max(280, holder.clientWidth));
}

/** A linear scale from [low, high] to [start, end] px, padded by 4 %. */
function scaleOf(values, start, end, include = []) {
  const all = [...values.filter(finite), ...include];
  let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.04;
  [low, high] = [low - pad, high + pad];
  const at = (value) => start + ((value - low) / (high - low)) * (end - start);
  return { low, high, at };
}

/** Vertical grid lines with numbers at the bottom. */
function xAxis(scale, top, bottom, width, title, left) {
  const { values, digits } = ticks(scale.low, scale.high, Math.max(4, Math.floor((width - left) / 70)));
  return [
    ...values.map((value) => svg("line", { class: "grid", x1: scale.at(value), x2: scale.at(value), y1: top, y2: bottom })),
    ...values.map((value) => svg("text", { class: "tick", x: scale.at(value), y: bottom + 16, "text-anchor": "middle" }, number(value, digits))),
    svg("text", { class: "axis", x: (left + width) / 2, y: bottom + 34, "text-anchor": "middle" }, title),
  ];
}

/** Horizontal grid lines with numbers at the left. */
function yAxis(scale, left, right, title) {
  const { values, digits } = ticks(scale.low, scale.high, 5);
  return [
    ...values.map((value) => svg("line", { class: "grid", x1: left, x2: right, y1: scale.at(value), y2: scale.at(value) })),
    ...values.map((value) => svg("text", { class: "tick", x: left - 8, y: scale.at(value) + 4, "text-anchor": "end" }, number(value, digits))),
    svg("text", { class: "axis", x: 0, y: 12 }, title),
  ];
}

/** A title cut to what fits in `width` px of 13 px type. */
function shorten(text, width) {
  const most = Math.max(4, Math.floor(width / 7));
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

/**
 * One line per row: an interval and a dot, and small dots for `seeds`.
 * `lines`: {row, title, value, low, high, filled, seeds: [{seed, value}], tip: [text]}
 */
function dotPlot(holder, lines, title, marks) {
  const width = widths.get(holder.id);
  const narrow = width < NARROW;
  const left = narrow ? 4 : Math.min(270, width * 0.4);
  const step = narrow ? LINE + 12 : LINE;
  const bottom = 8 + lines.length * step;
  const values = lines.flatMap((line) => [line.value, line.low, line.high, ...line.seeds.map((each) => each.value)]);
  const scale = scaleOf(values, left + 8, width - 10, marks.map((mark) => mark.value).filter(finite));
  const plot = svg("svg", { viewBox: `0 0 ${width} ${bottom + 42}`, width, height: bottom + 42, role: "group", "aria-label": title });
  plot.append(...xAxis(scale, 4, bottom, width, title, left));
  for (const mark of marks.filter((each) => finite(each.value))) {
    plot.append(svg("line", { class: "mark-line", x1: scale.at(mark.value), x2: scale.at(mark.value), y1: 4, y2: bottom }));
  }
  lines.forEach((line, place) => {
    const y = 8 + place * step + (narrow ? step - 13 : step / 2);
    const label = { class: "label", x: narrow ? 0 : left - 4, y: narrow ? y - 13 : y + 4, "text-anchor": narrow ? "start" : "end" };
    plot.append(svg("text", label, shorten(line.title, narrow ? width : left - 8)));
    if (!finite(line.value)) {
      const why = svg("text", { class: "tick", x: left + 12, y: y + 4 }, shorten(line.why, width - left - 16));
      plot.append(addTip(why, () => [line.title, line.why]));
      return;
    }
    const group = svg("g", { class: "dot" });
    group.append(svg("rect", { class: "hit", x: left, y: y - step / 2, width: width - left, height: step }));
    if (finite(line.low)) group.append(svg("line", { class: "interval", x1: scale.at(line.low), x2: scale.at(line.high), y1: y, y2: y }));
    for (const each of line.seeds) group.append(svg("circle", { class: "seed", cx: scale.at(each.value), cy: y, r: 3 }));
    group.append(svg("circle", { class: line.filled ? "mean" : "mean hollow", cx: scale.at(line.value), cy: y, r: 5 }));
    plot.append(addTip(group, () => line.tip));
  });
  holder.replaceChildren(plot);
}

/** Why a row has no value, from its runs. */
function whyMissing(row) {
  const reasons = new Set(DATA.rows[row].runs.map((run) => run.reason || run.absent[0]).filter(Boolean));
  return [...reasons].join("; ") || "no value";
}

/** The filtered rows of the table in its order: means, every seed, and the difference to the reference. */
function drawDots() {
  const view = currentView();
  const digits = view.quantity.digits + 1;
  const column = Math.min(Number(state.plotColumn), view.columns.length - 1);
  const rows = shownRows(view);
  const columns = view.columns.map((each, index) => [String(index), each.title]);
  fillSelect(byId("plot-column"), columns, column);
  const means = rows.map((row) => {
    const mean = cellOf(view, row, column);
    const seeds = DATA.seeds.map((seed, index) => ({ seed, value: view.values[row][column][index] })).filter((each) => finite(each.value));
    const tip = [
      rowTitle(row),
      `${view.columns[column].title}: ${number(mean.value, digits)} ± ${number(mean.half, digits)} (n = ${mean.n})`,
      ...seeds.map((each) => `seed ${each.seed}: ${number(each.value, digits)}`),
    ];
    const [low, high] = mean.half === null ? [null, null] : [mean.value - mean.half, mean.value + mean.half];
    return { title: rowTitle(row), value: mean.value, low, high, filled: true, seeds, tip, why: whyMissing(row) };
  });
  const reference = meanOf(view.values[state.reference][column]).value;
  const what = `${quantityTitle(view)}, ${view.columns[column].title}`;
  dotPlot(byId("plot-means"), means, what, [{ value: reference }]);
  const differences = rows
    .filter((row) => row !== state.reference)
    .map((row) => {
      const difference = differenceOf(view, row, column);
      const tip = [
        rowTitle(row),
        `difference ${number(difference.value, digits, true)} ${bracket(difference.low, difference.high, digits)} (n = ${difference.n})`,
        ...(difference.p === null ? [] : [`p = ${number(difference.p, 4)}${view.columns[column].average ? "" : " after Holm"}`]),
      ];
      return { ...difference, title: rowTitle(row), filled: difference.shown, seeds: [], tip, why: "no common seed" };
    });
  dotPlot(byId("plot-differences"), differences, `Difference to “${DATA.rows[state.reference].title}”`, [{ value: 0 }]);
  byId("plot-note").textContent =
    "Dot and line: mean and 95 % interval over seeds; small dots: seeds; dashed: the reference. Differences: filled where one was shown" +
    (resampled(view) ? "; intervals over seeds and test images." : "; t-intervals over common seeds alone, not adjusted for several comparisons.");
}

let cost = DATA.costs[0][0];

/** Cost of a run against the chosen column, means over finished seeds. */
function drawCost() {
  const view = currentView();
  const column = Math.min(Number(state.plotColumn), view.columns.length - 1);
  const [key, title, factor] = DATA.costs.find((each) => each[0] === cost);
  const points = shownRows(view)
    .map((row) => {
      const runs = DATA.rows[row].runs.filter((run) => run.status === "finished" && finite(run[key]));
      const x = meanOf(runs.map((run) => run[key] * factor)).value;
      return { row, x, y: meanOf(view.values[row][column]).value };
    })
    .filter((point) => finite(point.x) && finite(point.y));
  const holder = byId("plot-cost");
  if (!points.length) {
    holder.replaceChildren(el("p", { class: "note" }, "No finished run recorded this."));
    return;
  }
  const width = widths.get(holder.id);
  const height = Math.min(420, Math.max(280, width * 0.5));
  const [left, bottom] = [46, height - 44];
  const x = scaleOf(points.map((point) => point.x), left + 14, width - 14);
  const y = scaleOf(points.map((point) => point.y), bottom - 8, 30);
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `${title} against ${quantityTitle(view)}` });
  plot.append(...xAxis(x, 22, bottom, width, title, left), ...yAxis(y, left, width, `${quantityTitle(view)}, ${view.columns[column].title}`));
  const taken = points.map((point) => ({ x: x.at(point.x) - 6, y: y.at(point.y) - 6, w: 12, h: 12 }));
  for (const point of points) {
    const [cx, cy] = [x.at(point.x), y.at(point.y)];
    const tip = () => [rowTitle(point.row), `${title}: ${number(point.x, key === "parameters" ? 3 : 0)}`, `${quantityTitle(view)}: ${number(point.y, 2)}`];
    plot.append(addTip(svg("circle", { class: point.row === state.reference ? "mean hollow" : "mean", cx, cy, r: 5.5 }), tip));
    const label = placeLabel(shorten(DATA.rows[point.row].title, 230), cx, cy, taken, width);
    if (label) plot.append(svg("text", { class: "label small", x: label.x, y: label.y }, label.text));
  }
  holder.replaceChildren(plot);
}

/** Where a label fits beside a point without covering what is `taken`; null if nowhere (hovering still tells). */
function placeLabel(text, cx, cy, taken, width) {
  const w = text.length * 6.8;
  const h = 13;
  const spots = [[9, -6], [-9 - w, -6], [-w / 2, -22], [-w / 2, 9], [8, -19], [8, 7], [-8 - w, -19], [-8 - w, 7]];
  for (const [dx, dy] of spots) {
    const box = { x: cx + dx, y: cy + dy, w, h };
    const free = taken.every((o) => box.x + w < o.x || o.x + o.w < box.x || box.y + h < o.y || o.y + o.h < box.y);
    if (free && box.x > 48 && box.x + w < width && box.y > 16) {
      taken.push(box);
      return { text, x: box.x, y: box.y + 10 };
    }
  }
  return null;
}

function startPlots() {
  byId("plot-column").addEventListener("change", (event) => choose({ plotColumn: event.target.value }));
  fillSelect(byId("cost"), DATA.costs.map(([key, title]) => [key, title]), cost, (key) => {
    cost = key;
    drawCost();
  });
  listeners.push(drawDots, drawCost);
}
