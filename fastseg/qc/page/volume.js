"use strict";

// One volume with its mask, in three planes. The server says in volume.json what files there are, and why not.
(() => {
  const id = new URLSearchParams(window.location.search).get("id") || "";
  const element = (name) => document.getElementById(name);
  const view = element("view");
  const ZOOM = { step: 1.25, least: 0.5, most: 12 };
  // NiiVue's numbers of planes, and where each lies in the view: left, top, width, height.
  const [AXIAL, CORONAL, SAGITTAL] = [0, 1, 2];
  const BESIDE = [[SAGITTAL, [0, 0, 0.6, 1]], [AXIAL, [0.6, 0, 0.2, 1]], [CORONAL, [0.8, 0, 0.2, 1]]];
  const STACKED = [[SAGITTAL, [0, 0, 0.58, 1]], [AXIAL, [0.58, 0, 0.42, 0.5]], [CORONAL, [0.58, 0.5, 0.42, 0.5]]];
  const ALONE = [AXIAL, SAGITTAL, CORONAL].map((plane) => [[plane, [0, 0, 1, 1]]]);
  // What a mask is painted with; clear where it is 0.
  const PAINT = {
    red: { R: [230, 230], G: [40, 40], B: [40, 40], A: [0, 255], I: [0, 255] },
    orange: { R: [255, 255], G: [138, 138], B: [36, 36], A: [0, 255], I: [0, 255] },
  };
  const CROSSHAIR = 1.3; // pixels of the screen, in the plane that is drawn smallest
  // Sagittal as in the report's sheet: front on the left.
  const OPTIONS = {
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.36, 0.68, 0.95, 0.75],
    crosshairWidthUnit: "mm",
    dragAndDropEnabled: false,
    isRadiologicalConvention: true,
    isResizeCanvas: true,
    loadingText: "",
    logLevel: "error",
    multiplanarPadPixels: 6,
    sagittalNoseLeft: true,
    show3Dcrosshair: false,
  };
  const state = { viewer: null, masks: [], start: null, layout: 0 };

  function say(text) {
    element("message").textContent = text;
  }

  function hasWebGl2() {
    try {
      return document.createElement("canvas").getContext("webgl2") !== null;
    } catch {
      return false;
    }
  }

  async function ask() {
    const reply = await fetch(`volume.json?id=${encodeURIComponent(id)}`);
    if (!reply.ok) throw new Error((await reply.text()) || `the server answered ${reply.status}`);
    return reply.json();
  }

  function name(volume) {
    document.title = `${volume.name} · fastseg`;
    element("name").textContent = volume.name;
    element("name").title = volume.name;
    element("facts").textContent = [volume.subject, volume.contrast, volume.status].filter(Boolean).join(" · ");
  }

  /** Masks that can be shown, a corrected one first. */
  function masksOf(volume) {
    const found = [
      { ...volume.manual, label: "corrected by hand" },
      { ...volume.mask, label: "automatic" },
    ].filter((each) => each.url);
    const which = element("which");
    for (const mask of found) {
      const option = document.createElement("option");
      option.textContent = mask.label;
      option.title = mask.name;
      which.append(option);
    }
    element("choice").hidden = found.length < 2;
    for (const tool of ["shown", "outline", "opacity"]) element(tool).disabled = found.length === 0;
    return found;
  }

  function makeViewer() {
    const { Niivue, DRAG_MODE, SHOW_RENDER } = window.niivue;
    const viewer = new Niivue({
      ...OPTIONS,
      dragMode: DRAG_MODE.windowing,
      multiplanarShowRender: SHOW_RENDER.NEVER,
    });
    for (const [paint, colours] of Object.entries(PAINT)) viewer.addColormap(`mask-${paint}`, colours);
    viewer.onLocationChange = showPlace;
    return viewer;
  }

  /** Files are fetched here: NiiVue says little of what went wrong. */
  async function load(file, options) {
    const reply = await fetch(file.url);
    if (!reply.ok) throw new Error(`${file.name}: the server cannot read it any more`);
    const buffer = await reply.arrayBuffer();
    try {
      return placed(await window.niivue.NVImage.loadFromUrl({ url: file.url, buffer, name: file.url, ...options }), file.affine);
    } catch {
      throw new Error(`${file.name}: cannot be shown; the file may be damaged`);
    }
  }

  /** An image where fastseg has it: of a qform and an sform that differ NiiVue may take the other one. */
  function placed(image, affine) {
    if (affine) {
      image.hdr.affine = affine;
      image.calculateRAS();
    }
    return image;
  }

  /** Walk over the voxels of a mask that are cord, as indices along its own axes. */
  function walk(mask, seen) {
    const [, nx, ny, nz] = mask.hdr.dims;
    const { scl_slope: slope, scl_inter: inter } = mask.hdr;
    const level = (0.5 - (slope ? inter : 0)) / (slope || 1);
    for (let z = 0, i = 0; z < nz; z += 1) {
      for (let y = 0; y < ny; y += 1) {
        for (let x = 0; x < nx; x += 1, i += 1) {
          if (mask.img[i] > level) seen([x, y, z], i);
        }
      }
    }
    return level;
  }

  /** Where the mask is: its voxel nearest to the middle of all of them, in mm. */
  function middleOf(mask) {
    const sum = [0, 0, 0];
    let count = 0;
    walk(mask, (voxel) => {
      voxel.forEach((each, axis) => (sum[axis] += each));
      count += 1;
    });
    if (!count) return null;
    let best = null;
    let least = Infinity;
    walk(mask, (voxel) => {
      const far = voxel.reduce((total, each, axis) => total + (each - sum[axis] / count) ** 2, 0);
      if (far < least) [best, least] = [voxel, far];
    });
    return [0, 1, 2].map((row) => {
      const line = mask.hdr.affine[row];
      return line[0] * best[0] + line[1] * best[1] + line[2] * best[2] + line[3];
    });
  }

  /** The voxels at the edge of the mask within axial slices, as an image of its own. NiiVue's outline is black. */
  function edgeOf(mask) {
    const edge = mask.clone();
    const [, nx, ny, nz] = mask.hdr.dims;
    const size = [nx, ny, nz];
    const strides = [1, nx, nx * ny];
    const upright = mask.hdr.affine[2].slice(0, 3).map(Math.abs);
    const along = upright.indexOf(Math.max(...upright));
    const level = walk(mask, () => {});
    edge.img = mask.img.slice();
    walk(mask, (voxel, i) => {
      const inside = strides.every((stride, axis) => axis === along
        || (voxel[axis] > 0 && voxel[axis] < size[axis] - 1
          && mask.img[i - stride] > level && mask.img[i + stride] > level));
      if (inside) edge.img[i] = 0;
    });
    return edge;
  }

  async function showMask() {
    const { viewer, masks } = state;
    while (viewer.volumes.length > 1) viewer.removeVolume(viewer.volumes[1]);
    const file = masks[element("which").selectedIndex];
    if (!file) return;
    const opacity = element("outline").checked ? 0 : shownOpacity();
    const mask = await load(file, { colormap: "mask-red", opacity, cal_min: 0, cal_max: 1 });
    viewer.addVolume(mask);
    if (!state.start) state.start = middleOf(mask);
    if (element("outline").checked) drawMask();
  }

  const shownOpacity = () => (element("shown").checked ? element("opacity").valueAsNumber : 0);

  function drawMask() {
    const { viewer } = state;
    const outline = element("outline").checked;
    if (viewer.volumes.length < 2) return;
    if (outline && viewer.volumes.length < 3) {
      const edge = edgeOf(viewer.volumes[1]);
      edge.colormap = "mask-orange";
      viewer.addVolume(edge);
    }
    viewer.volumes[1].opacity = outline ? 0 : shownOpacity();
    if (viewer.volumes.length > 2) viewer.volumes[2].opacity = outline ? shownOpacity() : 0;
    viewer.updateGLVolume();
  }

  /** Lengths of the volume in mm: right to left, back to front, foot to head. */
  function sides() {
    const { dimsRAS, pixDimsRAS } = state.viewer.volumes[0];
    return [1, 2, 3].map((axis) => dimsRAS[axis] * pixDimsRAS[axis]);
  }

  /** As thin on the screen at any zoom. */
  function drawCrosshair() {
    const { viewer } = state;
    const mmPerPixel = viewer.screenSlices.map(({ fovMM, leftTopWidthHeight }) => Math.abs(fovMM[0]) / leftTopWidthHeight[2]);
    if (mmPerPixel.length) viewer.setCrosshairWidth(CROSSHAIR * window.devicePixelRatio * Math.max(...mmPerPixel));
  }

  function reset() {
    const { viewer, start } = state;
    const image = viewer.volumes[0];
    const changed = image.cal_min !== image.robust_min || image.cal_max !== image.robust_max;
    image.cal_min = image.robust_min;
    image.cal_max = image.robust_max;
    viewer.scene.crosshairPos = start ? viewer.mm2frac(start, 0, true) : [0.5, 0.5, 0.5];
    viewer.setPan2Dxyzmm([0, 0, 0, 1]);
    drawCrosshair();
    if (changed) viewer.updateGLVolume();
    viewer.createOnLocationChange();
  }

  function zoom(factor) {
    const { viewer } = state;
    const [x, y, z, before] = viewer.scene.pan2Dxyzmm;
    const after = Math.min(ZOOM.most, Math.max(ZOOM.least, before * factor));
    // What lies under the crosshair stays where it is.
    const place = viewer.frac2mm(viewer.scene.crosshairPos);
    viewer.setPan2Dxyzmm([x, y, z].map((pan, axis) => pan + (before - after) * place[axis]).concat(after));
    drawCrosshair();
  }

  /** All three planes, then each alone. A volume of few sagittal slices is narrow in the other two planes. */
  function layOut() {
    const [right, front] = sides();
    const layouts = [front > 1.8 * right ? BESIDE : STACKED, ...ALONE];
    const layout = layouts[state.layout % layouts.length];
    state.viewer.setCustomLayout(layout.map(([sliceType, position]) => ({ sliceType, position })));
    drawCrosshair();
  }

  function cycleViews() {
    state.layout += 1;
    layOut();
  }

  function showPlace(place) {
    const [image, mask] = place.values;
    const number = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(4));
    const parts = [`${Array.from(place.mm).slice(0, 3).map((each) => each.toFixed(1)).join(", ")} mm`];
    if (image) parts.push(`image ${number(image.value)}`);
    if (mask) parts.push(`mask ${number(mask.value)}`);
    element("where").textContent = parts.join("   ");
  }

  function flip(name) {
    element(name).checked = !element(name).checked;
    drawMask();
  }

  function fade(step) {
    element("opacity").valueAsNumber += step;
    drawMask();
  }

  const move = (x, y, z) => () => state.viewer.moveCrosshairInVox(x, y, z);
  const KEYS = {
    ArrowUp: move(0, 0, 1), k: move(0, 0, 1), ArrowDown: move(0, 0, -1), j: move(0, 0, -1),
    // On the screen: the patient's right is on the left.
    ArrowLeft: move(1, 0, 0), ArrowRight: move(-1, 0, 0), PageUp: move(0, 1, 0), PageDown: move(0, -1, 0),
    "+": () => zoom(ZOOM.step), "=": () => zoom(ZOOM.step), "-": () => zoom(1 / ZOOM.step),
    m: () => flip("shown"), o: () => flip("outline"), "[": () => fade(-0.1), "]": () => fade(0.1),
    v: cycleViews, r: reset,
  };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      window.location.assign("index.html");
      return;
    }
    // NiiVue's own keys would do other things than those that the page names.
    if (event.target === view) event.stopPropagation();
    const busy = event.target.matches("select, input[type=range]") && event.key.startsWith("Arrow");
    if (!state.viewer || busy || event.repeat && event.key === "v" || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  }

  function listen() {
    // When NiiVue has drawn in the new size.
    window.addEventListener("resize", () => requestAnimationFrame(() => requestAnimationFrame(drawCrosshair)));
    window.addEventListener("keydown", onKey, true);
    window.addEventListener("keyup", (event) => event.target === view && event.stopPropagation(), true);
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      zoom((event.deltaY || event.deltaX) < 0 ? ZOOM.step : 1 / ZOOM.step);
    }, { capture: true, passive: false });
    for (const tool of ["shown", "outline", "opacity"]) element(tool).addEventListener("input", drawMask);
    element("which").addEventListener("change", () => showMask().catch(fail));
    element("back").addEventListener("click", reset);
  }

  function fail(error) {
    say(`This volume cannot be shown in 3D: ${error.message}.`);
  }

  async function start() {
    const volume = await ask();
    name(volume);
    if (!volume.image.url) throw new Error(volume.image.problem);
    if (!hasWebGl2()) {
      throw new Error(
        "this browser has no WebGL2; allow hardware acceleration in its settings, or take another browser. " +
          "The pictures of the report need none",
      );
    }
    state.masks = masksOf(volume);
    const viewer = makeViewer();
    await viewer.attachToCanvas(view);
    viewer.addVolume(await load(volume.image, { colormap: "gray" }));
    state.viewer = viewer;
    layOut();
    await showMask();
    reset();
    listen();
    say(state.masks.length ? "" : `No mask to show${volume.message ? `: ${volume.message}` : ""}`);
    view.focus();
    view.dataset.ready = "true";
  }

  window.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !state.viewer) window.location.assign("index.html");
  });
  start().catch(fail);
})();
