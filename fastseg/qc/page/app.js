"use strict";

// The page: what the index says goes into the table, what is selected beside it, and keys and filters to both.
(() => {
  const page = window.fastsegPage;
  const { make } = page;
  const at = (id) => document.getElementById(id);
  const counted = (n) => n.toLocaleString("en");

  let { rows, broken } = page.rowsOf(page.index);
  const byId = new Map(rows.map((row) => [row.id, row]));
  const marks = new page.Marks(typeof page.index?.uuid === "string" ? page.index.uuid : "", byId, page.index?.marks);
  const table = new page.Table(at("table"), marks, page.pictureOf);
  const detail = new page.Detail(at("detail"), marks);
  const form = at("filters");
  let shown = [];
  let selected = null;
  let order = { key: "flags", down: true };

  const say = (text) => {
    at("message").hidden = !text;
    at("message").textContent = text;
  };
  const exchange = new page.Exchange(rows, marks, say);
  const news = new page.News(at("news"), () => renew());

  // --- filters and order

  const filters = () => Object.fromEntries(["search", "status", "flag", "mark", "contrast", "dataset"].map((key) => [key, form.elements[key].value]));

  const keyOf = (column) => {
    if (column.key !== "mark") return column.by;
    const ranks = { Fail: 3, Artifact: 2, Pass: 1 };
    return (row) => {
      const { qc, rank } = marks.current(row.id);
      return qc || rank !== null ? (ranks[qc] || 0) * 10 + (rank ?? 0) : null;
    };
  };

  const position = () => {
    if (!rows.length) return "";
    const index = selected ? table.indexOf(selected.id) : -1;
    return index < 0 ? "" : `${counted(index + 1)} of ${counted(shown.length)}`;
  };

  /** Filter and sort anew; the selected volume stays where it is still shown. */
  const refresh = () => {
    const column = page.COLUMNS.find(({ key }) => key === order.key);
    const wanted = filters();
    shown = page.sorted(rows.filter(page.filterOf(wanted, marks)), keyOf(column), order.down);
    table.show(shown);
    table.showSort(order.key, order.down);
    const active = Object.values(wanted).some(Boolean);
    at("clear").hidden = !active;
    at("shown").textContent = active ? `${counted(shown.length)} of ${counted(rows.length)}` : "";
    for (const choice of form.querySelectorAll("select")) choice.classList.toggle("active", choice.value !== "");
    select(selected && table.indexOf(selected.id) >= 0 ? selected : (shown[0] ?? null));
  };

  /** Volumes that were marked while a filter looks at marks leave the table when one moves on, not under one's eyes. */
  const prune = (next) => {
    const wanted = filters();
    if (!wanted.mark) return;
    const fits = page.filterOf(wanted, marks);
    const kept = shown.filter((row) => row === next || fits(row));
    if (kept.length === shown.length) return;
    shown = kept;
    table.show(shown);
    at("shown").textContent = `${counted(shown.length)} of ${counted(rows.length)}`;
  };

  const select = (row) => {
    if (row && row !== selected) prune(row);
    selected = row;
    table.select(row ? row.id : "");
    const none = rows.length ? "No volume is left by the filters." : "The report has no volumes yet.";
    detail.show(row, row ? position() : none);
    if (!row) return;
    const index = table.indexOf(row.id);
    for (const near of [shown[index + 1], shown[index + 2], shown[index - 1]]) if (near) detail.prepare(near);
    // A reload, or a link that is passed on, finds the volume again.
    try {
      window.history.replaceState(null, "", `#${row.id}`);
    } catch {
      // A browser may forbid it to a page of the disk.
    }
  };

  const step = (by) => {
    if (!shown.length) return;
    const index = selected ? table.indexOf(selected.id) : -1;
    select(shown[Math.min(Math.max(index + by, 0), shown.length - 1)]);
  };

  const nextUnmarked = () => {
    const index = selected ? table.indexOf(selected.id) : -1;
    const next = [...shown.slice(index + 1), ...shown.slice(0, Math.max(index, 0))].find((row) => !marks.current(row.id).qc);
    if (next) select(next);
    else say("Every volume shown here has a mark.");
  };

  const option = (value, label) => make("option", { value, text: label });

  const tally = (key) => {
    const counts = new Map();
    for (const row of rows) for (const value of [row[key]].flat()) if (value) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]);
  };

  const fillChoices = () => {
    const { status, flag, mark, contrast, dataset } = form.elements;
    const numbered = (label, count) => `${label} (${counted(count)})`;
    const number = (test) => rows.filter(test).length;
    const failed = number((row) => page.FAILED.includes(row.status));
    const look = failed + number((row) => row.status === "ok_flagged");
    const statuses = tally("status").map(([value, count]) => option(value, numbered(page.STATUS[value] || value, count)));
    const manual = number((row) => row.manual);
    status.replaceChildren(option("", "Any status"), option("look", numbered("flagged or failed", look)), ...(failed ? [option("failed", numbered("failed", failed))] : []),
      ...statuses, ...(manual ? [option("manual", numbered("corrected by hand", manual))] : []));
    flag.replaceChildren(option("", "Any flag"), ...tally("flags").map(([value, count]) => option(value, numbered(value.replaceAll("_", " "), count))));
    mark.replaceChildren(option("", "Any mark"), option("unmarked", "without a mark"), option("marked", "with a mark"), ...page.formats.MARKS.map((qc) => option(qc, qc)),
      option("stale", "of an earlier result"), ...[...Array(10).keys()].map((rank) => option(`rank${rank}`, `rank ${rank}`)));
    for (const [element, key, label] of [[contrast, "contrast", "Any contrast"], [dataset, "dataset", "Any data set"]]) {
      const counts = tally(key);
      element.hidden = counts.length < 2;
      element.replaceChildren(option("", label), ...counts.map(([value, count]) => option(value, numbered(value, count))));
    }
    flag.hidden = !tally("flags").length;
  };

  /** Show what was added since; what is selected, filtered and marked stays so. */
  const renew = () => {
    const before = new Map(rows.map((row) => [row.id, row.at]));
    const wanted = filters();
    ({ rows, broken } = page.rowsOf(page.index));
    byId.clear();
    for (const row of rows) byId.set(row.id, row);
    const changed = rows.filter((row) => before.has(row.id) && before.get(row.id) !== row.at);
    for (const row of changed) {
      page.renewed.set(row.id, row.at);
      page.details.delete(row.id);
    }
    table.forget(changed.map((row) => row.id));
    if (changed.some((row) => row.id === selected?.id)) detail.forget();
    marks.read(page.index?.marks);
    exchange.setRows(rows);
    fillChoices();
    for (const [key, value] of Object.entries(wanted)) form.elements[key].value = value;
    selected = byId.get(selected?.id) ?? null;
    refresh();
    paintProgress();
    news.know(rows);
  };

  // --- marks

  const STATES = {
    "": ["", ""],
    saved: ["saved", "saved in the report's folder"],
    saving: ["saving…", "on their way into the report's folder"],
    unsaved: ["not saved", "The server does not answer: is fastseg qc serve still running? Marks stay in this browser and are sent when it does."],
    kept: ["kept in this browser", "Save them as files, or open the report with fastseg qc open: then they are saved in its folder."],
    lost: ["lost on reload", "This browser does not let the page keep anything: save the marks as files before you leave."],
  };

  const paintProgress = () => {
    let done = 0;
    for (const row of rows) if (marks.current(row.id).qc) done += 1;
    at("counted").textContent = rows.length ? `${counted(done)} of ${counted(rows.length)} marked` : "no volumes";
    at("done").max = Math.max(rows.length, 1);
    at("done").value = done;
  };

  const paintState = (state) => {
    const [text, title] = STATES[state];
    at("kept").textContent = text;
    at("kept").title = title;
    at("kept").className = state;
  };

  const mark = (change) => {
    if (selected) marks.set(selected.id, change);
  };

  const cycle = () => {
    if (!selected) return;
    const choices = [...page.formats.MARKS, ""];
    mark({ qc: choices[(choices.indexOf(marks.current(selected.id).qc) + 1) % choices.length] });
  };

  const rank = (digit) => selected && mark({ rank: marks.current(selected.id).rank === digit ? null : digit });

  const openVolume = () => detail.served && document.querySelector(".detail .open")?.click();

  // --- keys

  const KEYS = {
    ArrowUp: () => step(-1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    j: () => step(1),
    PageUp: () => step(-table.height),
    PageDown: () => step(table.height),
    Home: () => step(-rows.length),
    End: () => step(rows.length),
    n: nextUnmarked,
    ArrowRight: () => detail.sheet.setOutline(!detail.sheet.outlined),
    f: cycle,
    "/": () => form.elements.search.select(),
    "?": () => at("keys").showModal(),
    Escape: () => detail.release() || say(""),
  };

  const typing = (element) => element.closest("input, textarea, select, [contenteditable]");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
    if (typing(event.target)) {
      if (event.key === "Escape" || (event.key === "Enter" && event.target.type === "search")) {
        event.preventDefault();
        event.target.blur();
      }
      return;
    }
    if (event.key === "Enter" && !event.target.closest("button, a")) openVolume();
    const act = /^[0-9]$/.test(event.key) ? () => rank(Number(event.key)) : KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // --- what is clicked

  table.onSelect = (id) => select(byId.get(id));
  table.onOpen = openVolume;
  table.onSort = (column) => {
    const again = order.key === column.key;
    order = { key: column.key, down: again ? !order.down : column.down };
    refresh();
  };
  detail.onMark = mark;
  marks.onState = paintState;
  marks.onChange = (ids) => {
    table.update(ids);
    if (selected && ids.includes(selected.id)) detail.update();
    paintProgress();
  };
  let typed = 0;
  form.elements.search.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(refresh, 80);
  });
  form.addEventListener("change", (event) => {
    if (event.target.tagName === "SELECT") event.target.blur();
    refresh();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  // The fields are emptied after the event.
  form.addEventListener("reset", () => setTimeout(refresh));
  at("exchange").addEventListener("click", () => exchange.open());
  at("help").addEventListener("click", () => at("keys").showModal());
  at("theme").addEventListener("click", () => page.setTheme(page.theme() === "dark" ? "light" : "dark"));
  at("message").addEventListener("click", () => say(""));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  const setWidth = (width) => {
    if (width) at("main").style.setProperty("--list", `${width}px`);
    else at("main").style.removeProperty("--list");
    page.storage.set("fastseg-list", width ? String(width) : "");
  };
  at("splitter").addEventListener("pointerdown", (event) => at("splitter").setPointerCapture(event.pointerId));
  at("splitter").addEventListener("pointermove", (event) => {
    if (at("splitter").hasPointerCapture(event.pointerId)) setWidth(Math.max(Math.round(event.clientX), 240));
  });
  at("splitter").addEventListener("dblclick", () => setWidth(0));
  setWidth(Number(page.storage.get("fastseg-list")) || 0);

  // --- start

  const askServer = async () => {
    if (!/^https?:$/.test(window.location.protocol)) return;
    try {
      const answer = await fetch("served.json");
      if (!answer.ok) return;
      const served = await answer.json();
      detail.served = served.viewer === true;
      detail.update();
      if (served.marks === true) marks.serve();
      if (served.news === true) news.watch();
    } catch {
      // Some other server: the page works without.
    }
  };

  if (!page.index) say("The list of volumes (index.js) is missing or damaged: make it again with fastseg qc build.");
  else if (broken) say(`${counted(broken)} of the entries of index.js cannot be read and are not shown.`);
  selected = byId.get(window.location.hash.slice(1)) ?? null;
  fillChoices();
  refresh();
  paintProgress();
  news.know(rows);
  paintState(marks.state);
  askServer();
})();
