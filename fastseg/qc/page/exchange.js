"use strict";

// Marks out of the page and into it: downloads, the clipboard, files chosen or dropped.
(() => {
  const page = window.fastsegPage;
  const { make } = page;
  const { MARKS, fileOf, shortNames, yamlOf, flagsOf, namesOf, markOfFile, baseOf } = page.formats;
  const MOST_BYTES = 200_000_000;

  /** Put a text on the clipboard; whether that worked. Pages without https lack the new way in some browsers. */
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = make("textarea", { className: "aside" });
      area.value = text;
      (document.querySelector("dialog[open]") || document.body).append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };

  const download = (name, text) => {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };

  class Exchange {
    constructor(rows, marks, say) {
      this._marks = marks;
      this._say = say;
      this.setRows(rows);
      this._dialog = document.getElementById("files");
      const input = document.getElementById("import");
      input.addEventListener("change", async () => {
        await this._load(input.files);
        input.value = "";
      });
      document.addEventListener("dragover", (event) => this._drag(event));
      document.addEventListener("dragleave", (event) => event.relatedTarget || this._drop(false));
      document.addEventListener("drop", (event) => {
        if (!event.dataTransfer.types.includes("Files")) return;
        event.preventDefault();
        this._drop(false);
        this._load(event.dataTransfer.files);
      });
    }

    setRows(rows) {
      this._rows = rows;
      this._short = shortNames(rows);
      this._places = new Map();
    }

    open() {
      this._list();
      this._dialog.showModal();
    }

    /** File names and texts, as they are now. */
    texts() {
      const lists = MARKS.map((qc) => [fileOf(qc), yamlOf(this._names(qc))]);
      return [...lists, ["qc_flags.json", flagsOf(this._marks.uuid, this._marks.told())]];
    }

    _names(qc) {
      return this._marks.named(qc).map(this._short);
    }

    _list() {
      const counts = [...MARKS.map((qc) => this._names(qc).length), this._marks.all().filter((mark) => mark.qc || mark.rank !== null).length];
      const lines = this.texts().map(([name], index) => make("tr", {}, [
        make("th", { scope: "row", text: name }),
        make("td", { className: "count", text: counts[index].toLocaleString("en") }),
        make("td", {}, [this._button("Save", name, false), this._button("Copy", name, true)]),
      ]));
      document.getElementById("exports").replaceChildren(...lines);
      const stale = this._marks.all().filter((mark) => mark.qc && this._marks.stale(mark)).length;
      const said = document.getElementById("left-out");
      said.hidden = !stale;
      said.textContent = `${stale} of an earlier result ${stale === 1 ? "is" : "are"} left out of the lists: mark again.`;
    }

    _button(label, name, clipboard) {
      const button = make("button", { type: "button", className: "button", text: label, "aria-label": `${label} ${name}` });
      button.addEventListener("click", async () => {
        const text = new Map(this.texts()).get(name);
        if (!clipboard) download(name, text);
        else button.textContent = (await copy(text)) ? "Copied" : "Not copied";
      });
      return button;
    }

    _drag(event) {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      this._drop(true);
    }

    _drop(over) {
      document.body.classList.toggle("dropping", over);
    }

    async _load(files) {
      const said = [];
      for (const file of files) {
        if (file.size > MOST_BYTES) said.push(`${file.name} is too large for a file with marks`);
        else said.push(this._read(file.name, await file.text()));
      }
      if (this._dialog.open) this._list();
      this._say(said.join(". "));
    }

    /** Take a file's marks; a sentence about what came of it. */
    _read(file, text) {
      if (/\.json$/i.test(file)) return this._readFlags(file, text);
      const qc = markOfFile(file);
      if (!qc) return `${file}: the name has to say pass, fail or artifact`;
      const { names, others, broken } = namesOf(text);
      if (broken) return `${file} line ${broken}: this is no list of image file names`;
      const { known, unknown } = this._known(names);
      const fresh = known.filter((row) => this._marks.current(row.id).qc !== qc);
      this._marks.setMany(fresh.map((row) => row.id), { qc });
      const rest = others ? `, ${others} under other keys than FILES_SEG passed over` : "";
      return `${file}: ${known.length} ${known.length === 1 ? "volume is" : "volumes are"} ${qc}${rest}${this._strangers(unknown)}`;
    }

    _readFlags(file, text) {
      let record = null;
      try {
        record = JSON.parse(text);
      } catch {
        return `${file} is no JSON`;
      }
      if (!Array.isArray(record?.marks)) return `${file} holds no marks`;
      const read = record.marks.map(page.checkedMark);
      const marks = read.filter(Boolean);
      const byName = new Map(this._rows.map((row) => [row.name, row.id]));
      const ids = new Set(this._rows.map((row) => row.id));
      // A report of another place has other ids, and the same names.
      const ours = marks.map((mark) => (ids.has(mark.id) ? mark : { ...mark, id: byName.get(mark.name) || mark.id }));
      const here = ours.filter((mark) => ids.has(mark.id));
      const taken = this._marks.take(here);
      const broken = read.length - marks.length;
      const strangers = ours.filter((mark) => !ids.has(mark.id)).map((mark) => mark.name);
      return `${file}: ${taken} of ${here.length} marks taken${taken < here.length ? ", the others here are as new" : ""}`
        + `${broken ? `, ${broken} are no marks` : ""}${this._strangers(strangers)}`;
    }

    /** Rows of names as lists have them: with folders or without, with suffix or without. */
    _known(names) {
      const stem = (name) => name.replace(/^\.\//, "").replace(/\.nii(\.gz)?$/i, "");
      if (!this._places.size) {
        for (const row of this._rows) {
          this._places.set(stem(row.name), row);
          const base = stem(baseOf(row.name));
          if (base !== stem(row.name)) this._places.set(`\n${base}`, this._places.has(`\n${base}`) ? null : row);
        }
      }
      const find = (name) => this._places.get(stem(name)) || this._places.get(`\n${stem(name)}`) || null;
      const known = [...new Set(names.map(find).filter(Boolean))];
      return { known, unknown: names.filter((name) => !find(name)) };
    }

    _strangers(names) {
      if (!names.length) return "";
      const first = names.slice(0, 2).map((name) => (name.length > 60 ? `${name.slice(0, 60)}…` : name)).join(", ");
      return `; ${names.length} not in this report, or not unique in it (${first}${names.length > 2 ? ", …" : ""})`;
    }
  }

  page.copy = copy;
  page.Exchange = Exchange;
})();
