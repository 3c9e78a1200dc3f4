"use strict";

// The table of volumes. Only the rows that can be seen are in the document, so that any number of volumes scrolls.
(() => {
  const page = window.fastsegPage;
  const { make } = page;
  const ROW = 50;
  const BEYOND = 5;
  const REST_MS = 60;

  const STATUS = {
    error: "error",
    bad_input: "bad input",
    out_of_memory: "memory",
    no_cord: "no cord",
    ok_flagged: "flagged",
    skipped: "skipped",
    ok: "ok",
  };
  const KIND = { ok: "good", ok_flagged: "warn", skipped: "none" };

  /** What a file's name says beyond its suffix, and where it comes from, unless the name says so. */
  const titleOf = (row) => page.formats.baseOf(row.name).replace(/\.nii(\.gz)?$/, "");
  const originOf = (row) => [titleOf(row).includes(row.subject) ? "" : row.subject, row.dataset].filter(Boolean).join(" · ");

  /** A name that breaks between its parts rather than at a hyphen within one. */
  const broken = (name) => {
    const parts = (name.length < 120 && name.match(/[^_]*_|[^_]+/g)) || [name];
    return parts.map((part) => make("span", { className: part.length < 20 ? "part" : "", text: part }));
  };

  const number = (value, digits = 0) => (value === null ? "" : value.toFixed(digits));

  /** Columns: how they are called, what they sort by, and which way first. Texts sort upwards, numbers down. */
  const COLUMNS = [
    { key: "thumb", label: "" },
    { key: "name", label: "Volume", by: (row) => row.name, down: false },
    { key: "status", label: "Status", by: (row) => Object.keys(STATUS).indexOf(row.status), down: false },
    { key: "flags", label: "Flags", title: "worst first", by: (row) => row.severity, down: true },
    { key: "mark", label: "Mark", down: true },
    { key: "area", label: "mm²", title: "median area of a slice", by: (row) => row.area_mm2, down: true },
    { key: "slices", label: "Slices", title: "slices with cord", by: (row) => row.slices, down: true },
    { key: "seconds", label: "s", title: "seconds", by: (row) => row.seconds, down: true },
  ];

  const statusLabel = (row) => make("span", {
    className: `status ${KIND[row.status] || "bad"}`,
    text: STATUS[row.status] || row.status,
  });

  /** Letter of a mark and rank; empty where there is none. */
  const markChip = (marks, id) => {
    const mark = marks.of(id);
    if (!mark || (!mark.qc && mark.rank === null)) return null;
    const stale = marks.stale(mark);
    const words = [mark.qc, mark.rank === null ? "" : `rank ${mark.rank}`].filter(Boolean).join(", ");
    const chip = make("span", {
      className: `chip ${mark.qc.toLowerCase()}${stale ? " stale" : ""}`,
      title: stale ? `${words}: of an earlier result` : words,
    });
    if (mark.qc) chip.append(make("b", { text: mark.qc[0] }));
    if (mark.rank !== null) chip.append(make("i", { text: String(mark.rank) }));
    return chip;
  };

  class Table {
    /**
     * @param place element that becomes the table
     * @param marks what was decided
     * @param pictureOf (id, kind) -> address
     */
    constructor(place, marks, pictureOf) {
      this.onSelect = () => {};
      this.onOpen = () => {};
      this.onSort = () => {};
      this.rows = [];
      this.selected = "";
      this._marks = marks;
      this._pictureOf = pictureOf;
      this._seen = new Set();
      this._shown = new Map();
      this._spare = [];
      this._timer = 0;
      this._scroll = place;
      this._head = make("div", { className: "head line", role: "row" }, COLUMNS.map((column) => this._header(column)));
      this._space = make("div", { className: "space", role: "rowgroup" });
      place.append(this._head, this._space);
      place.addEventListener("scroll", () => this._render(), { passive: true });
      new ResizeObserver(() => this._render()).observe(place);
      this._space.addEventListener("click", (event) => {
        const line = event.target.closest(".row");
        if (line) this.onSelect(line.dataset.id);
      });
      this._space.addEventListener("dblclick", () => this.onOpen());
    }

    /** Show these rows, in this order. */
    show(rows) {
      this.rows = rows;
      this._at = new Map(rows.map((row, index) => [row.id, index]));
      this._space.style.height = `${rows.length * ROW}px`;
      this._scroll.setAttribute("aria-rowcount", String(rows.length + 1));
      this._recycle();
      this._render();
    }

    /** Where a volume stands; -1 where it is not shown. */
    indexOf(id) {
      return this._at.get(id) ?? -1;
    }

    select(id) {
      this.selected = id;
      const index = this.indexOf(id);
      if (index >= 0) this._reveal(index);
      this._render();
      for (const line of this._shown.values()) this._paintSelection(line);
    }

    /** Something changed about these volumes. */
    update(ids) {
      for (const id of ids) {
        const line = this._shown.get(this.indexOf(id));
        if (line) this._paintMark(line, this.rows[this.indexOf(id)]);
      }
    }

    /** The thumbs of these volumes are others now. */
    forget(ids) {
      for (const id of ids) this._seen.delete(id);
    }

    /** How many rows fit. */
    get height() {
      return Math.max(Math.floor((this._scroll.clientHeight - this._head.offsetHeight) / ROW), 1);
    }

    showSort(key, down) {
      for (const cell of this._head.children) {
        const sorted = cell.dataset.key === key;
        cell.setAttribute("aria-sort", !sorted ? "none" : down ? "descending" : "ascending");
      }
    }

    _header(column) {
      const cell = make("div", { className: `cell c-${column.key}`, role: "columnheader", "data-key": column.key });
      if (!column.label) return cell;
      const button = make("button", { text: column.label, title: column.title || "", type: "button" });
      button.addEventListener("click", () => this.onSort(column));
      cell.append(button);
      return cell;
    }

    _reveal(index) {
      const room = this._scroll.clientHeight - this._head.offsetHeight;
      // With a row beyond it, so that one sees what comes.
      const beyond = room > 4 * ROW ? ROW : 0;
      const top = index * ROW;
      if (top - beyond < this._scroll.scrollTop) this._scroll.scrollTop = top - beyond;
      else if (top + ROW + beyond > this._scroll.scrollTop + room) this._scroll.scrollTop = top + ROW + beyond - room;
    }

    _recycle() {
      for (const line of this._shown.values()) this._spare.push(line);
      this._shown.clear();
    }

    _render() {
      const first = Math.max(Math.floor(this._scroll.scrollTop / ROW) - BEYOND, 0);
      const last = Math.min(Math.ceil((this._scroll.scrollTop + this._scroll.clientHeight) / ROW) + BEYOND, this.rows.length);
      for (const [index, line] of this._shown) {
        if (index < first || index >= last) {
          this._shown.delete(index);
          this._spare.push(line);
        }
      }
      for (let index = first; index < last; index += 1) {
        if (!this._shown.has(index)) this._shown.set(index, this._filled(this._spare.pop() || this._line(), index));
      }
      for (const line of this._spare.splice(0)) line.remove();
      clearTimeout(this._timer);
      this._timer = setTimeout(() => this._loadThumbs(), this._seen.size ? REST_MS : 0);
    }

    _line() {
      const thumb = make("img", { alt: "", decoding: "async", draggable: "false" });
      thumb.addEventListener("error", () => thumb.removeAttribute("src"));
      const cells = COLUMNS.map((column) => make("div", { className: `cell c-${column.key}`, role: "cell" }));
      cells[0].append(thumb);
      return make("div", { className: "row line", role: "row" }, cells);
    }

    _filled(line, index) {
      const row = this.rows[index];
      const [thumb, name, status, flags, , area, slices, seconds] = line.children;
      line.dataset.id = row.id;
      line.style.transform = `translateY(${index * ROW}px)`;
      line.setAttribute("aria-rowindex", String(index + 2));
      thumb.firstChild.removeAttribute("src");
      if (this._seen.has(row.id)) this._loadThumb(line, row.id);
      name.replaceChildren(
        make("span", { className: "file", dir: "auto", title: row.name }, broken(titleOf(row))),
        make("span", { className: "origin", dir: "auto", text: originOf(row) }),
      );
      status.replaceChildren(statusLabel(row));
      flags.textContent = row.flags.join(", ").replaceAll("_", " ") || row.message;
      flags.title = flags.textContent;
      area.textContent = number(row.area_mm2, 1);
      slices.textContent = number(row.slices);
      seconds.textContent = number(row.seconds, row.seconds < 10 ? 1 : 0);
      this._paintMark(line, row);
      this._paintSelection(line);
      if (line.parentNode !== this._space) this._space.append(line);
      return line;
    }

    _paintMark(line, row) {
      const chip = markChip(this._marks, row.id);
      line.children[4].replaceChildren(...(chip ? [chip] : []));
    }

    _paintSelection(line) {
      line.classList.toggle("selected", line.dataset.id === this.selected);
      line.setAttribute("aria-current", String(line.dataset.id === this.selected));
    }

    _loadThumbs() {
      for (const line of this._shown.values()) {
        const row = this.rows[this.indexOf(line.dataset.id)];
        if (row && row.pictures && !this._seen.has(row.id)) {
          this._seen.add(row.id);
          this._loadThumb(line, row.id);
        }
      }
    }

    _loadThumb(line, id) {
      const address = this._pictureOf(id, "thumb");
      if (address) line.children[0].firstChild.src = address;
    }
  }

  page.Table = Table;
  page.STATUS = STATUS;
  page.COLUMNS = COLUMNS;
  page.statusLabel = statusLabel;
})();
