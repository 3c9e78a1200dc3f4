"use strict";

// NiiVue, which draws slices of one volume: for both views with one WebGL context, so that the volume is on the
// graphics card once, and each view gets a copy of its slice.
(function (viewer) {
  class Painter {
    // Raises where the browser has no WebGL2. lost() is called if the graphics card lets go of the page.
    async open(lost) {
      const box = document.createElement("div"); // NiiVue paints its canvas' parent
      this.canvas = document.createElement("canvas");
      box.append(this.canvas);
      this.canvas.addEventListener("webglcontextlost", lost);
      this.nv = new window.niivue.Niivue({
        logLevel: "silent",
        loadingText: "",
        backColor: [0, 0, 0, 1],
        isRadiologicalConvention: true,
        sagittalNoseLeft: true,
        isOrientationTextVisible: false,
        isResizeCanvas: false,
        forceDevicePixelRatio: -1,
        interactive: false, // a press means something else here than there
        dragAndDropEnabled: false,
        crosshairWidth: 0,
        show3Dcrosshair: false,
      });
      await this.nv.attachToCanvas(this.canvas, false);
    }

    get image() {
      return this.nv ? this.nv.volumes[0] || null : null;
    }

    // Shows an NVImage, or nothing.
    show(image) {
      while (this.nv.volumes.length) this.nv.removeVolume(this.nv.volumes[0]);
      if (image) this.nv.addVolume(image);
    }

    // After the image's window of contrast changed.
    refresh() {
      if (this.image) this.nv.updateGLVolume();
    }

    smooth(on) {
      this.nv.setInterpolation(!on);
    }

    // Draws on a canvas. pan: [x, y, z, zoom], where NiiVue shows (place - pan) / zoom; fractions: 0..1 of the
    // slices through which it looks. Gives the rectangle in mm of the straightened grid that is then seen.
    paint(canvas, plane, pan, fractions) {
      const { nv } = this;
      const { width, height } = canvas;
      if (this.canvas.width !== width) this.canvas.width = width;
      if (this.canvas.height !== height) this.canvas.height = height;
      const { SLICE_TYPE } = window.niivue;
      nv.opts.sliceType = plane === "axial" ? SLICE_TYPE.AXIAL : SLICE_TYPE.SAGITTAL;
      nv.scene.pan2Dxyzmm = pan;
      nv.scene.crosshairPos = fractions;
      nv.drawScene();
      canvas.getContext("2d").drawImage(this.canvas, 0, 0);
      const tile = nv.screenSlices[0];
      return { corner: tile.leftTopMM, size: tile.fovMM };
    }

    toMm(fractions) {
      return Array.from(this.nv.frac2mm(fractions, 0, true)).slice(0, 3);
    }

    toFractions(mm) {
      return Array.from(this.nv.mm2frac(mm, 0, true));
    }
  }

  viewer.Painter = Painter;
})(window.fastsegViewer);
