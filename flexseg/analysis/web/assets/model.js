// The data, the reader's choices, and the statistics that follow from both.

const DATA = JSON.parse(byId("data").textContent);

/** What the reader chose; every part of the page draws itself from it. */
const state = {
  view: "overview", // "overview", or the key of a slice: conditions or classes of a target
  quantity: DATA.quantities[0].name,
  mode: "values", // or "differences"
  reference: DATA.reference,
  filter: "",
  sort: null, // null, or { column: number | "row" | "published/<n>", descending: boolean }
  plotColumn: DATA.main,
};
const listeners = [];

/** Change choices and draw again. */
function choose(changes) {
  Object.assign(state, changes);
  for (const listener of listeners) listener();
}

/** Mean over seeds with the half width of its 95 % t-interval (null for one seed), as `statistics.t_interval`. */
function meanOf(values) {
  const kept = values.filter(finite);
  const n = kept.length;
  if (!n) return { value: null, half: null, n };
  const value = kept.reduce((sum, each) => sum + each, 0) / n;
  if (n === 1) return { value, half: null, n };
  const variance = kept.reduce((sum, each) => sum + (each - value) ** 2, 0) / (n - 1);
  return { value, half: (DATA.quantiles[n - 1] * Math.sqrt(variance)) / Math.sqrt(n), n };
}

/** A cell of the table: over seeds; of one network from elsewhere over the test images, where that was computed. */
function cellOf(view, row, column) {
  const mean = meanOf(view.values[row][column]);
  const halves = DATA.rows[row].halves;
  if (halves === null) return mean;
  return { ...mean, half: view.overview ? halves[view.quantity.name][column] : null };
}

/** The view that is shown: its columns, and what its numbers are. */
function currentView() {
  const slice = DATA.slices.find((each) => each.key === state.view);
  if (slice) {
    const quantity = { name: slice.quantity, unit: "%", digits: 1, higher: true, description: "" };
    return { overview: false, title: slice.title, columns: slice.columns, values: slice.values, quantity };
  }
  const quantity = DATA.quantities.find((each) => each.name === state.quantity);
  return { overview: true, title: "Targets and averages", columns: DATA.columns, values: DATA.values[quantity.name], quantity };
}

/** Whether differences in this view have the intervals over seeds and images that were computed beforehand. */
const resampled = (view) => view.overview && state.reference === DATA.reference;

/**
 * The difference of `row` to the chosen reference: {value, low, high, p, n, shown}, or null for the reference itself.
 * Other than the resampled ones, it is the mean of the seeds' differences with a t-interval over seeds alone.
 */
function differenceOf(view, row, column) {
  if (row === state.reference) return null;
  if (resampled(view)) {
    const [value, low, high, p, n, shown] = DATA.differences[view.quantity.name][row][column];
    return { value, low, high, p, n, shown };
  }
  const other = view.values[state.reference][column];
  const own = view.values[row][column];
  const { value, half, n } = meanOf(own.map((each, seed) => (finite(each) && finite(other[seed]) ? each - other[seed] : null)));
  if (half === null) return { value, low: null, high: null, p: null, n, shown: false };
  return { value, low: value - half, high: value + half, p: null, n, shown: value - half > 0 || value + half < 0 };
}

/** `mIoU (%)` */
const quantityTitle = (view) => view.quantity.name + (view.quantity.unit ? ` (${view.quantity.unit})` : "");

/** Row numbers that pass the text filter, in the order of the chosen sorting. Every word must occur. */
function shownRows(view) {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = DATA.rows
    .map((row, index) => index)
    .filter((index) => {
      const row = DATA.rows[index];
      const text = `${row.title} ${row.key} ${row.method}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
  if (!state.sort) return rows;
  const { column, descending } = state.sort;
  const key = (row) => {
    if (column === "row") return DATA.rows[row].title.toLowerCase();
    if (typeof column === "string") return DATA.published.values[row][Number(column.split("/")[1])];
    if (state.mode === "values") return meanOf(view.values[row][column]).value;
    return row === state.reference ? 0 : differenceOf(view, row, column).value;
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing stays last
    const order = x < y ? -1 : x > y ? 1 : 0;
    return descending ? -order : order;
  };
  return rows.sort(compare);
}

/** `Title` of a row, with † if other code than today's made it. */
const rowTitle = (row) => DATA.rows[row].title + (DATA.rows[row].otherCode.length ? "\u00a0†" : "");
