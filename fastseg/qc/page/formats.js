"use strict";

// What leaves the page and comes back into it: SCT's YAML lists and qc_flags.json.
(() => {
  const page = window.fastsegPage;
  const MARKS = ["Pass", "Fail", "Artifact"];
  const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._/ -]*$/;
  // Line breaks to YAML, or letters that a YAML file must not have: JSON may leave them as they are.
  const UNPRINTABLE = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

  const fileOf = (mark) => `qc_${mark.toLowerCase()}.yml`;

  const baseOf = (name) => name.slice(name.lastIndexOf("/") + 1);

  const scalar = (name) =>
    PLAIN.test(name) && !name.endsWith(" ")
      ? name
      : JSON.stringify(name).replace(UNPRINTABLE, (letter) => {
          return `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
        });

  /** Names for lists: the file's own where no other volume of the report has it, else with its folders. */
  const shortNames = (rows) => {
    const count = new Map();
    for (const row of rows) count.set(baseOf(row.name), (count.get(baseOf(row.name)) || 0) + 1);
    return (name) => ((count.get(baseOf(name)) || 0) > 1 ? name : baseOf(name));
  };

  const yamlOf = (names) =>
    names.length ? `FILES_SEG:\n${names.map((name) => `- ${scalar(name)}\n`).join("")}` : "FILES_SEG: []\n";

  const flagsOf = (uuid, marks) =>
    `${JSON.stringify({ version: 1, report: uuid, marks }, null, 1)}\n`;

  /** A YAML scalar as such lists have it: quoted, or plain up to a comment. */
  const valueOf = (text) => {
    if (text.startsWith('"')) {
      const end = /^"(?:[^"\\]|\\.)*"/.exec(text);
      try {
        return end ? JSON.parse(end[0]) : null;
      } catch {
        return null;
      }
    }
    if (text.startsWith("'")) {
      const end = /^'((?:[^']|'')*)'/.exec(text);
      return end ? end[1].replaceAll("''", "'") : null;
    }
    return text.replace(/(^|\s)#.*$/, "").trim();
  };

  /**
   * The names in a list like SCT's qc_fail.yml. Only FILES_SEG, and lists without a key, are of the cord's mask.
   * Returns {names, others: how many stand under other keys, broken: the first line that is no such list or 0}.
   */
  const namesOf = (text) => {
    const found = { names: [], others: 0, broken: 0 };
    let ours = true;
    const take = (value) => {
      if (!ours) found.others += 1;
      else if (value) found.names.push(value);
    };
    text.replace(/^\ufeff/, "").split(/\r?\n/).forEach((line, index) => {
      const item = /^\s*-(?:\s+(.*))?$/.exec(line);
      const key = /^([A-Za-z_]\w*)\s*:\s*(.*)$/.exec(line);
      if (/^\s*(#.*)?$/.test(line) || /^(---|\.\.\.)\s*$/.test(line)) return;
      if (item) {
        const value = valueOf((item[1] || "").trim());
        if (value === null) found.broken ||= index + 1;
        else take(value);
      } else if (key) {
        ours = key[1] === "FILES_SEG";
        const rest = valueOf(key[2]);
        const inline = /^\[(.*)\]$/.exec(rest || "");
        if (inline) inline[1].split(",").map((each) => valueOf(each.trim())).filter(Boolean).forEach(take);
        else if (rest) found.broken ||= index + 1;
      } else found.broken ||= index + 1;
    });
    return found;
  };

  /** Which mark a list gives, by the file's name: browsers call a second download "qc_fail (1).yml". */
  const markOfFile = (name) => MARKS.find((mark) => baseOf(name).toLowerCase().includes(mark.toLowerCase())) || "";

  page.formats = { MARKS, fileOf, baseOf, shortNames, yamlOf, flagsOf, namesOf, markOfFile };
})();
