"use strict";
// Tables by DataTables: it sorts, pages and chooses columns.

const ROWS = [25, 50, 100, -1];

function renderCell(data, column, several) {
  return (value, kind, row) => {
    if (kind === "sort" || kind === "type") return sortValue(row, column);
    if (kind !== "display") return value;
    const [text, beside] = cellParts(row, column);
    if (column.key === "method") {
      const button = breakable(make("button", { type: "button", className: "link" }), short(text, 80));
      button.addEventListener("click", () => openRecord(data, row));
      const cell = make("span", {}, button);
      for (const beneath of [several ? row.model : "", row.setting]) if (beneath) cell.append(make("small", { className: "phone", textContent: short(beneath, 200) }));
      return cell;
    }
    const cell = make("span", { textContent: short(text, 300), title: column.key === "accuracy_percent" ? short(row.reason || "", 300) : "" });
    if (beside) cell.append(" ", make("small", { textContent: beside }));
    return cell;
  };
}

// Speed-ups within the noise of the clock sort together, as 1.
function sortValue(row, column) {
  const value = row[column.key];
  if (column.digits === null) return value || "";
  const verdict = row[column.key.replace(/^speedup_/, "verdict_")];
  return column.key.startsWith("speedup_") && (verdict === "tie" || verdict === "as dense") ? 1 : value;
}

function makeTable(element, data, hidden) {
  const level = screenLevel();
  const several = distinct(data.rows, "model").length > 1; // models: a row of a phone says whose it is
  const numbers = (column) => column.digits !== null;
  const table = new DataTable(element, {
    data: [...data.rows.filter((row) => row.accuracy_percent !== null), ...data.rows.filter((row) => row.accuracy_percent === null)], // what has no numbers last
    columns: data.columns.map((column) => ({
      data: column.key,
      title: column.title,
      type: numbers(column) ? "num" : "string",
      className: numbers(column) ? "number" : "text",
      orderSequence: numbers(column) ? ["desc", "asc", ""] : ["asc", "desc", ""],
      visible: column.level <= level && !hidden.includes(column.key),
      render: renderCell(data, column, several),
    })),
    order: [],
    deferRender: true,
    autoWidth: false,
    pageLength: 25,
    lengthMenu: ROWS.map((value) => ({ label: value < 0 ? "all" : String(value), value })),
    layout: {
      topStart: "info",
      topEnd: { buttons: [{ extend: "colvis", text: "Columns" }] },
      bottomStart: "pageLength",
      bottomEnd: "paging",
    },
    language: { info: "_START_ to _END_ of _TOTAL_ rows", infoEmpty: "no row", infoFiltered: "", emptyTable: "no row", zeroRecords: "No row passes these filters." },
  });
  data.columns.forEach((column, index) => { table.column(index).header().title = column.help; });
  return table;
}

function makeSortable(element) {
  return new DataTable(element, { paging: false, info: false, searching: false, order: [], autoWidth: false, layout: { topStart: null, topEnd: null } });
}
