"use strict";
// "I have this model and may lose some accuracy: what makes it smallest or fastest?" The same rule as `python -m leaderboard recommend`.

const TOP = 5;
const points = (drop) => `${drop} ${drop === 1 ? "point" : "points"}`;

function recommended(data, model, drop, goal) {
  const speed = `speedup_b${data.batches[0]}`, verdict = `verdict_b${data.batches[0]}`, key = goal === "speedup" ? speed : goal;
  const kept = data.rows.filter((row) => row.model === model && row.delta_points !== null && row.delta_points >= -drop);
  if (goal !== "speedup") return kept.filter((row) => row[key] !== null).sort((a, b) => b[key] - a[key]).slice(0, TOP);
  const faster = kept.filter((row) => row[verdict] === "faster").sort((a, b) => b[key] - a[key]);
  return [...faster, ...kept.filter((row) => row[verdict] === "tie" || row[verdict] === "as dense")].slice(0, TOP);
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
    const data = this.data, drop = Number(this.fields.drop.value), model = this.fields.model.value, goal = this.fields.goal.value;
    if (this.fields.drop.value === "" || !(drop >= 0)) return this.answer.replaceChildren(make("p", { textContent: "Give the points of accuracy as a number of 0 or more." }));
    const rows = recommended(data, model, drop, goal);
    if (!rows.length) return this.answer.replaceChildren(make("p", { textContent: `No measured setting keeps ${short(model, 60)} within ${points(drop)} of dense.` }));
    this.answer.replaceChildren(this.list(data, rows, goal === "speedup" ? `speedup_b${data.batches[0]}` : goal), make("p", {
      className: "note", textContent: `Rows whose accuracy is at most ${points(drop)} below dense on the test images, best first, with 95 % intervals; timed on ${short(data.hardware, 60)}. `
        + "Look at the interval of Δ: where it reaches far below, the loss may be larger on other images." }));
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
    const link = make("a", { href: data.root + data.methods[row.method], textContent: short(row.method, 60) });
    return make("th", { scope: "row", className: "who" }, `${rank}. `, link, make("br"), make("small", { textContent: short(row.setting, 200) }));
  }

  cell(row, column) {
    const [text, beside] = cellParts(row, column), cell = make("td", { className: this.place(column) }, make("span", { textContent: short(text, 200) }));
    if (beside) cell.append(" ", make("small", { textContent: beside }));
    return cell;
  }
}
