"use strict";
// Filters that the plots and the table share; they stand in the address, so that a view can be sent to somebody.

const FILTERS = ["model", "family", "needs", "realisation", "steps", "find", "front", "kept", "cost", "highlight"];

function passes(row, form, cost) {
  const steps = form.steps.value, find = form.find.value.trim().toLowerCase();
  if (["model", "family", "needs", "realisation"].some((key) => form[key].value && row[key] !== form[key].value)) return false;
  if (steps && (row.steps === null || row.steps > Number(steps))) return false;
  if (form.front.checked && !row.pareto.split(" ").includes(cost.front)) return false;
  if (form.kept.checked && !(row.delta_points >= 0 || row.p_adjusted >= 0.05) || form.kept.checked && row.delta_points === null) return false;
  return !find || row.method.toLowerCase().includes(find) || row.setting.toLowerCase().includes(find);
}

class Explorer {
  constructor(section) {
    this.section = section;
    this.data = readPayload(section.querySelector(".payload"));
    this.fields = {};
    for (const field of section.querySelectorAll("select[name], input[name]")) this.fields[field.name] = field;
    this.colour = section.dataset.colour;
    this.costs = costs(this.data);
    this.comparisons = comparisons(this.data);
    this.fill();
    this.readAddress();
    const alone = ["model", "method"].filter((key) => distinct(this.data.rows, key).length < 2);
    this.table = makeTable(section.querySelector("table.rows"), this.data, this.fields.model.value ? [...alone, "model"] : alone.filter((key) => key !== "method"));
    this.table.search.fixed("filters", (_text, row) => this.shown.has(row.index));
    this.listen();
    this.update();
  }

  fill() {
    for (const key of ["model", "family", "needs", "realisation"]) {
      const values = distinct(this.data.rows, key);
      fillSelect(this.fields[key], values);
      this.fields[key].closest("label").hidden = values.length < 2;
    }
    fillSelect(this.fields.highlight, distinct(this.data.rows, "method"));
    this.fields.highlight.closest("label").hidden = this.colour === "model";
    this.costs.forEach((cost, index) => this.fields.cost.append(make("option", { value: cost.front, textContent: cost.label, selected: index === 0 })));
    this.comparisons.forEach((pair, index) => this.fields.compare.append(make("option", { value: String(index), textContent: pair.label })));
    if (!("allModels" in this.section.dataset)) this.fields.model.value = this.data.rows[0]?.model ?? "";
  }

  readAddress() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      const field = FILTERS.includes(name) ? this.fields[name] : undefined;
      if (!field) continue;
      if (field.type === "checkbox") field.checked = value === "1";
      else if (field.tagName === "INPUT" || [...field.options].some((option) => option.value === value)) field.value = value;
    }
  }

  writeAddress() {
    const parts = new URLSearchParams();
    for (const name of FILTERS) {
      const field = this.fields[name], value = field.type === "checkbox" ? (field.checked ? "1" : "") : field.value;
      if (value || name === "model") parts.set(name, value);
    }
    history.replaceState(null, "", `#${parts}`);
  }

  listen() {
    let waiting = 0;
    const changed = (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { this.update(event.target.name); this.writeAddress(); }, event.target.type === "search" ? 150 : 0);
    };
    for (const form of this.section.querySelectorAll("form")) {
      form.addEventListener("input", changed);
      form.addEventListener("submit", (event) => event.preventDefault());
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    let width = window.innerWidth;
    window.addEventListener("resize", () => { if (width !== window.innerWidth) { width = window.innerWidth; this.draw(); } });
  }

  get cost() {
    return this.costs.find((cost) => cost.front === this.fields.cost.value) ?? this.costs[0];
  }

  update(name) {
    const rows = this.data.rows.filter((row) => passes(row, this.fields, this.cost));
    this.rows = rows;
    this.shown = new Set(rows.map((row) => row.index));
    this.section.querySelector(".count").textContent = `${rows.length.toLocaleString("en")} of ${this.data.rows.length.toLocaleString("en")} rows pass these filters.`;
    if (name === "model" && screenLevel() > 1) this.table.column(this.data.columns.findIndex((column) => column.key === "model")).visible(!this.fields.model.value);
    this.table.draw();
    this.draw();
  }

  draw() {
    const { near, intervals, highlight, compare } = this.fields, pair = this.comparisons[Number(compare.value)];
    const accuracy = this.section.querySelector(".accuracy"), theory = this.section.querySelector(".theory");
    const rows = drawn(this.rows), note = this.section.querySelector(".sample");
    note.hidden = rows.length === this.rows.length;
    note.textContent = `The plots draw ${rows.length.toLocaleString("en")} of these rows: the fronts, dense and a sample of the others. Filter to see all.`;
    accuracyPlot(accuracy, this.data, rows, { cost: this.cost, colour: this.colour, near: near.checked, intervals: intervals.checked, highlight: highlight.value });
    theory.closest("figure").hidden = !pair;
    if (pair) theoryPlot(theory, this.data, rows, pair, this.colour);
    if (this.listening) return;
    for (const plot of pair ? [accuracy, theory] : [accuracy]) plot.on("plotly_click", (event) => this.open(event.points[0]));
    this.listening = true;
  }

  open(point) {
    if (typeof point.customdata === "number") openRecord(this.data, this.data.rows[point.customdata]);
  }
}
