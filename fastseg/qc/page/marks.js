"use strict";

// What somebody decided about volumes: Pass, Fail or Artifact, and a rank. Kept in this browser under one key a
// volume, so that two windows do not undo each other's work, and on the server where there is one.
(() => {
  const page = window.fastsegPage;
  const { MARKS } = page.formats;
  const RETRY_MS = 5000;
  const SEND_MS = 300;

  const timeOf = (mark) => Date.parse(mark.at) || 0;

  /** A mark as the contract has it, of anything that a file or a storage may hold; null if it is none. */
  const checked = (mark) => {
    if (typeof mark !== "object" || mark === null || typeof mark.id !== "string") return null;
    const rank = mark.rank ?? null;
    if (rank !== null && !(Number.isInteger(rank) && rank >= 0 && rank <= 9)) return null;
    const qc = mark.qc ?? "";
    if (qc !== "" && !MARKS.includes(qc)) return null;
    const text = (value) => (typeof value === "string" ? value : "");
    return { id: mark.id, name: text(mark.name), qc, rank, mask: text(mark.mask), at: text(mark.at) };
  };

  class Marks {
    /**
     * @param uuid of the report; empty where the index is broken, and then nothing is kept
     * @param rows by id
     * @param written marks that the report's folder has
     */
    constructor(uuid, rows, written) {
      this.rows = rows;
      this.uuid = uuid;
      this.onChange = () => {};
      this.onState = () => {};
      this.state = "";
      this._prefix = `fastseg-qc:${uuid}:`;
      this._all = new Map();
      this._served = false;
      this._timer = 0;
      this._sending = false;
      this._unsent = false;
      this.read(written);
      this._unsent = this._read();
      window.addEventListener("storage", (event) => this._overheard(event));
      window.addEventListener("pagehide", () => this._timer && this._send());
    }

    /** The mark of a volume, or null where it never had one. */
    of(id) {
      return this._all.get(id) || null;
    }

    /** Whether a mark was given to an earlier result of the volume, which the present one replaced. */
    stale(mark) {
      const row = this.rows.get(mark.id);
      return Boolean(row) && row.mask !== mark.mask;
    }

    /** The mark of the present result: {qc, rank}, empty where nobody marked it. */
    current(id) {
      const mark = this.of(id);
      return mark && !this.stale(mark) ? mark : { qc: "", rank: null };
    }

    /** Mark a volume. `change` has qc, rank or both. */
    set(id, change) {
      this.setMany([id], change);
    }

    setMany(ids, change) {
      const marked = ids.filter((id) => this.rows.has(id));
      for (const id of marked) {
        const { name, mask } = this.rows.get(id);
        const { qc, rank } = { ...this.current(id), ...change };
        const before = this.of(id);
        // Newer than what it replaces, even where that comes from a clock that is ahead.
        const at = new Date(Math.max(Date.now(), before ? timeOf(before) + 1 : 0)).toISOString();
        this._keep({ id, name, qc, rank, mask, at });
      }
      if (marked.length) this.onChange(marked);
    }

    /** All marks, also cleared ones (they must win over older ones elsewhere), in the order of their names. */
    all() {
      return [...this._all.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
    }

    /** All marks as a file has them: those of earlier results say so, and exclude nothing. */
    told() {
      return this.all().map((mark) => (this.stale(mark) ? { ...mark, earlier: true } : mark));
    }

    /** Names of the volumes whose present result has a mark. */
    named(qc) {
      return this.all().filter((mark) => mark.qc === qc && !this.stale(mark)).map((mark) => mark.name);
    }

    /** Take marks of a file; the newer mark of a volume stays. Returns how many were taken. */
    take(marks) {
      const taken = [];
      for (const mark of marks) {
        const known = this.of(mark.id);
        if (known && timeOf(known) >= timeOf(mark)) continue;
        this._keep(mark);
        taken.push(mark.id);
      }
      if (taken.length) this.onChange(taken);
      return taken.length;
    }

    /** Take what the report's folder has. */
    read(written) {
      for (const mark of Array.isArray(written) ? written : []) this._merge(checked(mark));
    }

    /** The page is served and may save marks in the report's folder. */
    serve() {
      this._served = true;
      if (this._unsent) this._send();
      else this._say("saved");
    }

    _say(state) {
      this.state = state;
      this.onState(state);
    }

    _merge(mark) {
      if (!mark) return false;
      const known = this._all.get(mark.id);
      if (known && timeOf(known) >= timeOf(mark)) return false;
      this._all.set(mark.id, mark);
      return true;
    }

    /** Marks of this browser. Whether one of them is newer than the folder's. */
    _read() {
      let newer = false;
      if (!this.uuid) return newer;
      for (const key of page.storage.keys()) {
        if (key.startsWith(this._prefix)) newer = this._merge(this._parsed(key, page.storage.get(key))) || newer;
      }
      return newer;
    }

    _parsed(key, text) {
      try {
        return checked({ ...JSON.parse(text), id: key.slice(this._prefix.length) });
      } catch {
        return null;
      }
    }

    _keep(mark) {
      this._all.set(mark.id, mark);
      const { id, ...rest } = mark;
      const kept = Boolean(this.uuid) && page.storage.set(this._prefix + id, JSON.stringify(rest));
      this._unsent = true;
      if (this._served) this._later(SEND_MS);
      else this._say(kept ? "kept" : "lost");
    }

    /** Another window of this browser marked something. */
    _overheard(event) {
      if (!event.key || !event.newValue || !event.key.startsWith(this._prefix)) return;
      const mark = this._parsed(event.key, event.newValue);
      if (this._merge(mark)) this.onChange([mark.id]);
    }

    _later(wait) {
      if (this.state !== "unsaved") this._say("saving");
      clearTimeout(this._timer);
      this._timer = setTimeout(() => this._send(), wait);
    }

    async _send() {
      clearTimeout(this._timer);
      this._timer = 0;
      if (this._sending) return;
      this._sending = true;
      this._unsent = false;
      let saved = false;
      try {
        const body = page.formats.flagsOf(this.uuid, this.all());
        // A page that is being left may send 64 kB at most; this browser keeps the marks and sends them next time.
        const keepalive = body.length < 20_000;
        saved = (await fetch("marks", { method: "PUT", body, keepalive })).ok;
      } catch {
        saved = false;
      }
      this._sending = false;
      if (!saved) {
        this._unsent = true;
        this._say("unsaved");
        this._timer = setTimeout(() => this._send(), RETRY_MS);
      } else if (this._unsent) this._later(0);
      else this._say("saved");
    }
  }

  page.Marks = Marks;
  page.checkedMark = checked;
})();
