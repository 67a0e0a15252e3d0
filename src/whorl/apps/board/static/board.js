// Sorting, copying and the config difference. Axis and seeds are switched by the style sheet alone.
// Without this script every table is complete and every control that needs it stays hidden.
"use strict";

// ---- sorting: a button in each sortable header; rows without a value stay last

function sortBy(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  const numeric = header.dataset.sort === "number";
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
  const rows = [...table.tBodies[0].rows].sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    if (a === "" || b === "") return (a === "") - (b === "");
    return ascending ? compare(a, b) : compare(b, a);
  });
  table.tBodies[0].append(...rows);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

for (const header of document.querySelectorAll("table.sortable th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener("click", () => sortBy(header));
}

// ---- copying: the clipboard where there is one, else a selection and the old command

async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source); // stays selected, so that Ctrl+C works if this fails too
    return document.execCommand("copy");
  }
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  const text = button.textContent;
  button.hidden = false;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(document.getElementById(button.dataset.copy))) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = text), 2000);
  });
}

// ---- config difference against the row chosen in the list

const chosen = document.getElementById("other");
if (chosen) {
  const settings = JSON.parse(document.getElementById("settings").textContent);
  const here = new Map(settings.here);
  const body = document.getElementById("differences").tBodies[0];
  const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  chosen.hidden = false;
  document.getElementById("other-name").hidden = true;
  chosen.addEventListener("change", () => {
    const there = new Map(settings.others[Number(chosen.value)]);
    body.replaceChildren();
    for (const key of new Set([...here.keys(), ...there.keys()])) {
      const [ours, theirs] = [here, there].map((options) => options.get(key) ?? settings.none);
      if (ours === theirs) continue;
      const name = cell("th", key);
      name.scope = "row";
      body.insertRow().append(name, cell("td", ours), cell("td", theirs));
    }
  });
}
