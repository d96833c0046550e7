"use strict";
// "I have this model and may lose some accuracy: what makes it smallest or fastest?" The same rule as `shrinkmark recommend`.

const TOP = 5;
const VERDICTS = ["faster", "tie", "slower"]; // best first; any other says why a row has no time of its own
const TIMED = "Faster than dense first, then ties within the noise of the clock, then slower. "
  + "Not listed: masked rows, dense's own program with other weights, what was not timed. ";
const points = (drop) => `${drop} ${drop === 1 ? "point" : "points"}`;

// The rows of a model that lose at most `drop` points; dense itself has no difference from dense.
function qualifying(data, model, drop) {
  return data.rows.filter((row) => row.model === model && row.delta_points !== null && row.delta_points >= -drop);
}

// The rows that have a gain, best first: of speed-ups the better verdict, then the larger gain, of equals the more accurate.
function ranked(rows, key) {
  const verdict = key.replace(/^speedup_/, "verdict_"), place = (row) => (verdict === key ? 0 : VERDICTS.indexOf(row[verdict]));
  const order = (a, b) => place(a) - place(b) || b[key] - a[key] || b.accuracy_percent - a.accuracy_percent;
  return rows.filter((row) => row[key] !== null && place(row) >= 0).sort(order);
}

class Question {
  constructor(section, tables) {
    this.tables = tables;
    this.answer = section.querySelector(".answer");
    this.fields = section.querySelector("form").elements;
    this.fill();
    section.querySelector("form").addEventListener("input", (event) => { if (event.target.name === "track") this.fill(); this.show(); });
    section.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    this.show();
  }

  get data() {
    return this.tables[Number(this.fields.track?.value ?? 0)];
  }

  fill() {
    this.fields.model.replaceChildren();
    fillSelect(this.fields.model, distinct(this.data.rows, "model"));
  }

  show() {
    const data = this.data, drop = Number(this.fields.drop.value), speed = this.fields.goal.value === "speedup";
    if (this.fields.drop.value === "" || !(drop >= 0)) return this.say("Give the points of accuracy as a number of 0 or more.");
    const kept = qualifying(data, this.fields.model.value, drop), limit = `${short(this.fields.model.value, 60)} within ${points(drop)} of dense`;
    if (!kept.length) return this.say(`No measured setting keeps ${limit}.`);
    const key = speed ? `speedup_b${data.batches[0]}` : this.fields.goal.value, rows = ranked(kept, key).slice(0, TOP);
    if (!rows.length) return this.say(`No setting that keeps ${limit} has a ${data.column[key].title} of its own on ${short(data.hardware, 60)}.`);
    this.answer.replaceChildren(this.list(data, rows, key), make("p", {
      className: "note", textContent: `Rows whose accuracy is at most ${points(drop)} below dense on the test images, best first, of equals the more accurate, `
        + `with 95 % intervals; timed on ${short(data.hardware, 60)}. ${speed ? TIMED : ""}`
        + "Look at the interval of Δ: where it reaches far below, the loss may be larger on other images." }));
  }

  say(text) {
    this.answer.replaceChildren(make("p", { textContent: text }));
  }

  list(data, rows, key) {
    const columns = [key, "delta_points", "needs"].map((name) => data.column[name]);
    const head = make("tr", {}, make("th", { scope: "col", textContent: "Method and setting" }), ...columns.map((column) => make("th", { scope: "col", textContent: column.title, title: column.help, className: this.place(column) })));
    const body = rows.map((row, rank) => make("tr", {}, this.who(data, row, rank + 1), ...columns.map((column) => this.cell(row, column))));
    const table = make("table", { className: "plain" }, make("caption", { className: "hidden", textContent: "Best settings for the question above" }), make("thead", {}, head), make("tbody", {}, ...body));
    return make("div", { className: "table-wrap" }, table);
  }

  place(column) {
    return column.digits === null ? "text desk" : "number";
  }

  who(data, row, rank) {
    const link = breakable(make("a", { href: data.root + data.methods[row.method] }), short(row.method, 60));
    return make("th", { scope: "row", className: "who" }, `${rank}. `, link, make("br"), make("small", { textContent: short(row.setting, 200) }));
  }

  cell(row, column) {
    const [text, beside] = cellParts(row, column), cell = make("td", { className: this.place(column) }, make("span", { textContent: short(text, 200) }));
    if (beside) cell.append(" ", make("small", { textContent: beside }));
    return cell;
  }
}
