"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const setTheme = () => document.documentElement.classList.toggle("dark", dark.matches); // the class that DataTables goes by
dark.addEventListener("change", setTheme);
setTheme();
startRecord();
const explorers = [...document.querySelectorAll(".explorer")].map((section) => new Explorer(section));
for (const section of document.querySelectorAll(".ask")) {
  const own = [...section.querySelectorAll(".payload")].map(readPayload);
  new Question(section, own.length ? own : explorers.map((explorer) => explorer.data));
}
for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);

// What is wider than its place scrolls in it, by keyboard too.
function markScrolling() {
  for (const wrap of document.querySelectorAll(".table-wrap")) {
    if (wrap.scrollWidth > wrap.clientWidth) { wrap.tabIndex = 0; wrap.setAttribute("role", "region"); wrap.setAttribute("aria-label", "Table, scrolls sideways"); }
    else { wrap.removeAttribute("tabindex"); wrap.removeAttribute("role"); wrap.removeAttribute("aria-label"); }
  }
}
new ResizeObserver(markScrolling).observe(document.querySelector("main"));
markScrolling();
