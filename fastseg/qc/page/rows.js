"use strict";

// What the index says, made safe to show, and which of it is shown: filters, search, order.
(() => {
  const page = window.fastsegPage;
  const FAILED = ["no_cord", "bad_input", "out_of_memory", "error"];

  const text = (value) => (typeof value === "string" ? value : value === undefined || value === null ? "" : String(value));
  const count = (value) => (Number.isFinite(value) ? value : null);
  const object = (value) => (typeof value === "object" && value !== null && !Array.isArray(value) ? value : {});
  const list = (value) => (Array.isArray(value) ? value : []);

  /** A row as the contract has it; null where it is none, for an id becomes a path. */
  const checkedRow = (row) => {
    if (!/^[0-9a-f]{16}$/.test(object(row).id) || typeof row.name !== "string") return null;
    const texts = ["dataset", "subject", "contrast", "status", "message", "engine", "mask", "at"];
    return {
      id: row.id,
      name: row.name,
      ...Object.fromEntries(texts.map((key) => [key, text(row[key])])),
      flags: list(row.flags).map(text),
      severity: count(row.severity) ?? 0,
      slices: count(row.slices),
      area_mm2: count(row.area_mm2),
      length_mm: count(row.length_mm),
      seconds: count(row.seconds),
      manual: row.manual === true,
      pictures: row.pictures === true,
    };
  };

  /** The rows of an index: {rows, broken: how many are no rows}. Of one id the last counts. */
  const rowsOf = (index) => {
    const read = list(object(index).volumes).map(checkedRow);
    const good = read.filter(Boolean);
    return { rows: [...new Map(good.map((row) => [row.id, row])).values()], broken: read.length - good.length };
  };

  const pairs = (value) => list(value).filter((each) => Array.isArray(each) && each.every(Number.isFinite) && each.length === 2);

  const checkedLayout = (layout) => {
    const { size, side, tiles, tile } = object(layout);
    const finite = (value, keys) => keys.every((key) => Number.isFinite(object(value)[key]));
    if (!pairs([size]).length || !Number.isFinite(tile) || !list(tiles).every((each) => finite(each, ["x", "y", "z"]))) return null;
    const seen = finite(side, ["x", "y", "width", "height", "z_top", "z_bottom"]);
    return { size, tile, tiles: list(tiles), side: seen ? side : null };
  };

  /** A volume's detail as the contract has it, whatever is missing from it. */
  const checkedDetail = (detail) => {
    const { areas, flag_slices: slices, reasons, notes, measures, header, paths, commands, sheet } = object(detail);
    const texts = (value) => Object.fromEntries(Object.entries(object(value)).filter(([, each]) => typeof each === "string"));
    return {
      sheet: checkedLayout(sheet),
      areas: pairs(areas).sort((a, b) => a[0] - b[0]),
      flag_slices: Object.fromEntries(Object.entries(object(slices)).map(([flag, z]) => [flag, list(z).filter(Number.isFinite)])),
      reasons: texts(reasons),
      notes: list(notes).map(text),
      measures: object(measures),
      header: object(header),
      paths: texts(paths),
      commands: texts(commands),
    };
  };

  const haystack = (row) => {
    row.words ||= [row.name, row.subject, row.dataset, row.message, ...row.flags].join("\n").toLowerCase();
    return row.words;
  };

  const statusMatches = (row, wanted) => {
    if (wanted === "look") return row.status === "ok_flagged" || FAILED.includes(row.status);
    if (wanted === "failed") return FAILED.includes(row.status);
    if (wanted === "manual") return row.manual;
    return row.status === wanted;
  };

  const markMatches = (mark, stale, wanted) => {
    const there = mark !== null && (mark.qc !== "" || mark.rank !== null);
    if (wanted === "stale") return there && stale;
    if (wanted === "marked") return there && !stale && mark.qc !== "";
    if (wanted === "unmarked") return !there || stale || mark.qc === "";
    if (wanted.startsWith("rank")) return there && !stale && mark.rank === Number(wanted.slice(4));
    return there && !stale && mark.qc === wanted;
  };

  /** A function that says whether a row is shown. `filters` has status, flag, mark, contrast, dataset, search. */
  const filterOf = (filters, marks) => {
    const words = filters.search.toLowerCase().split(/\s+/).filter(Boolean);
    return (row) => {
      if (filters.status && !statusMatches(row, filters.status)) return false;
      if (filters.flag && !row.flags.includes(filters.flag)) return false;
      if (filters.contrast && row.contrast !== filters.contrast) return false;
      if (filters.dataset && row.dataset !== filters.dataset) return false;
      const mark = marks.of(row.id);
      if (filters.mark && !markMatches(mark, mark !== null && marks.stale(mark), filters.mark)) return false;
      return words.every((word) => haystack(row).includes(word));
    };
  };

  const compared = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  /** Rows in the order of a column. Those without a value come last, equal ones worst first, then by name. */
  const sorted = (rows, by, down) => {
    const keyed = rows.map((row) => ({ row, key: by(row) }));
    const missing = ({ key }) => key === null || key === undefined || key === "";
    keyed.sort((a, b) => {
      if (missing(a) !== missing(b)) return missing(a) ? 1 : -1;
      return (down ? -1 : 1) * compared(a.key, b.key)
        || b.row.severity - a.row.severity || compared(a.row.name, b.row.name) || compared(a.row.id, b.row.id);
    });
    return keyed.map(({ row }) => row);
  };

  page.rowsOf = rowsOf;
  page.checkedDetail = checkedDetail;
  page.filterOf = filterOf;
  page.sorted = sorted;
  page.FAILED = FAILED;
})();
