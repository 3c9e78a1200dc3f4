"use strict";

// The points of one volume, in mm (RAS+): what was clicked, which one is selected, and the way back.
(function (viewer) {
  const UNDO_STEPS = 500;

  class Points {
    // changed(reason) is called after each change of the points, or of what is selected.
    constructor(changed) {
      this.changed = changed;
      this.reset([]);
    }

    // Of another volume: history begins anew.
    reset(places) {
      this.nextId = 1;
      this.list = places.map((mm) => this.made(mm));
      this.selected = null;
      this.past = [];
      this.future = [];
      this.before = null;
    }

    made(mm) {
      return { id: this.nextId++, mm: Array.from(mm) };
    }

    places() {
      return this.list.map((point) => point.mm.slice());
    }

    find(id) {
      return this.list.find((point) => point.id === id) || null;
    }

    get current() {
      return this.find(this.selected);
    }

    select(id) {
      if (this.selected !== id) {
        this.selected = id;
        this.changed("selection");
      }
    }

    // All changes of a gesture, from a press to its release, are taken back as one.
    begin() {
      this.before = this.snapshot();
    }

    end() {
      this.before = null;
    }

    add(mm) {
      this.remember();
      const point = this.made(mm);
      this.list.push(point);
      this.selected = point.id;
      this.changed("points");
      return point.id;
    }

    move(id, mm) {
      const point = this.find(id);
      if (!point || point.mm.every((value, axis) => value === mm[axis])) return;
      this.remember();
      this.list = this.list.map((each) => (each.id === id ? { id, mm: Array.from(mm) } : each));
      this.selected = id;
      this.changed("points");
    }

    remove(id) {
      if (!this.find(id)) return;
      this.remember();
      this.list = this.list.filter((point) => point.id !== id);
      if (this.selected === id) this.selected = null;
      this.changed("points");
    }

    // By those of another window; also that can be taken back.
    replace(places) {
      this.remember();
      this.list = places.map((mm) => this.made(mm));
      this.selected = null;
      this.changed("elsewhere");
    }

    undo() {
      return this.travel(this.past, this.future);
    }

    redo() {
      return this.travel(this.future, this.past);
    }

    travel(from, to) {
      const state = from.pop();
      if (!state) return false;
      to.push(this.snapshot());
      this.list = state.list;
      this.selected = state.selected;
      this.before = null;
      this.changed("points");
      return true;
    }

    // Points are never changed in place, so a shallow copy is enough.
    snapshot() {
      return { list: this.list.slice(), selected: this.selected };
    }

    remember() {
      const gesture = this.before;
      if (gesture && gesture.kept) return;
      const state = gesture || this.snapshot();
      if (gesture) gesture.kept = true;
      this.past.push({ list: state.list, selected: state.selected });
      if (this.past.length > UNDO_STEPS) this.past.shift();
      this.future = [];
    }
  }

  viewer.Points = Points;
})((window.fastsegViewer = window.fastsegViewer || {}));
