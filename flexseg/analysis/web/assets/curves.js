// Training curves: what was logged, mean over seeds with their range, for the rows that the reader picks.

const STYLES = 7; // colours of page.css, --series-0 …
const DASHES = ["none", "6 3", "2 3"];
let term = DATA.curves.terms[0];
const picked = new Set([DATA.reference, ...DATA.pictures.pair.map((key) => DATA.rows.findIndex((row) => row.key === key))]);

/** Mean, smallest and largest over seeds at each iteration that a row logged `term`. */
function curveOf(row) {
  const points = new Map();
  DATA.curves.rows[row].forEach((run, seed) => {
    run.terms[term]?.forEach((value, index) => {
      if (!finite(value)) return;
      const at = run.iterations[index];
      if (!points.has(at)) points.set(at, []);
      points.get(at).push({ seed: DATA.seeds[seed], value });
    });
  });
  return [...points].sort((a, b) => a[0] - b[0]).map(([iteration, seeds]) => {
    const values = seeds.map((each) => each.value);
    return { iteration, seeds, mean: meanOf(values).value, low: Math.min(...values), high: Math.max(...values) };
  });
}

/** Decimals that tell logged values of this size apart. */
const curveDigits = (value) => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 4);

function drawCurves() {
  const holder = byId("plot-curves");
  const curves = [...picked]
    .sort((a, b) => a - b)
    .map((row, place) => ({ row, place, points: curveOf(row) }))
    .filter((curve) => curve.points.length);
  if (!curves.length) {
    holder.replaceChildren(el("p", { class: "note" }, "None of the chosen rows logged this."));
    return;
  }
  const width = widths.get(holder.id);
  const height = Math.min(420, Math.max(260, width * 0.42));
  const [left, bottom] = [58, height - 44];
  const all = curves.flatMap((curve) => curve.points);
  const x = scaleOf(all.map((point) => point.iteration), left, width - 10);
  const y = scaleOf(all.flatMap((point) => [point.low, point.high]), bottom - 4, 30);
  const plot = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, tabindex: "0", role: "img",
    "aria-label": `${term} while training. Arrow keys read values: left and right along a curve, up and down between curves.`,
  });
  plot.append(...xAxis(x, 22, bottom, width, "iteration", left), ...yAxis(y, left, width, `${term}: mean over seeds, band: their range`));
  for (const { place, points } of curves) {
    const colour = `var(--series-${place % STYLES})`;
    const path = (key) => points.map((point) => `${x.at(point.iteration).toFixed(1)},${y.at(point[key]).toFixed(1)}`);
    plot.append(svg("polygon", { class: "band", fill: colour, points: [...path("low"), ...path("high").reverse()].join(" ") }));
    plot.append(svg("polyline", { class: "curve", stroke: colour, "stroke-dasharray": DASHES[Math.floor(place / STYLES) % 3], points: path("mean").join(" ") }));
  }
  const cursor = svg("circle", { class: "cursor", r: 5, visibility: "hidden" });
  plot.append(cursor);
  readCurves(plot, cursor, curves, x, y);
  holder.replaceChildren(plot);
}

/** Hover and arrow keys: the nearest point's row, iteration, mean and seeds. */
function readCurves(plot, cursor, curves, x, y) {
  let at = { curve: 0, index: 0 };
  const show = (clientX, clientY) => {
    const curve = curves[at.curve];
    const point = curve.points[at.index];
    cursor.setAttribute("cx", x.at(point.iteration));
    cursor.setAttribute("cy", y.at(point.mean));
    cursor.setAttribute("visibility", "visible");
    const beside = () => {
      const box = plot.getBoundingClientRect();
      return [box.left + x.at(point.iteration), box.top + y.at(point.mean)];
    };
    const text = (value) => number(value, curveDigits(value));
    const lines = [
      DATA.rows[curve.row].title,
      `${term} at ${point.iteration}: ${text(point.mean)}`,
      ...point.seeds.map((each) => `seed ${each.seed}: ${text(each.value)}`),
    ];
    if (clientX === undefined) showTip(lines, ...beside(), beside);
    else showTip(lines, clientX, clientY);
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let best = Infinity;
    curves.forEach((curve, place) =>
      curve.points.forEach((point, index) => {
        const far = Math.hypot(x.at(point.iteration) - px, y.at(point.mean) - py);
        if (far < best) [best, at] = [far, { curve: place, index }];
      }),
    );
    show(event.clientX, event.clientY);
  });
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    hideTip();
  };
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("focus", () => plot.matches(":focus-visible") && show());
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    at.curve = (at.curve + step[0] + curves.length) % curves.length;
    at.index = Math.max(0, Math.min(curves[at.curve].points.length - 1, at.index + step[1]));
    show();
  });
}

/** The rows to choose from; the swatch is the curve's colour and dash. */
function drawPicker() {
  const order = [...picked].sort((a, b) => a - b);
  byId("curve-rows").replaceChildren(
    ...DATA.rows.map((row, index) => {
      const place = order.indexOf(index);
      const swatch = place >= 0 ? svg("svg", { width: 26, height: 10, "aria-hidden": "true" }) : null;
      if (swatch) {
        const stroke = `var(--series-${place % STYLES})`;
        swatch.append(svg("line", { class: "curve", x1: 1, x2: 25, y1: 5, y2: 5, stroke, "stroke-dasharray": DASHES[Math.floor(place / STYLES) % 3] }));
      }
      const toggle = (event) => {
        if (event.target.checked) picked.add(index);
        else picked.delete(index);
        drawPicker();
        drawCurves();
        byId(`curve-${index}`).focus();
      };
      return el("label", null, el("input", { type: "checkbox", id: `curve-${index}`, checked: place >= 0, onchange: toggle }), swatch, row.title);
    }),
  );
}

function startCurves() {
  if (!DATA.curves.terms.length) {
    byId("curves").hidden = true;
    return;
  }
  fillSelect(byId("curve-term"), DATA.curves.terms.map((name) => [name, name]), term, (name) => {
    term = name;
    drawCurves();
  });
  drawPicker();
}
