"use strict";

// Which signal is black and which is white, in both views: by two sliders, or by dragging.
(function (viewer) {
  const { of } = viewer.panel;
  const STEPS = 1000; // of the sliders, as index.html has them

  class Contrast {
    // changed() is called at most once a frame: NiiVue makes the volume's texture again each time.
    constructor(changed) {
      this.changed = changed;
      this.awaited = 0;
      for (const id of ["dark", "bright"]) of(id).addEventListener("input", () => this.slid());
    }

    // Sliders go beyond NiiVue's robust range, which is the first window.
    begin(image) {
      const { cal_min: dark, cal_max: bright } = image;
      this.image = image;
      this.first = { dark, bright };
      this.lowest = Math.min(image.global_min, dark);
      const highest = Math.max(bright, Math.min(image.global_max, 2 * bright - dark));
      this.step = (highest - this.lowest) / STEPS || 1;
      this.showSliders();
    }

    reset() {
      if (this.image) this.set(this.first.dark, this.first.bright);
    }

    set(dark, bright) {
      this.image.cal_min = dark;
      this.image.cal_max = Math.max(bright, dark + this.step);
      this.showSliders();
      if (this.awaited) return;
      this.awaited = requestAnimationFrame(() => {
        this.awaited = 0;
        this.changed();
      });
    }

    showSliders() {
      of("dark").value = (this.image.cal_min - this.lowest) / this.step;
      of("bright").value = (this.image.cal_max - this.lowest) / this.step;
    }

    slid() {
      if (!this.image) return;
      const value = (id) => this.lowest + Number(of(id).value) * this.step;
      this.set(value("dark"), value("bright"));
    }

    // Pixels to the right: stronger; down: darker.
    drag(right, below) {
      if (!this.image) return;
      const { cal_min: dark, cal_max: bright } = this.image;
      const width = Math.max(this.step, (bright - dark) * Math.exp(-right / 200));
      const middle = (dark + bright) / 2 + (below * width) / 300;
      this.set(middle - width / 2, middle + width / 2);
    }
  }

  viewer.Contrast = Contrast;
})(window.fastsegViewer);
