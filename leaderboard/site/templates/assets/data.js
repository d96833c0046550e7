"use strict";
// A table as the page carries it, and how its values are printed. Text of results goes into the document as text only, never as HTML.

function readPayload(script) {
  const data = JSON.parse(script.textContent);
  data.rows = data.rows.map((values, index) => {
    const row = { index };
    data.keys.forEach((key, position) => { row[key] = values[position]; });
    return row;
  });
  data.column = Object.fromEntries(data.columns.map((column) => [column.key, column]));
  return data;
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Text into an element, where it may break behind its underscores.
function breakable(element, text) {
  for (const part of text.split(/(?<=_)/)) element.append(part, ...(part.endsWith("_") ? [make("wbr", {})] : []));
  return element;
}

function short(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

// Plotly reads some HTML tags and entities in the text of plots.
function plotText(text) {
  return short(String(text), 60).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function numberText(value, column) {
  if (value === null || value === undefined) return "";
  const rounded = Number((value * column.scale).toFixed(column.digits));
  return (rounded === 0 ? 0 : rounded).toLocaleString("en", { minimumFractionDigits: column.digits, maximumFractionDigits: column.digits });
}

function intervalText(row, column) {
  const low = row[`${column.key}_low`], high = row[`${column.key}_high`];
  return low === null || low === undefined ? "" : `[${numberText(low, column)}, ${numberText(high, column)}]`;
}

// The value of a cell and what stands beside it; a speed-up that the clock does not vouch for is its verdict in a word, and what was
// skipped or failed says so in place of its accuracy.
function cellParts(row, column) {
  if (column.digits === null) return [row[column.key] || "", ""];
  if (column.key === "accuracy_percent" && row.accuracy_percent === null) return [row.status || "", ""];
  const verdict = row[column.key.replace(/^speedup_/, "verdict_")];
  if (column.key.startsWith("speedup_") && verdict !== "faster" && verdict !== "slower") return [verdict || "", ""];
  const mark = column.key === "delta_points" && row.significance ? ` ${row.significance}` : "";
  return [numberText(row[column.key], column), intervalText(row, column) + mark];
}

function cellText(row, column) {
  return cellParts(row, column).filter(Boolean).join(" ");
}

function distinct(rows, key) {
  return [...new Set(rows.map((row) => row[key]).filter(Boolean))];
}

function fillSelect(select, values) {
  for (const value of values) select.append(make("option", { value, textContent: short(value, 60) }));
}

const screenLevel = () => (window.innerWidth < 700 ? 1 : window.innerWidth < 1500 ? 2 : 3);
