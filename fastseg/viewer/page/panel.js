"use strict";

// What stands beside and around the views: theme, list of points, questions, the queue.
// Names of files are hostile: they only ever become text.
(function (viewer) {
  const THEME = "fastseg-theme"; // the report's, too
  const of = (id) => document.getElementById(id);

  function stored(key, value) {
    try {
      if (value === undefined) return window.localStorage.getItem(key);
      window.localStorage.setItem(key, value);
    } catch (error) {
      // Private windows: it is only not remembered.
    }
    return null;
  }

  function theme() {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const root = document.documentElement;
    const follow = () => {
      const chosen = stored(THEME);
      root.dataset.theme = ["light", "dark"].includes(chosen) ? chosen : dark.matches ? "dark" : "light";
    };
    follow();
    dark.addEventListener("change", follow);
    of("theme").addEventListener("click", () => {
      root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
      stored(THEME, root.dataset.theme);
    });
  }

  // Rows from the head to the feet. slice(mm) numbers the slice of a place.
  function listPoints(points, slice, { select, remove }) {
    const rows = points.list.map((point) => ({ point, slice: slice(point.mm) }));
    rows.sort((one, other) => other.slice - one.slice || other.point.mm[2] - one.point.mm[2]);
    of("points").replaceChildren(...rows.map((row) => rowOf(row, points.selected, select, remove)));
    of("count").textContent = rows.length;
    of("hint").hidden = rows.length > 0;
    of("undo").disabled = !points.past.length;
    of("redo").disabled = !points.future.length;
    const chosen = of("points").querySelector(".chosen");
    if (chosen) chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function rowOf({ point, slice }, selected, select, remove) {
    const row = document.createElement("li");
    row.classList.toggle("chosen", point.id === selected);
    const place = document.createElement("button");
    place.type = "button";
    place.title = "Look there";
    for (const [name, text] of [
      ["slice", `slice ${slice}`],
      ["mm", point.mm.map((value) => value.toFixed(1).replace("-", "−")).join("  ")],
    ]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      place.append(part);
    }
    const cross = document.createElement("button");
    cross.type = "button";
    cross.className = "remove";
    cross.textContent = "×";
    cross.title = "Delete this point";
    cross.setAttribute("aria-label", `Delete the point on slice ${slice}`);
    place.addEventListener("click", () => select(point.id));
    cross.addEventListener("click", () => remove(point.id));
    row.append(place, cross);
    return row;
  }

  const SIGNS = { open: "○", saved: "✓", skipped: "–" };

  function showQueue({ volumes }, number, go) {
    const count = volumes.length;
    const done = volumes.filter((volume) => volume.state !== "open").length;
    const volume = volumes[number];
    of("place").textContent = count > 1 ? `${number + 1} of ${count}` : "";
    of("progress").max = count;
    of("progress").value = done;
    of("progress").title = `${done} of ${count} done`;
    of("progress").hidden = of("queue").hidden = count < 2;
    of("finish").hidden = !volumes.some((each) => each.state === "saved");
    of("name").hidden = count > 1;
    of("name").textContent = of("name").title = volume.name;
    of("queue").replaceChildren(...volumes.map(option));
    of("queue").value = String(number);
    of("queue").onchange = (event) => {
      event.target.blur(); // keys are the page's again
      go(Number(event.target.value));
    };
    document.title = `${volume.name} – fastseg view`;
  }

  function option(volume) {
    const entry = document.createElement("option");
    entry.value = String(volume.number);
    entry.textContent = `${SIGNS[volume.state] || ""} ${volume.name}`;
    return entry;
  }

  let asked = Promise.resolve();

  // Resolves to whether the answer is yes. A dialog tells of its closing a little later, so questions wait for
  // the one before: they would get its answer.
  function ask(question, yes) {
    asked = asked.then(() => answer(question, yes));
    return asked;
  }

  function answer(question, yes) {
    of("question").textContent = question;
    of("yes").textContent = yes;
    const dialog = of("ask");
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  }

  // Covers the views, for what is not (or no longer) to be worked on; nothing: uncovers them.
  function cover(text, kind) {
    of("cover").hidden = !text;
    of("cover").className = kind || "";
    of("cover-text").textContent = text || "";
  }

  let quiet = 0;
  function say(text, kind) {
    const status = of("status");
    status.textContent = text;
    status.className = kind || "";
    clearTimeout(quiet);
    if (text) quiet = setTimeout(() => say(""), kind === "wrong" ? 12000 : 4000);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      return false;
    }
  }

  viewer.panel = { of, theme, listPoints, showQueue, ask, cover, say, copy };
})((window.fastsegViewer = window.fastsegViewer || {}));
