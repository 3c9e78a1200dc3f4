"use strict";

// From pointer events on a view to what they mean: press, drag, drop, erase, look, pan, contrast, slices, zoom.
(function (viewer) {
  // Pixels that a hand moves without meaning to.
  const TREMBLE = 3;
  // Of a trackpad: what counts as one notch of a wheel.
  const NOTCH = 40;

  function listen(view, meaning) {
    const { box } = view;
    let gesture = null;
    let wheeled = 0;

    const place = (event) => {
      const { left, top } = box.getBoundingClientRect();
      return [event.clientX - left, event.clientY - top];
    };

    function begin(event) {
      if (gesture && event.pointerId !== gesture.pointer) return; // a second finger
      if (gesture) end(event); // its release went elsewhere
      const at = place(event);
      gesture = { at, last: at, moved: false, kind: kindOf(event), pointer: event.pointerId };
      if (gesture.kind === "press") gesture.held = meaning.press(view, at);
      box.setPointerCapture(event.pointerId);
      box.classList.add(`during-${gesture.kind}`);
      event.preventDefault();
    }

    function go(event) {
      const at = place(event);
      if (!gesture) return meaning.hover(view, at);
      if (event.pointerId !== gesture.pointer) return;
      const far = Math.hypot(at[0] - gesture.at[0], at[1] - gesture.at[1]) > TREMBLE;
      if (!gesture.moved && !far) return;
      gesture.moved = true;
      const [right, below] = [at[0] - gesture.last[0], at[1] - gesture.last[1]];
      gesture.last = at;
      if (gesture.kind === "pan") view.pan(right, below);
      if (gesture.kind === "contrast") meaning.contrast.drag(right, below);
      if (gesture.kind === "press" && gesture.held) meaning.drag(view, gesture.held, at);
    }

    function end(event) {
      if (!gesture || event.pointerId !== gesture.pointer) return;
      const { kind, moved, held, at } = gesture;
      box.classList.remove(`during-${kind}`);
      gesture = null;
      if (kind === "press") meaning.drop(view, held);
      if (kind === "pan" && !moved && event.button === 0) meaning.look(view, at);
      if (kind === "contrast" && !moved) meaning.erase(view, at);
    }

    function wheel(event) {
      event.preventDefault();
      const pixels = event.deltaMode ? event.deltaY * NOTCH : event.deltaY;
      if (event.ctrlKey || event.metaKey) {
        view.zoomAt(place(event), Math.exp(-Math.max(-100, Math.min(100, pixels)) / 300));
        return;
      }
      wheeled = Math.sign(pixels) === Math.sign(wheeled) ? wheeled + pixels : pixels;
      const notches = Math.abs(pixels) >= NOTCH ? Math.sign(pixels) : Math.trunc(wheeled / NOTCH);
      if (!notches) return;
      wheeled = 0;
      meaning.step(view, -notches);
    }

    box.addEventListener("pointerdown", begin);
    box.addEventListener("pointermove", go);
    box.addEventListener("pointerup", end);
    box.addEventListener("pointercancel", end);
    box.addEventListener("wheel", wheel, { passive: false });
    box.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  function kindOf(event) {
    if (event.button === 1 || (event.button === 0 && event.shiftKey)) return "pan";
    // With Ctrl: the right button of a Mac that has one.
    return event.button === 2 || event.ctrlKey ? "contrast" : "press";
  }

  viewer.listen = listen;
})((window.fastsegViewer = window.fastsegViewer || {}));
