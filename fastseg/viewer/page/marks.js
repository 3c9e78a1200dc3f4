"use strict";

// What lies over a view's image: points, the curve through them, the other view's slice, scale and letters.
(function (viewer) {
  const SVG = "http://www.w3.org/2000/svg";
  // mm off the slice at which a point of the sagittal view is at its faintest.
  const FAR = 15;
  const FAINTEST = 0.3;
  const SCALES = [1, 2, 5, 10, 20, 50, 100];

  function svg(name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  function layer(box, letters) {
    const root = svg("svg", { class: "marks", "aria-hidden": "true" });
    const groups = {};
    for (const name of ["lines", "curve", "points", "scale"]) {
      groups[name] = svg("g", { class: name });
      root.append(groups[name]);
    }
    box.append(root);
    for (const [side, letter] of Object.entries(letters)) {
      const label = document.createElement("span");
      label.className = `letter ${side}`;
      label.textContent = letter;
      box.append(label);
    }
    return groups;
  }

  const near = (off) => Math.max(FAINTEST, 1 - Math.abs(off) / FAR);

  // state: {points: Points, curve: [[x, y, z] mm], hidden, other: View}
  function draw(view, state) {
    const { lines, curve, points, scale } = view.marks;
    [lines, curve, points, scale].forEach((group) => group.replaceChildren());
    if (!view.seen) return;
    drawScale(view, scale);
    drawLine(view, state.other, lines);
    if (state.hidden) return;
    drawCurve(view, state.curve, curve);
    drawPoints(view, state.points, points);
  }

  function drawLine(view, other, group) {
    const at = view.lineOf(other).toFixed(1);
    const ends =
      other.axes.through === view.axes.across
        ? { x1: at, x2: at, y1: "0", y2: "100%" }
        : { y1: at, y2: at, x1: "0", x2: "100%" };
    group.append(svg("line", ends));
  }

  function drawCurve(view, curve, group) {
    const seen = curve.map((mm) => view.pixel(mm));
    if (view.plane === "axial") {
      const here = seen.filter(({ off }) => Math.abs(off) <= view.pitch / 2 + 1e-3);
      here.forEach((place) => drawRing(place, group));
      return;
    }
    // Dark below and bright above, so that it is seen on any grey; faint where it is far from this slice.
    const runs = [];
    seen.forEach((place, n) => {
      const shade = Math.round(near(place.off) * 4) / 4;
      const last = runs[runs.length - 1];
      if (last && last.shade === shade) last.places.push(place);
      else runs.push({ shade, places: n ? [seen[n - 1], place] : [place] });
    });
    for (const kind of ["casing", "line"]) {
      for (const { shade, places } of runs) {
        const text = places.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
        group.append(svg("polyline", { class: kind, points: text, opacity: shade }));
      }
    }
  }

  function drawRing({ x, y }, group) {
    for (const kind of ["casing", "line"]) {
      group.append(svg("circle", { class: kind, cx: x.toFixed(1), cy: y.toFixed(1), r: 11 }));
    }
  }

  function drawPoints(view, points, group) {
    for (const point of points.list) {
      const { x, y, off } = view.pixel(point.mm);
      const within = view.sliceOf(point.mm) === view.slice;
      if (view.plane === "axial" && !within) continue;
      const chosen = point.id === points.selected;
      const place = { cx: x.toFixed(1), cy: y.toFixed(1) };
      const dot = svg("g", {
        class: chosen ? "point chosen" : "point",
        "data-id": point.id,
        opacity: within || chosen ? 1 : near(off),
      });
      dot.append(svg("circle", { ...place, class: "casing", r: 5.5 }));
      dot.append(svg("circle", { ...place, class: "dot", r: chosen ? 4 : 3.5 }));
      dot.append(svg("circle", { ...place, class: "heart", r: 1 }));
      group.append(dot);
    }
  }

  function drawScale(view, group) {
    const most = view.box.clientWidth / 4;
    const length = SCALES.filter((mm) => mm * view.scale <= most).pop();
    if (!length) return;
    const [left, bottom] = [14, view.box.clientHeight - 14];
    const right = left + length * view.scale;
    const path = `M${left} ${bottom - 5}V${bottom}H${right.toFixed(1)}V${bottom - 5}`;
    group.append(svg("path", { class: "casing", d: path }), svg("path", { class: "line", d: path }));
    const text = svg("text", { x: left + 4, y: bottom - 8 });
    text.textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
    group.append(text);
  }

  // The point that is drawn nearest to a pixel of the view's box, if it is near enough to be meant.
  function hit(view, points, [x, y], within = 10) {
    let best = null;
    let least = within;
    for (const point of points.list) {
      if (view.plane === "axial" && view.sliceOf(point.mm) !== view.slice) continue;
      const place = view.pixel(point.mm);
      const distance = Math.hypot(place.x - x, place.y - y);
      if (distance <= least) [best, least] = [point, distance];
    }
    return best;
  }

  viewer.marks = { layer, draw, hit };
})((window.fastsegViewer = window.fastsegViewer || {}));
