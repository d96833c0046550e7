"use strict";
// Plots by Plotly: accuracy against cost with the front of each model, and what was promised against what came of it.

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x", "pentagon", "hexagon", "star-triangle-up", "bowtie", "hourglass"];
const MANY = 2000; // rows that a plot draws at most
const CONFIG = { displayModeBar: false, responsive: true, displaylogo: false };
const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = () => Array.from({ length: 12 }, (_, index) => themed(`--hue-${index}`));

// Of more rows than a browser draws in a breath: dense, the fronts, and of the others every so many; a note says so.
function drawn(rows) {
  if (rows.length <= MANY) return rows;
  const marked = rows.filter((row) => row.pareto || row.method === "dense"), rest = rows.filter((row) => !(row.pareto || row.method === "dense"));
  const kept = marked.slice(0, MANY), every = Math.ceil(rest.length / Math.max(1, MANY - kept.length));
  return [...kept, ...rest.filter((_row, index) => index % every === 0).slice(0, MANY - kept.length)];
}

function costs(data) {
  const batch = data.batches[0];
  const found = [
    { key: "compression_ratio", front: "bytes", title: "size ratio: bytes of dense / bytes", label: "bytes" },
    { key: "theoretical_speedup", front: "macs", title: "MACs ratio: MACs of dense / MACs", label: "MACs" },
  ];
  const speed = { key: `speedup_b${batch}`, front: "latency", title: `measured speed-up at batch ${batch}`, label: `latency at batch ${batch}` };
  return data.rows.some((row) => row[speed.key] !== null) ? [...found, speed] : found;
}

function comparisons(data) {
  const timed = data.batches.map((batch) => ({
    label: `time at batch ${batch}`, x: "theoretical_speedup", y: `speedup_b${batch}`, floor: data.floors[batch] || 0,
    xTitle: "on paper: MACs of dense / MACs", yTitle: `measured speed-up, batch ${batch}`,
  }));
  const size = { label: "bytes", x: "claimed_ratio", y: "compression_ratio", floor: 0, xTitle: "what the setting promises (bits, sparsity)", yTitle: "bytes of dense / bytes of the file" };
  return [...timed, size].filter((pair) => data.rows.some((row) => row[pair.x] !== null && row[pair.y] !== null));
}

function hoverText(data, row, keys) {
  const lines = ["accuracy_percent", "delta_points", ...keys].map((key) => data.column[key]).filter((column) => column && cellText(row, column))
    .map((column) => `${plotText(column.title)}: ${plotText(cellText(row, column))}`);
  const who = [row.method, row.setting && `(${row.setting})`, "on", row.model].filter(Boolean).join(" ");
  return [`<b>${plotText(who)}</b>`, ...lines].join("<br>");
}

function errors(rows, key, shown, colour) {
  if (!shown) return { visible: false };
  return {
    type: "data", symmetric: false, thickness: 0.8, width: 0, color: colour,
    array: rows.map((row) => (row[`${key}_high`] ?? row[key]) - row[key]), arrayminus: rows.map((row) => row[key] - (row[`${key}_low`] ?? row[key])),
  };
}

// Panels in a grid: the axes of panel `index` are x, x2, x3 ... and y, y2, y3 ...
const axisName = (letter, index) => (index ? `${letter}${index + 1}` : letter);

function axis(title, more) {
  return { title: { text: title, font: { size: 12 }, standoff: 8 }, gridcolor: themed("--line"), linecolor: themed("--line"), zeroline: false, automargin: true, ...more };
}

const TICKS = [1, 10, 0.1, 100, 1000, 2, 0.5, 5, 20, 50, 0.2, 3, 1.5, 0.7, 0.3, 30, 7, 15, 1.2, 0.8, 4, 0.9, 1.1, 1.3, 1.4, 1.7, 2.5, 0.6, 6, 8, 0.01, 10000]; // by rank

