"use strict";

// One view of the volume: which slice is seen, how large, and where on it a place in mm is.
// Slices are those of the image's own grid, also where that is oblique to the scanner: nothing is interpolated
// but between neighbouring voxels, and a point lies on a slice that exists.
(function (viewer) {
  // Axes of NiiVue's fractions: 0..1 from the patient's left to right, back to front, foot to head, along the
  // axes of the grid that are nearest to these.
  const PLANES = {
    sagittal: { through: 0, across: 1, up: 2, letters: { left: "A", right: "P", top: "S", bottom: "I" } },
    axial: { through: 2, across: 0, up: 1, letters: { left: "R", right: "L", top: "A", bottom: "P" } },
  };
  const ZOOM_LIMITS = [0.5, 40];

  class View {
    constructor(box, plane, painter) {
      this.box = box;
      this.plane = plane;
      this.painter = painter;
      this.axes = PLANES[plane];
      this.canvas = document.createElement("canvas");
      box.append(this.canvas);
      this.marks = viewer.marks.layer(box, this.axes.letters);
      this.slice = 0;
      this.zoom = 1;
      this.centre = [0, 0]; // mm of the straightened grid, across and up
      this.seen = null; // the rectangle that the canvas shows: its left lower corner, and its size, signed
      this.drawn = () => {};
    }

    open() {
      new ResizeObserver(() => this.resize()).observe(this.box);
      this.resize();
    }

    get image() {
      return this.painter.image;
    }

    // Another volume, or none.
    begin() {
      this.slice = this.image ? Math.floor(this.count / 2) : 0;
      this.fit();
    }

    // Number of slices one behind the other, and their distance in mm.
    get count() {
      return this.image ? this.image.dimsRAS[this.axes.through + 1] : 1;
    }

    get pitch() {
      return this.extent(this.axes.through) / this.count;
    }

    get depth() {
      return (this.slice + 0.5) / this.count;
    }

    // ---- the straightened grid, in mm: NiiVue's for oblique volumes, too

    least(axis) {
      return this.image.extentsMinOrtho[axis];
    }

    extent(axis) {
      return this.image.extentsMaxOrtho[axis] - this.least(axis);
    }

    middle(axis) {
      return this.least(axis) + this.extent(axis) / 2;
    }

    straight(fractions, axis) {
      return this.least(axis) + fractions[axis] * this.extent(axis);
    }

    // ---- what is seen

    look(slice) {
      const clamped = Math.max(0, Math.min(this.count - 1, slice));
      if (clamped === this.slice) return;
      this.slice = clamped;
      this.draw();
    }

    // So many mm are seen across the shorter side; none: all of the slice.
    fit(millimetres) {
      if (this.image) {
        const shorter = Math.min(this.canvas.width, this.canvas.height);
        this.zoom = millimetres ? Math.max(1, shorter / millimetres / this.wholeScale()) : 1;
        this.centre = [this.middle(this.axes.across), this.middle(this.axes.up)];
      }
      this.draw();
    }

    // Pixels of the canvas per mm at zoom 1, where the whole slice is seen.
    wholeScale() {
      const { across, up } = this.axes;
      return Math.min(this.canvas.width / this.extent(across), this.canvas.height / this.extent(up));
    }

    // Pixels of the page per mm.
    get scale() {
      return (this.wholeScale() * this.zoom) / this.ratio;
    }

    resize() {
      const { width, height } = this.box.getBoundingClientRect();
      this.ratio = window.devicePixelRatio || 1;
      this.canvas.width = Math.max(1, Math.round(width * this.ratio));
      this.canvas.height = Math.max(1, Math.round(height * this.ratio));
      this.draw();
    }

    draw() {
      this.seen = this.image ? this.paint() : this.wipe();
      this.drawn();
    }

    paint() {
      const { through, across, up } = this.axes;
      const pan = [0, 0, 0, this.zoom];
      pan[across] = this.middle(across) - this.centre[0] * this.zoom;
      pan[up] = this.middle(up) - this.centre[1] * this.zoom;
      const fractions = [0.5, 0.5, 0.5];
      fractions[through] = this.depth;
      return this.painter.paint(this.canvas, this.plane, pan, fractions);
    }

    wipe() {
      this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
      return null;
    }

    // ---- places; pixels are those of the page, from the corner of the box

    // Place in mm (RAS+) below a pixel; null: beside the volume.
    at([x, y]) {
      if (!this.seen) return null;
      const { across, up, through } = this.axes;
      const { width, height } = this.box.getBoundingClientRect();
      const { corner, size } = this.seen;
      const fractions = [0, 0, 0];
      fractions[through] = this.depth;
      fractions[across] = (corner[0] + (x / width) * size[0] - this.least(across)) / this.extent(across);
      fractions[up] = (corner[1] + (1 - y / height) * size[1] - this.least(up)) / this.extent(up);
      const within = fractions.every((part) => part >= 0 && part <= 1);
      return within ? this.painter.toMm(fractions) : null;
    }

    // Slice in which a place lies, seen in this view.
    sliceOf(mm) {
      return Math.floor(this.painter.toFractions(mm)[this.axes.through] * this.count);
    }

    // Pixel at which a place is seen, and how far in mm it lies behind or before the slice.
    pixel(mm) {
      const { across, up, through } = this.axes;
      const fractions = this.painter.toFractions(mm);
      return {
        x: this.pixelOf(across, this.straight(fractions, across)),
        y: this.pixelOf(up, this.straight(fractions, up)),
        off: (fractions[through] - this.depth) * this.extent(through),
      };
    }

    pixelOf(axis, straight) {
      const { corner, size } = this.seen;
      const { width, height } = this.box.getBoundingClientRect();
      if (axis === this.axes.across) return ((straight - corner[0]) / size[0]) * width;
      return (1 - (straight - corner[1]) / size[1]) * height;
    }

    // Pixel of the line in which the other view's slice cuts this one.
    lineOf(other) {
      const axis = other.axes.through;
      return this.pixelOf(axis, this.least(axis) + other.depth * this.extent(axis));
    }

    // ---- zoom and pan

    zoomAt(pixel, factor) {
      if (!this.seen) return;
      const { width, height } = this.box.getBoundingClientRect();
      const zoom = Math.max(ZOOM_LIMITS[0], Math.min(ZOOM_LIMITS[1], this.zoom * factor));
      const kept = 1 - this.zoom / zoom;
      this.shift((width / 2 - pixel[0]) * kept, (height / 2 - pixel[1]) * kept);
      this.zoom = zoom;
      this.draw();
    }

    pan(right, below) {
      if (!this.seen) return;
      this.shift(right, below);
      this.draw();
    }

    // Where the patient's right, or front, is on the left, axes run against the pixels.
    shift(right, below) {
      this.centre[0] -= (Math.sign(this.seen.size[0]) * right) / this.scale;
      this.centre[1] += below / this.scale;
    }

    // Moves only if the place is not well within the view.
    include(mm) {
      const { x, y } = this.pixel(mm);
      const { width, height } = this.box.getBoundingClientRect();
      const well = (value, whole) => value > whole * 0.3 && value < whole * 0.7;
      if (well(x, width) && well(y, height)) return;
      const fractions = this.painter.toFractions(mm);
      this.centre = [this.straight(fractions, this.axes.across), this.straight(fractions, this.axes.up)];
      this.draw();
    }
  }

  viewer.View = View;
})(window.fastsegViewer);
