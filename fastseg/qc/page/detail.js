"use strict";

// The selected volume: its name and mark, pictures, areas, and all that is known about it.
(() => {
  const page = window.fastsegPage;
  const { make } = page;
  const KEPT = 300;

  /** What to do about a volume without a mask. */
  const REMEDY = {
    no_cord: "Look at the picture. If the cord is there, show it: click a few points on it with the command below, and run the volume again with them.",
    bad_input: "Mend or replace the file, then run again: only what failed is done.",
    out_of_memory: "Run again with fewer --jobs or a larger --mem-gb: only what failed is done.",
    error: "The log of the run says more. Run again: only what failed is done.",
    skipped: "It was excluded, and is done when it no longer is.",
  };

  const PATHS = { image: "Image", mask: "Mask", manual: "Corrected mask" };

  const quoted = (path) => `'${path.replaceAll("'", "'\\''")}'`;

  /** Address of a volume's file; of one that changed another address than before. */
  const addressOf = (id, ending) => {
    const since = page.renewed.get(id);
    return `volumes/${id.slice(0, 2)}/${id}${ending}${since ? `?${encodeURIComponent(since)}` : ""}`;
  };

  /** The script with a volume's detail, loaded once: resolves to the detail, or null where it is missing. */
  const load = (id) => {
    if (page.details.has(id)) return Promise.resolve(page.details.get(id));
    // A single file has no others beside it.
    if (window.fastsegFiles) return Promise.resolve(null);
    if (page.waiting.has(id)) return page.waiting.get(id);
    const waiting = new Promise((resolve) => {
      const script = make("script", { src: addressOf(id, ".js") });
      const done = () => {
        script.remove();
        page.waiting.delete(id);
        if (page.details.size > KEPT) page.details.delete(page.details.keys().next().value);
        resolve(page.details.get(id) ?? null);
      };
      script.addEventListener("load", done);
      script.addEventListener("error", done);
      document.head.append(script);
    });
    page.waiting.set(id, waiting);
    return waiting;
  };

  /** Address of a volume's sheet, outline or thumb; empty in a single file without them. */
  const pictureOf = (id, kind) => {
    if (window.fastsegFiles) return window.fastsegFiles[id]?.[kind] || "";
    const ending = { sheet: ".jpg", outline: ".png", thumb: "_thumb.jpg" }[kind];
    return addressOf(id, ending);
  };

  const copyButton = (text) => {
    const button = make("button", { type: "button", className: "quiet copy", text: "Copy" });
    button.addEventListener("click", async () => {
      button.textContent = (await page.copy(text)) ? "Copied" : "Not copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    return button;
  };

  const shown = (value) => {
    if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
    if (Array.isArray(value)) return value.map(shown).join(", ");
    return value === null || value === undefined ? "" : String(value);
  };

  /** Labels and values; a value with labels of its own is set under its label. */
  const pairs = (record) => {
    const list = make("dl");
    for (const [label, value] of Object.entries(record)) {
      const nested = typeof value === "object" && value !== null && !Array.isArray(value);
      list.append(make("dt", { text: label, className: nested ? "group" : "" }));
      list.append(make("dd", {}, nested ? [pairs(value)] : [make("span", { text: shown(value), dir: "auto" })]));
    }
    return list;
  };

  const section = (title, className, children) =>
    make("section", { className }, [make("h3", { text: title }), ...children]);

  const command = (label, text) =>
    make("div", { className: "command" }, [make("span", { className: "label", text: label }), make("code", { text, title: text }), copyButton(text)]);

  class Detail {
    /** @param place element that shows the volume; @param marks what was decided */
    constructor(place, marks) {
      this.onMark = () => {};
      this.served = false;
      this._marks = marks;
      this._row = null;
      this._pinned = null;
      this._flagged = new Map();
      this.sheet = new page.Sheet();
      this._plot = new page.Plot();
      this._title = make("header", { className: "title" });
      // What is wrong stands above the picture; what is odd below it, so that the picture keeps its place.
      this._wrong = make("div", { className: "findings" });
      this._said = make("div", { className: "findings" });
      this._facts = make("div", { className: "facts" });
      this._body = make("div", { className: "volume" }, [this._title, this._wrong, this.sheet.element, this._said, this._plot.element, this._facts]);
      this._place = place;
      for (const view of [this.sheet, this._plot]) view.onSlice = (z, click) => this._look(z, click);
    }

    /** Show a volume; null: there is none to show. */
    async show(row, position = "") {
      this._row = row;
      this._place.replaceChildren(row ? this._body : make("p", { className: "nothing", text: position }));
      if (!row) return;
      const changed = this._body.dataset.id !== row.id;
      this._body.dataset.id = row.id;
      this._position = position;
      this._paintTitle();
      if (!changed) return;
      this._place.scrollTop = 0;
      this._pinned = null;
      this.sheet.show(row, row.pictures ? pictureOf(row.id, "sheet") : "", row.pictures && row.mask ? pictureOf(row.id, "outline") : "");
      if (!page.details.has(row.id)) this._fill(row, null);
      const detail = await load(row.id);
      if (this._row?.id === row.id) this._fill(row, page.checkedDetail(detail), detail === null);
    }

    /** Fetch what a volume needs, so that stepping on to it shows it at once. */
    prepare(row) {
      load(row.id);
      if (!row.pictures || window.fastsegFiles) return;
      for (const kind of row.mask ? ["sheet", "outline"] : ["sheet"]) new Image().src = pictureOf(row.id, kind);
    }

    /** The volume that is shown has changed. */
    forget() {
      delete this._body.dataset.id;
    }

    /** The mark or its state has changed. */
    update() {
      if (this._row) this._paintTitle();
    }

    /** Let go of a slice that was clicked. Returns whether there was one. */
    release() {
      const held = this._pinned !== null;
      this._pinned = null;
      this._mark(null);
      return held;
    }

    _look(z, click) {
      if (click) this._pinned = z === this._pinned ? null : z;
      this._mark(z ?? this._pinned);
    }

    _mark(z) {
      this.sheet.markSlice(z);
      this._plot.markSlice(z);
    }

    _paintTitle() {
      const row = this._row;
      const mark = this._marks.of(row.id);
      const stale = mark !== null && this._marks.stale(mark) && (mark.qc !== "" || mark.rank !== null);
      const current = this._marks.current(row.id);
      const origin = [row.subject, row.dataset, row.contrast].filter(Boolean).join(" · ");
      this._body.dataset.mark = current.qc.toLowerCase();
      this._title.replaceChildren(
        make("div", { className: "names" }, [
          make("h2", { text: page.formats.baseOf(row.name), title: row.name, dir: "auto" }),
          make("p", {}, [
            page.statusLabel(row),
            row.manual ? make("span", { className: "badge", text: "corrected by hand" }) : null,
            make("span", { className: "origin", text: origin, title: origin, dir: "auto" }),
          ]),
          stale ? make("p", { className: "earlier", text: `${[mark.qc, mark.rank === null ? "" : `rank ${mark.rank}`].filter(Boolean).join(", ")}: of an earlier result, mark it again` }) : null,
        ]),
        make("div", { className: "deciding" }, [this._marker(current), this._below()]),
      );
    }

    _marker(current) {
      const choices = page.formats.MARKS.map((qc) => {
        const pressed = current.qc === qc;
        const button = make("button", { type: "button", className: qc.toLowerCase(), text: qc, "aria-pressed": String(pressed) });
        button.addEventListener("click", () => this.onMark({ qc: pressed ? "" : qc }));
        return button;
      });
      const rank = make("span", { className: "rank", title: "rank: keys 0 to 9", text: current.rank === null ? "–" : String(current.rank) });
      return make("div", { className: "marker", role: "group", "aria-label": "Mark" }, [...choices, rank]);
    }

    _below() {
      const open = make("a", { className: "open", text: "Open in 3D", title: "Enter", href: `volume.html?id=${this._row.id}`, target: "_blank", rel: "noopener" });
      return make("p", { className: "below" }, [make("span", { className: "position", text: this._position }), this.served && this._row.status !== "skipped" ? open : null]);
    }

    /** Everything but the title; `detail` null while it is on its way. */
    _fill(row, detail, missing = false) {
      const slices = Object.values(detail?.flag_slices || {}).flat();
      this._wrong.replaceChildren(...this._failures(row, detail, missing));
      this._said.replaceChildren(...this._findings(row, detail));
      if (detail?.sheet) this.sheet.annotate(detail.sheet, new Set(slices));
      this._plot.show(detail);
      this._facts.replaceChildren(...(detail ? this._sections(row, detail) : []));
    }

    _failures(row, detail, missing) {
      const found = row.status === "ok" || row.status === "ok_flagged" ? [] : [this._failure(row, detail)];
      const text = window.fastsegFiles
        ? "This volume is not in this file."
        : "The details of this volume cannot be loaded: make the report again with fastseg qc build.";
      return missing ? [...found, make("p", { className: "missing", text })] : found;
    }

    _findings(row, detail) {
      const found = [];
      if (row.flags.length) found.push(make("ul", { className: "reasons" }, row.flags.map((flag) => this._reason(flag, detail))));
      if (detail?.notes.length) found.push(make("ul", { className: "notes" }, detail.notes.map((text) => make("li", { text, dir: "auto" }))));
      return found;
    }

    _failure(row, detail) {
      const box = make("div", { className: "failure" }, [
        make("p", { className: "why", text: row.message || page.STATUS[row.status] || row.status, dir: "auto" }),
        make("p", { text: REMEDY[row.status] || "" }),
      ]);
      if (row.status === "no_cord" && detail?.paths.image) box.append(command("Points", `fastseg view ${quoted(detail.paths.image)} -o points.json`));
      return box;
    }

    /** A flag and its sentence; pointing at it shows the first slice it is about. */
    _reason(flag, detail) {
      const slices = detail?.flag_slices[flag] || [];
      const item = make("li", { className: slices.length ? "somewhere" : "" }, [
        make("b", { text: flag.replaceAll("_", " ") }),
        make("span", { text: detail?.reasons[flag] || "" }),
      ]);
      if (slices.length) {
        item.addEventListener("pointerenter", () => this._look(slices[0], false));
        item.addEventListener("pointerleave", () => this._look(null, false));
        item.addEventListener("click", () => this._look(slices[0], true));
      }
      return item;
    }

    /** Commands that open the volume in an editor; none for a file that has to be mended first. */
    _editing(row, detail) {
      const commands = Object.entries(detail.commands).map(([label, text]) => command(label, text));
      if (!commands.length || (row.status === "bad_input" && !row.mask)) return [];
      const hint = row.mask
        ? "Save, then run fastseg qc build: the corrected mask is shown here in place of the automatic one."
        : `Save it as ${detail.paths.manual}, then run fastseg qc build: it is shown here.`;
      return [section(row.mask ? "Correct the mask" : "Draw a mask", "wide", [...commands, make("p", { className: "hint", text: hint, dir: "auto" })])];
    }

    _sections(row, detail) {
      const sections = this._editing(row, detail);
      if (Object.keys(detail.measures).length) sections.push(section("Measures", "", [pairs(detail.measures)]));
      const header = { ...detail.header };
      if (row.at) header.Entry = row.at.replace(/^([\d-]+)T([\d:]+)(\.\d+)?(\+00:00|Z)$/, "$1 $2 UTC");
      if (Object.keys(header).length) sections.push(section("How it was made", "", [pairs(header)]));
      const named = Object.fromEntries(Object.entries(detail.paths).map(([key, path]) => [PATHS[key] || key, path]));
      if (Object.keys(named).length) sections.push(section("Files", "wide", [pairs(named)]));
      return sections;
    }
  }

  page.Detail = Detail;
  page.pictureOf = pictureOf;
})();
