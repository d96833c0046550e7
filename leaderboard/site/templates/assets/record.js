"use strict";
// The dialog with everything that is known of a row.

function shellWord(text) {
  return /^[A-Za-z0-9_./=-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}

function reproduceCommand(data, row) {
  const words = ["shrinkmark", "run", data.track, "--method", row.method, "--model", row.model, "--into", "try"];
  return words.map(shellWord).join(" ");
}

function openRecord(data, row) {
  const dialog = document.getElementById("record");
  dialog.querySelector("h2").textContent = short([row.method, row.setting, "on", row.model].filter(Boolean).join(" "), 200);
  dialog.querySelector(".record-links").replaceChildren(
    make("a", { href: data.root + data.methods[row.method], textContent: `Method ${short(row.method, 60)}` }), " · ",
    make("a", { href: data.root + data.models[row.model], textContent: `Model ${short(row.model, 60)}` }));
  dialog.querySelector("code").textContent = reproduceCommand(data, row);
  dialog.querySelector(".record-values").replaceChildren(...data.columns.filter((column) => cellText(row, column)).flatMap((column) => [
    make("dt", { textContent: column.title, title: column.help }),
    make("dd", { textContent: short(cellText(row, column), 2000) }),
  ]));
  dialog.showModal();
  dialog.scrollTop = 0;
}

function startRecord() {
  const dialog = document.getElementById("record");
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  const button = dialog.querySelector(".copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(dialog.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch { // the browser forbids it on this page: select the text, so that one key copies it
      window.getSelection().selectAllChildren(dialog.querySelector("code"));
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