// An axis of `pixels` from a little below the least to a little above the largest of `values`, 1 included; ticks keep `apart` pixels from each other.
function ratioAxis(title, values, pixels, apart) {
  const low = values.reduce((a, b) => Math.min(a, b), 1), high = values.reduce((a, b) => Math.max(a, b), 1), room = 0.03 * Math.log10(high / low) + 0.015;
  const range = [Math.log10(low) - room, Math.log10(high) + room], per = pixels / (range[1] - range[0]), ticks = [];
  for (const tick of TICKS) {
    const place = Math.log10(tick);
    if (place >= range[0] && place <= range[1] && ticks.every((other) => Math.abs(Math.log10(other) - place) * per >= apart)) ticks.push(tick);
  }
  return axis(title, { type: "log", range, tickvals: ticks, ticktext: ticks.map((value) => `${value}×`), tickangle: 0 });
}

const ends = (rows, key) => rows.flatMap((row) => [row[key], row[`${key}_low`], row[`${key}_high`]]).filter((value) => value !== null && value !== undefined && value > 0);

function layoutOf(height, more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height, autosize: true,
    font: { family: "system-ui, sans-serif", size: 12, color: themed("--text") },
    margin: { l: 52, r: 12, t: 28, b: 44 }, hovermode: "closest", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hoverlabel: { bgcolor: themed("--card"), bordercolor: themed("--muted"), font: { color: themed("--text") }, align: "left" },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { size: 12 }, itemsizing: "constant" },
    ...more,
  };
}

function groups(rows, key) {
  const found = new Map();
  for (const row of rows) (found.get(row[key]) ?? found.set(row[key], []).get(row[key])).push(row);
  return found;
}

function pointTraces(data, rows, view) {
  const hues = palette(), names = distinct(data.rows, view.colour), traces = [];
  const listed = new Set();
  view.panels.forEach((panel, index) => {
    const mine = rows.filter((row) => (panel === null || row.model === panel) && row[view.x] !== null && row[view.y] !== null);
    for (const [method, ofMethod] of groups(mine, "method")) for (const [model, ofModel] of groups(ofMethod, "model")) {
      const curve = ofModel.sort((a, b) => a[view.x] - b[view.x]), name = curve[0][view.colour], hue = names.indexOf(name);
      const chosen = view.highlight === method, faded = view.highlight && !chosen;
      const colour = hues[hue % hues.length], dense = method === "dense";
      traces.push({
        type: "scatter", mode: view.lines ? "lines+markers" : "markers", name: plotText(name), legendgroup: String(name), showlegend: !dense && !listed.has(name),
        x: curve.map((row) => row[view.x]), y: curve.map((row) => row[view.y]), customdata: curve.map((row) => row.index),
        text: curve.map((row) => hoverText(data, row, view.keys)), hovertemplate: "%{text}<extra></extra>", opacity: faded ? 0.12 : 1,
        line: { width: chosen ? 3 : 1, color: chosen || view.colour === "model" ? colour : themed("--curve") },
        marker: { color: dense ? themed("--text") : colour, size: dense ? 13 : chosen ? 10 : 7, symbol: dense ? "star" : SYMBOLS[hue % SYMBOLS.length], line: { width: 0.5, color: themed("--card") } },
        error_y: errors(curve, view.y, view.intervals, colour), error_x: errors(curve, view.x, view.intervals, colour), xaxis: axisName("x", index), yaxis: axisName("y", index),
      });
      if (!dense) listed.add(name);
    }
  });
  return traces;
}

// Within the noise of the clock a row counts as dense on the front, and is drawn there.
function frontTraces(data, view, cost) {
  return view.panels.flatMap((panel, index) => {
    const members = data.rows.filter((row) => row.model === panel && row.pareto.split(" ").includes(cost.front) && row[view.x] !== null)
      .map((row) => [sortValue(row, data.column[view.x]), row[view.y]]).sort((a, b) => a[0] - b[0] || b[1] - a[1]);
    return members.length ? [{
      type: "scatter", mode: "lines", name: "Pareto front", legendgroup: "front", showlegend: index === 0, hoverinfo: "skip",
      x: members.map((member) => member[0]), y: members.map((member) => member[1]), line: { shape: "vh", width: 2, color: themed("--text") },
      xaxis: axisName("x", index), yaxis: axisName("y", index),
    }] : [];
  });
}

