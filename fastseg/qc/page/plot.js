"use strict";

// Area of the cord on each slice, head on the left as in the thumbnails. Flagged slices are bands with their flag's name.
(() => {
  const page = window.fastsegPage;
  const { make, makeSvg } = page;
  const HEIGHT = 150;
  const LEFT = 38;
  const RIGHT = 10;
  const BOTTOM = 30;
  const LANE = 14;
  // Width of a letter of a flag's name, about.
  const LETTER = 7;

  /** Round steps for an axis, about `wanted` of them. */
  const stepOf = (range, wanted) => {
    const rough = range / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  };

  /** Ascending slices as runs [first, last] of neighbours. */
  const runsOf = (slices) => {
    const runs = [];
    for (const z of [...slices].sort((a, b) => a - b)) {
      if (runs.length && z - runs.at(-1)[1] <= 1) runs.at(-1)[1] = z;
      else runs.push([z, z]);
    }
    return runs;
  };

  class Plot {
    constructor() {
      this.onSlice = () => {};
      this._svg = makeSvg("svg", { role: "img", height: HEIGHT });
      this._value = make("span", { className: "value" });
      this.element = make("figure", { className: "plot" }, [
        make("figcaption", {}, [make("span", { text: "Area per slice, mm²" }), this._value]),
        this._svg,
      ]);
      this._detail = null;
      this._svg.addEventListener("pointermove", (event) => this.onSlice(this._sliceAt(event), false));
      this._svg.addEventListener("pointerleave", () => this.onSlice(null, false));
      this._svg.addEventListener("click", (event) => this.onSlice(this._sliceAt(event), true));
      new ResizeObserver(() => this._draw()).observe(this.element);
    }

    /** Show a volume's areas; null hides the plot. */
    show(detail) {
      this._detail = detail && detail.areas.length ? detail : null;
      this.element.hidden = !this._detail;
      this._drawn = "";
      this._draw();
    }

    markSlice(z) {
      this._z = z;
      if (!this._detail || !this._cursor) return;
      const area = this._area.get(z);
      this._cursor.replaceChildren();
      this._value.textContent = z === null ? this._summary : `slice ${z}: ${area === undefined ? "no cord" : `${area.toFixed(1)} mm²`}`;
      if (z === null || z < this._low || z > this._high) return;
      const x = this._x(z);
      this._cursor.append(makeSvg("line", { x1: x, x2: x, y1: this._top, y2: HEIGHT - BOTTOM }));
      if (area !== undefined) this._cursor.append(makeSvg("circle", { cx: x, cy: this._y(area), r: 3.5 }));
    }

    _draw() {
      const { width } = this._svg.getBoundingClientRect();
      if (!this._detail || !width || this._drawn === width) return;
      this._drawn = width;
      this._width = width;
      const { areas, flag_slices: flagged } = this._detail;
      const flags = Object.entries(flagged).filter(([, slices]) => slices.length);
      const all = [...areas.map(([z]) => z), ...flags.flatMap(([, slices]) => slices)];
      this._low = Math.min(...all);
      this._high = Math.max(...all);
      this._top = 6 + LANE * flags.length;
      this._area = new Map(areas);
      this._step = stepOf(Math.max(...this._area.values(), 1), 3);
      this._most = Math.ceil(Math.max(...this._area.values(), 1) / this._step) * this._step;
      const ascending = [...this._area.values()].sort((a, b) => a - b);
      const middle = (ascending[(ascending.length - 1) >> 1] + ascending[ascending.length >> 1]) / 2;
      this._summary = `median ${middle.toFixed(1)} mm² on ${areas.length} slices`;
      this._svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      this._svg.setAttribute("aria-label", `Area per slice: ${this._summary}`);
      this._cursor = makeSvg("g", { class: "cursor" });
      this._svg.replaceChildren(...this._axes(), ...flags.flatMap((each, lane) => this._bands(each, lane)), ...this._curve(), this._cursor);
      this.markSlice(this._z ?? null);
    }

    _x(z) {
      return LEFT + ((this._high - z + 0.5) / (this._high - this._low + 1)) * (this._width - LEFT - RIGHT);
    }

    _y(area) {
      return HEIGHT - BOTTOM - (area / this._most) * (HEIGHT - BOTTOM - this._top);
    }

    _axes() {
      const drawn = [];
      for (let area = 0; area <= this._most; area += this._step) {
        const y = this._y(area);
        drawn.push(makeSvg("line", { class: area ? "grid" : "axis", x1: LEFT, x2: this._width - RIGHT, y1: y, y2: y }));
        drawn.push(makeSvg("text", { x: LEFT - 6, y: y + 3.5, "text-anchor": "end" }, String(area)));
      }
      const slices = this._high - this._low + 1;
      const step = Math.max(stepOf(slices, this._width / 70), 1);
      for (let z = Math.ceil(this._low / step) * step; z <= this._high; z += step) {
        drawn.push(makeSvg("text", { x: this._x(z), y: HEIGHT - BOTTOM + 13, "text-anchor": "middle" }, String(z)));
      }
      const foot = HEIGHT - 3;
      drawn.push(makeSvg("text", { x: LEFT, y: foot, class: "end" }, "head"));
      drawn.push(makeSvg("text", { x: (LEFT + this._width - RIGHT) / 2, y: foot, "text-anchor": "middle", class: "end" }, "slice"));
      drawn.push(makeSvg("text", { x: this._width - RIGHT, y: foot, "text-anchor": "end", class: "end" }, "foot"));
      return drawn;
    }

    /** A flag's slices as bands, and its name once. */
    _bands([flag, slices], lane) {
      const half = (this._width - LEFT - RIGHT) / (this._high - this._low + 1) / 2;
      const runs = runsOf(slices);
      const bands = runs.map(([first, last]) => {
        const x = this._x(last) - Math.max(half, 1.5);
        const width = this._x(first) + Math.max(half, 1.5) - x;
        const y = 4 + LANE * lane;
        return makeSvg("rect", { class: "band", x, y, width, height: HEIGHT - BOTTOM - y });
      });
      return [...bands, this._label(flag.replaceAll("_", " "), runs, half, 14 + LANE * lane)];
    }

    /** A flag's name beside its highest slices, which are the leftmost; over them where there is no room. */
    _label(name, runs, half, y) {
      const [first, last] = runs.at(-1);
      const width = LETTER * name.length;
      const after = this._x(first) + half + 4;
      const before = this._x(last) - half - 4;
      const place = { class: "flag", y, "text-anchor": "start", x: Math.max(this._width - RIGHT - width, LEFT) };
      if (after + width < this._width - RIGHT) place.x = after;
      else if (before - width > LEFT) Object.assign(place, { x: before, "text-anchor": "end" });
      return makeSvg("text", place, name);
    }

    /** The curve, broken where slices have no cord. */
    _curve() {
      const runs = [];
      for (const [z, area] of this._detail.areas) {
        const point = `${this._x(z).toFixed(1)} ${this._y(area).toFixed(1)}`;
        if (runs.length && z - runs.at(-1).z <= 1) runs.at(-1).points.push(point);
        else runs.push({ points: [point] });
        runs.at(-1).z = z;
      }
      const lines = runs.map(({ points }) => makeSvg("path", { class: "curve", d: `M${points.join("L")}` }));
      if (this._width / (this._high - this._low + 1) < 7) return lines.concat(this._dots(runs.filter(({ points }) => points.length === 1)));
      return lines.concat(this._dots(runs));
    }

    _dots(runs) {
      return runs.flatMap(({ points }) => points).map((point) => {
        const [cx, cy] = point.split(" ");
        return makeSvg("circle", { class: "dot", cx, cy, r: 1.8 });
      });
    }

    _sliceAt(event) {
      if (!this._detail) return null;
      const box = this._svg.getBoundingClientRect();
      const part = (event.clientX - box.left - LEFT) / (this._width - LEFT - RIGHT);
      const z = this._high - Math.floor(part * (this._high - this._low + 1));
      return part < 0 || part >= 1 ? null : z;
    }
  }

  page.Plot = Plot;
})();
