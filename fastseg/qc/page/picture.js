"use strict";

// The sheet of a volume: picture, outline of the mask, and over both, as SVG, numbers, letters and the slice looked at.
(() => {
  const page = window.fastsegPage;
  const { make, makeSvg } = page;
  const LETTER = 11;
  // Pixels of the screen below which a tile has no room for four letters and a number.
  const DENSE = 70;

  const overlaid = (x, y, text, anchor = "start", className = "letter") =>
    makeSvg("text", { x, y, "text-anchor": anchor, class: className }, text);

  class Sheet {
    constructor() {
      this.onSlice = () => {};
      this.outlined = true;
      this._image = make("img", { className: "base", alt: "", decoding: "sync", draggable: "false" });
      this._outline = make("img", { className: "outline", alt: "", decoding: "sync", draggable: "false" });
      this._over = makeSvg("svg", { class: "over", "aria-hidden": "true" });
      this._said = make("p", { className: "said" });
      this._stage = make("div", { className: "stage" }, [this._image, this._outline, this._over]);
      this.element = make("div", { className: "sheet" }, [this._stage, this._said]);
      this._layout = null;
      this._image.addEventListener("error", () => this._missing("The picture cannot be loaded: make the report again with fastseg qc build."));
      this._outline.addEventListener("error", () => this._outline.removeAttribute("src"));
      this._over.addEventListener("pointermove", (event) => this.onSlice(this._sliceAt(event), false));
      this._over.addEventListener("pointerleave", () => this.onSlice(null, false));
      this._over.addEventListener("click", (event) => this.onSlice(this._sliceAt(event), true));
      new ResizeObserver(() => this._scale()).observe(this._stage);
    }

    /** Show a volume's pictures; its layout comes with its detail, perhaps later. */
    show(row, sheet, outline) {
      this._layout = null;
      this._over.replaceChildren();
      this.element.classList.remove("missing");
      this._image.alt = row.mask ? "slices along the cord, with the outline of the mask" : "slices of the volume";
      for (const [image, address] of [[this._image, sheet], [this._outline, outline]]) {
        if (address) image.src = address;
        else image.removeAttribute("src");
      }
      if (!sheet) this._missing("There is no picture of this volume.");
    }

    /** Draw letters and numbers; `flagged` slices stand out. */
    annotate(layout, flagged) {
      this._layout = layout;
      const [width, height] = layout.size;
      this._stage.style.setProperty("--width", width);
      this._stage.style.setProperty("--height", height);
      this._over.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this._here = makeSvg("g", { class: "here" });
      this._over.replaceChildren(...this._numbers(flagged), ...this._letters(), this._here);
      this._scale();
    }

    setOutline(on) {
      this.outlined = on;
      this.element.classList.toggle("plain", !on);
    }

    /** Mark a slice in the side view, and its tile where it has one; null for none. */
    markSlice(z) {
      if (!this._layout) return;
      this._here.replaceChildren();
      if (z === null) return;
      const { side, tile } = this._layout;
      const place = this._tileOf(z);
      if (side && z <= side.z_top && z >= side.z_bottom) {
        const y = side.y + ((side.z_top - z + 0.5) / (side.z_top - side.z_bottom + 1)) * side.height;
        this._here.append(makeSvg("line", { x1: side.x, x2: side.x + side.width, y1: y, y2: y }));
      }
      if (place) {
        const className = place.z === z ? "exact" : "near";
        this._here.append(makeSvg("rect", { x: place.x, y: place.y, width: tile, height: tile, class: className }));
      }
    }

    _missing(text) {
      this.element.classList.add("missing");
      this._said.textContent = text;
    }

    _numbers(flagged) {
      return this._layout.tiles.map(({ x, y, z }) =>
        overlaid(x + 3, y + 2, String(z), "start", flagged.has(z) ? "number odd" : "number"),
      );
    }

    /** Directions at the edges of the side view and of the first tile. */
    _letters() {
      const { side, tiles, tile } = this._layout;
      const around = (x, y, width, height, [top, bottom, left, right], more = "") => [
        overlaid(x + width / 2, y + 2, top, "middle", `letter top${more}`),
        overlaid(x + width / 2, y + height - 3, bottom, "middle", `letter bottom${more}`),
        overlaid(x + 3, y + height / 2, left, "start", "letter"),
        overlaid(x + width - 3, y + height / 2, right, "end", "letter"),
      ];
      return [
        ...(side ? around(side.x, side.y, side.width, side.height, ["S", "I", "A", "P"]) : []),
        ...(tiles.length ? around(tiles[0].x, tiles[0].y, tile, tile, ["A", "P", "R", "L"], " spare") : []),
      ];
    }

    /** Letters stay as large on the screen, however large the sheet is. */
    _scale() {
      if (!this._layout || !this._stage.clientWidth) return;
      const scale = this._layout.size[0] / this._stage.clientWidth;
      this._over.style.setProperty("--letter", `${Math.min(LETTER * scale, this._layout.tile / 5)}px`);
      this._over.classList.toggle("dense", this._layout.tile / scale < DENSE);
      this._over.style.setProperty("--stroke", `${1.5 * scale}px`);
    }

    _tileOf(z) {
      const { tiles } = this._layout;
      return tiles.reduce((best, each) => (best && Math.abs(best.z - z) <= Math.abs(each.z - z) ? best : each), null);
    }

    _sliceAt(event) {
      if (!this._layout) return null;
      const { size, side, tiles, tile } = this._layout;
      const box = this._over.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * size[0];
      const y = ((event.clientY - box.top) / box.height) * size[1];
      const within = (left, top, width, height) => x >= left && x < left + width && y >= top && y < top + height;
      const there = tiles.find((each) => within(each.x, each.y, tile, tile));
      if (there) return there.z;
      if (!side || !within(side.x, side.y, side.width, side.height)) return null;
      const part = (y - side.y) / side.height;
      return side.z_top - Math.floor(part * (side.z_top - side.z_bottom + 1));
    }
  }

  page.Sheet = Sheet;
})();
