"use strict";

// Drawing on one volume: two linked views, the points on it, and the curve through them.
(function (viewer) {
  const { Points, Painter, View, Contrast, marks, panel } = viewer;
  const { of } = panel;
  // Few thick slices are drawn upon one by one: the axial view is then the large one.
  const THICK = 3;
  // mm that the axial view shows at first, where the cord is some 10 mm wide.
  const AXIAL_FIELD = 110;

  class Drawing {
    // changed(places) is called after each change of the points.
    constructor(changed) {
      this.changed = changed;
      this.points = new Points((reason) => this.pointsChanged(reason));
      this.painter = new Painter();
      this.sagittal = new View(of("sagittal"), "sagittal", this.painter);
      this.axial = new View(of("axial"), "axial", this.painter);
      this.views = [this.sagittal, this.axial];
      this.contrast = new Contrast(() => this.repaint());
      this.curve = [];
      this.hidden = false;
      this.hovered = null;
    }

    // Raises where the browser has no WebGL2.
    async start(lost) {
      await this.painter.open(lost);
      for (const view of this.views) {
        view.drawn = () => this.drawMarks(view);
        view.open();
        viewer.listen(view, this);
        this.sliderOf(view).addEventListener("input", () => this.slid(view));
        this.sliderOf(view).addEventListener("change", (event) => event.target.blur());
      }
    }

    get there() {
      return Boolean(this.painter.image);
    }

    show(image, places) {
      this.clear();
      this.painter.show(image);
      this.views.forEach((view) => view.begin());
      this.contrast.begin(image);
      this.points.reset(places);
      this.axial.fit(AXIAL_FIELD);
      this.arrange(this.axial.pitch >= THICK * this.sagittal.pitch ? "axial" : "sagittal");
      if (places.length) this.lookAt(this.points.list[0].mm);
      this.refresh();
    }

    clear() {
      this.curve = [];
      of("notes").textContent = "";
      this.points.reset([]);
      this.painter.show(null);
      this.views.forEach((view) => view.begin());
      this.refresh();
    }

    showCurve({ curve, notes }) {
      this.curve = curve;
      const ends = [0, curve.length - 1].map((n) => curve.length > 1 && this.axial.sliceOf(curve[n]));
      const through =
        curve.length > 1 ? [`the curve covers slices ${ends.join(" to ")}, only these are segmented`] : [];
      const sentence = (note) => `${note.charAt(0).toUpperCase()}${note.slice(1)}.`;
      of("notes").textContent = [...through, ...notes].map(sentence).join(" ");
      this.drawAll();
    }

    // ---- what is seen

    drawMarks(view) {
      const { points, curve, hidden } = this;
      marks.draw(view, { points, curve, hidden, other: this.other(view) });
    }

    drawAll() {
      this.views.forEach((view) => this.drawMarks(view));
      for (const view of this.views) {
        of(`${view.plane}-slice`).textContent = view.image
          ? `${this.label(view)} (0–${view.count - 1})`
          : "";
        this.sliderOf(view).max = view.count - 1;
        this.sliderOf(view).value = this.label(view);
      }
    }

    // Slices are counted as in fastseg's tables: from the patient's right, and from the feet.
    label(view) {
      return view === this.axial ? view.slice : view.count - 1 - view.slice;
    }

    sliderOf(view) {
      return of(`${view.plane}-slider`);
    }

    slid(view) {
      const label = Number(this.sliderOf(view).value);
      this.step(view, (view === this.axial ? label : view.count - 1 - label) - view.slice);
    }

    refresh() {
      panel.listPoints(this.points, (mm) => (this.there ? this.axial.sliceOf(mm) : 0), {
        select: (id) => this.choose(id),
        remove: (id) => this.points.remove(id),
      });
      this.drawAll();
    }

    arrange(large) {
      const { dataset } = of("main");
      dataset.large = large || (dataset.large === "axial" ? "sagittal" : "axial");
    }

    reset() {
      if (!this.there) return;
      this.contrast.reset();
      this.sagittal.fit();
      this.axial.fit(AXIAL_FIELD);
      if (this.points.current) this.views.forEach((view) => view.include(this.points.current.mm));
    }

    repaint() {
      this.painter.refresh();
      this.views.forEach((view) => view.draw());
    }

    toggleMarks() {
      this.hidden = !this.hidden;
      this.drawAll();
    }

    toggleSmooth() {
      this.rough = !this.rough;
      this.painter.smooth(!this.rough);
      this.views.forEach((view) => view.draw());
    }

    zoom(factor) {
      const { view, at } = this.hovered || { view: this.sagittal };
      view.zoomAt(at || [view.box.clientWidth / 2, view.box.clientHeight / 2], factor);
    }

    // ---- where one looks

    other(view) {
      return view === this.axial ? this.sagittal : this.axial;
    }

    step(view, by) {
      if (!view.image) return;
      view.look(view.slice + by);
      this.drawAll();
    }

    // The other view goes to the slice on which a place lies.
    link(view, mm) {
      const other = this.other(view);
      other.look(other.sliceOf(mm));
      this.drawAll();
    }

    lookAt(mm) {
      for (const view of this.views) {
        view.look(view.sliceOf(mm));
        view.include(mm);
      }
      this.drawAll();
    }

    choose(id) {
      this.points.select(id);
      this.lookAt(this.points.find(id).mm);
    }

    // ---- points

    pointsChanged(reason) {
      if (reason === "points") this.changed(this.points.places());
      this.refresh();
    }

    removeSelected() {
      if (this.points.current) this.points.remove(this.points.selected);
    }

    travel(way) {
      if (this.there && this.points[way]() && this.points.current) this.lookAt(this.points.current.mm);
    }

    // ---- what gestures mean

    // A press takes the point that is there, or moves that of its slice, or adds one.
    press(view, at) {
      const mm = this.there && view.at(at);
      if (!mm) return null;
      this.points.begin();
      const hit = marks.hit(view, this.points, at);
      if (hit) {
        this.points.select(hit.id);
        const { x, y } = view.pixel(hit.mm);
        return { id: hit.id, grip: [x - at[0], y - at[1]] };
      }
      const slice = this.axial.sliceOf(mm);
      const mate = this.points.list.find((point) => this.axial.sliceOf(point.mm) === slice);
      if (mate) this.points.move(mate.id, mm);
      const id = mate ? mate.id : this.points.add(mm);
      this.link(view, mm);
      return { id, grip: [0, 0] };
    }

    // A point that is taken beside its middle does not jump.
    drag(view, { id, grip }, at) {
      const mm = view.at([at[0] + grip[0], at[1] + grip[1]]);
      if (!mm) return;
      this.points.move(id, mm);
      this.link(view, mm);
    }

    drop(view, held) {
      this.points.end();
      const point = held && this.points.find(held.id);
      if (!point) return;
      this.link(view, point.mm);
      if (view === this.sagittal) this.axial.include(point.mm);
    }

    erase(view, at) {
      const hit = this.there && marks.hit(view, this.points, at);
      if (hit) this.points.remove(hit.id);
    }

    look(view, at) {
      const mm = this.there && view.at(at);
      if (mm) this.lookAt(mm);
    }

    hover(view, at) {
      this.hovered = { view, at };
      view.box.classList.toggle("over-point", Boolean(this.there && marks.hit(view, this.points, at)));
    }
  }

  viewer.Drawing = Drawing;
})(window.fastsegViewer);