function panelLayout(div, rows, view, xTitle, yAxis) {
  const count = view.panels.length, columns = Math.min(count, div.clientWidth > 1100 ? 4 : div.clientWidth > 600 ? 2 : 1), lines = Math.ceil(count / columns);
  const legend = 40 + 22 * Math.ceil(view.legend / Math.max(1, Math.floor(div.clientWidth / 115))), panelHeight = count > 1 ? 300 : 400;
  const layout = layoutOf(lines * panelHeight + legend, {});
  layout.margin.b = 44 + legend;
  if (count > 1) layout.grid = { rows: lines, columns, pattern: "independent", ygap: 0.28, xgap: columns > 2 ? 0.16 : 0.14 };
  layout.annotations = [];
  view.panels.forEach((panel, index) => {
    const mine = rows.filter((row) => panel === null || row.model === panel);
    layout[axisName("xaxis", index)] = ratioAxis(index >= count - columns ? xTitle : "", ends(mine, view.x), (div.clientWidth - 70) / columns - 30, 40);
    layout[axisName("yaxis", index)] = index % columns ? { ...yAxis, title: undefined } : yAxis;
    if (count > 1) layout.annotations.push({ text: `<b>${plotText(panel)}</b>`, showarrow: false, xref: `${axisName("x", index)} domain`, yref: `${axisName("y", index)} domain`, x: 0.5, y: 1.02, yanchor: "bottom" });
  });
  return layout;
}

function accuracyRange(data, rows, near) {
  if (!near) return undefined;
  const dense = data.rows.filter((row) => row.method === "dense").map((row) => row.accuracy_percent).filter((value) => value !== null);
  const shown = rows.map((row) => row.accuracy_percent).filter((value) => value !== null);
  const all = dense.length ? dense : shown;
  if (!all.length) return undefined;
  const top = shown.reduce((high, value) => Math.max(high, value), all.reduce((high, value) => Math.max(high, value)));
  return [all.reduce((low, value) => Math.min(low, value)) - 15, Math.min(top + 1.5, 101)];
}

function accuracyPlot(div, data, rows, options) {
  const cost = options.cost, colour = options.colour;
  const panels = colour === "model" ? [null] : distinct(rows.length ? rows : data.rows, "model");
  const view = { x: cost.key, y: "accuracy_percent", keys: [cost.key], panels, colour, lines: true, intervals: options.intervals, highlight: options.highlight, legend: distinct(rows, colour).length + 1 };
  const traces = [...pointTraces(data, rows, view), ...(colour === "model" ? [] : frontTraces(data, view, cost))];
  div.setAttribute("aria-label", `Accuracy against ${cost.label} of ${rows.length} rows; the table below holds the same numbers.`);
  return Plotly.react(div, traces, panelLayout(div, rows, view, cost.title, axis("accuracy %", { range: accuracyRange(data, rows, options.near) })), CONFIG);
}

function theoryPlot(div, data, rows, pair, colour) {
  const known = rows.filter((row) => row[pair.x] !== null && row[pair.y] !== null && row[`verdict_${pair.y.split("_")[1]}`] !== "as dense");
  const view = { x: pair.x, y: pair.y, keys: [pair.x, pair.y], panels: [null], colour, lines: false, intervals: true, highlight: "", legend: distinct(known, colour).length };
  const layout = panelLayout(div, known, view, pair.xTitle, ratioAxis(pair.yTitle, ends(known, pair.y), 300, 26));
  const [low, high] = [-3, 5].map((power) => 10 ** power); // the axes cut it off
  layout.shapes = [
    { type: "rect", xref: "paper", x0: 0, x1: 1, y0: 1 / (1 + pair.floor), y1: 1 + pair.floor, fillcolor: themed("--band"), line: { width: 0 }, layer: "below" },
    { type: "line", x0: low, y0: low, x1: high, y1: high, line: { dash: "dash", width: 1.5, color: themed("--muted") }, layer: "below" },
  ];
  div.setAttribute("aria-label", `Theoretical against realised ${pair.label} of ${known.length} rows; the table below holds the same numbers.`);
  return Plotly.react(div, pointTraces(data, known, view), layout, CONFIG);
}
