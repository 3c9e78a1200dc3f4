"use strict";

// The sitting: volumes one after the other, and what the user decides about each.
(function (viewer) {
  const { Drawing, Server, Newest, Gone, panel } = viewer;
  const { of, say, cover } = panel;

  const drawing = new Drawing(pointsChanged);
  const server = new Server({ presence, news: follow });
  const put = new Newest(send, arrived, refused);
  const line = new Newest((value) => server.json("POST", "curve", value), showCurve, refused);
  const images = new Map();
  let sitting = { volumes: [] };
  let number = null; // of the volume that is shown
  let known = []; // its points, as the program has them
  let unsent = false; // whether there are others here
  let heard = -1; // the last change that the program told of
  let busy = false;

  const pathOf = (volume) => volume.image || `image/${volume.number}.nii.gz`;
  const ready = () => number !== null && !busy && drawing.there;

  // ---- points

  function pointsChanged(points) {
    unsent = true;
    put.put({ number, points });
    line.put({ number, points });
  }

  function showCurve(answer, value) {
    if (value.number === number) drawing.showCurve(answer);
  }

  function refused(error) {
    if (!(error instanceof Gone)) say(error.message, "wrong");
  }

  async function send(value) {
    const { change } = await server.json("PUT", "points", value);
    heard = Math.max(heard, change);
  }

  function arrived(_, { points }) {
    known = points;
    unsent = false;
  }

  // The program's points are others than those here: sends what was drawn while it did not answer; takes over
  // what was drawn in another window, where this page is open, too.
  function compare({ points }) {
    const places = drawing.points.places();
    const alike = (one, other) => JSON.stringify(one) === JSON.stringify(other);
    if (put.running || !drawing.there || alike(points, places)) return;
    if (unsent && alike(points, known)) return pointsChanged(places);
    arrived(null, { points });
    drawing.points.replace(points);
    line.put({ number, points });
    say("The points were changed in another window.", "well");
  }

  function presence(there) {
    of("banner").hidden = there;
  }

  // ---- the sitting

  // What the program knows: also what was done in its terminal. Whether it is heeded now.
  async function follow(state) {
    if (busy) return false;
    if (state.change < heard) return true; // overtaken on its way
    heard = state.change;
    sitting = state;
    if (state.over) ended(state);
    else if (state.current !== number) await open(state.current);
    else {
      panel.showQueue(sitting, number, go);
      compare(state.volumes[number]);
    }
    return true;
  }

  function ended({ volumes, cancelled }) {
    server.close();
    number = null;
    const saved = volumes.filter((volume) => volume.state === "saved").length;
    const one = saved ? "Saved." : "Not saved.";
    const what = volumes.length > 1 ? `${saved} of ${volumes.length} volumes saved.` : one;
    document.title = "done – fastseg view";
    document.body.classList.add("ended");
    cover(`${cancelled ? "Cancelled; what was saved stays. " : ""}${what}\nYou can close this page.`, "end");
  }

  async function open(next) {
    busy = true;
    number = next;
    put.drop();
    line.drop();
    const volume = sitting.volumes[number];
    delete document.body.dataset.shown;
    drawing.clear();
    panel.showQueue(sitting, number, go);
    cover(`Loading ${volume.name} …`);
    try {
      const bytes = await fetched(volume);
      const image = await window.niivue.NVImage.loadFromUrl({ url: bytes.slice(0) });
      drawing.show(image, volume.points);
      arrived(null, volume);
      if (volume.points.length) line.put({ number, points: volume.points });
      cover("");
    } catch (error) {
      cover(`${volume.name} cannot be shown: ${error.message}`, "wrong");
    } finally {
      busy = false;
    }
    document.body.dataset.shown = String(number);
    preload();
  }

  function fetched(volume) {
    const path = pathOf(volume);
    if (!images.has(path)) {
      const bytes = server.bytes(path);
      bytes.catch(() => images.delete(path)); // another time it may work
      images.set(path, bytes);
    }
    return images.get(path);
  }

  // While a volume is drawn on, the next one comes; the others are not kept.
  function preload() {
    const { volumes } = sitting;
    const open = volumes.filter((volume) => volume.state === "open" && volume.number !== number);
    const next = open.find((volume) => volume.number > number) || open[0];
    const kept = [volumes[number], next].filter(Boolean).map(pathOf);
    [...images.keys()].filter((path) => !kept.includes(path)).forEach((path) => images.delete(path));
    if (next) fetched(next).catch(() => {});
  }

  // ---- what the user decides

  // Something that the program does, and then tells where we are.
  async function act(what) {
    if (busy || number === null) return;
    busy = true;
    lock(true);
    try {
      await put.settled();
      const state = await what();
      busy = false;
      await follow(state);
    } catch (error) {
      busy = false;
      refused(error);
    } finally {
      lock(false);
    }
  }

  function lock(on) {
    for (const id of ["save", "skip", "finish", "cancel"]) of(id).disabled = on;
  }

  function go(next) {
    act(async () => {
      await server.ask("PUT", "points", { number: next, points: sitting.volumes[next].points });
      return server.sitting();
    });
  }

  function save() {
    if (!ready()) return;
    const points = drawing.points.places();
    if (!points.length) return say("There is no point yet: click on the cord, or skip this volume.", "wrong");
    const { name } = sitting.volumes[number];
    act(async () => {
      const state = await server.json("POST", "save", { number, points });
      say(`${name} is saved.`, "well");
      return state;
    });
  }

  async function skip() {
    if (busy || number === null) return;
    const count = drawing.points.list.length;
    const question = `${count === 1 ? "The point" : `The ${count} points`} on this volume will not be saved.`;
    if (count && !(await panel.ask(question, "Skip it"))) return;
    act(() => server.json("POST", "skip", { number }));
  }

  // Both end the sitting: what was saved is used then, or only kept.
  const finish = () => end("finish", "What was saved is used.", "Finish");
  const cancel = () => end("cancel", "What was saved stays.", "End without saving");

  async function end(how, what, yes) {
    if (busy || number === null) return;
    const { volumes } = sitting;
    const open = volumes.filter((volume) => volume.state === "open").length;
    const drawn = drawing.points.list.length;
    const lost = drawn
      ? "The points on this volume will not be saved."
      : `${open} of ${volumes.length} volumes are still open.`;
    if ((drawn || volumes.length > 1) && !(await panel.ask(`${lost} ${what}`, yes))) return;
    act(() => server.json("POST", how, {}));
  }

  async function copy() {
    const text = JSON.stringify(drawing.points.places());
    say((await panel.copy(text)) ? "The points are copied." : `To copy by hand: ${text}`, "well");
  }

  // A heartbeat may still be waiting at the other end of a dead tunnel.
  function retry() {
    server.sitting().then(follow).catch(refused);
  }

  // ---- keys and buttons

  const { sagittal, axial } = drawing;
  const help = () => {
    of("help").showModal();
    of("help").scrollTop = 0; // the button has the focus, at its end
  };
  const KEYS = {
    Enter: save,
    s: skip,
    q: cancel,
    Delete: () => drawing.removeSelected(),
    Backspace: () => drawing.removeSelected(),
    Escape: () => drawing.points.select(null),
    ArrowUp: () => drawing.step(axial, 1),
    ArrowDown: () => drawing.step(axial, -1),
    PageUp: () => drawing.step(axial, 10),
    PageDown: () => drawing.step(axial, -10),
    ArrowLeft: () => drawing.step(sagittal, 1),
    ArrowRight: () => drawing.step(sagittal, -1),
    "+": () => drawing.zoom(1.25),
    "=": () => drawing.zoom(1.25),
    "-": () => drawing.zoom(0.8),
    0: () => drawing.reset(),
    o: () => drawing.toggleMarks(),
    i: () => drawing.toggleSmooth(),
    x: () => drawing.arrange(),
    "?": help,
  };
  const BUTTONS = {
    save,
    skip,
    finish,
    cancel,
    copy,
    keys: help,
    retry,
    undo: () => drawing.travel("undo"),
    redo: () => drawing.travel("redo"),
    swap: () => drawing.arrange(),
    reset: () => drawing.reset(),
  };
  // A key that is held down must not decide about the next volume, too.
  const ONCE = ["Enter", "s", "q"];

  function pressed(event) {
    if (number === null || document.querySelector("dialog[open]") || event.altKey) return;
    if (event.ctrlKey || event.metaKey) return withControl(event);
    const { tagName } = event.target;
    if (tagName === "SELECT" || (tagName === "INPUT" && event.key !== "Enter")) return;
    if (tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
    const action = KEYS[event.key];
    if (!action || (event.repeat && ONCE.includes(event.key))) return;
    event.preventDefault();
    action();
  }

  function withControl(event) {
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    drawing.travel(key === "y" || event.shiftKey ? "redo" : "undo");
  }

  function listen() {
    document.addEventListener("keydown", pressed);
    document.addEventListener("visibilitychange", () => document.hidden || server.beat());
    for (const [id, action] of Object.entries(BUTTONS)) {
      of(id).addEventListener("click", (event) => {
        event.currentTarget.blur(); // so that Enter saves, and does not press it again
        action();
      });
    }
  }

  async function start() {
    panel.theme();
    try {
      await drawing.start(() =>
        cover("The graphics card let go of this page. Load it again: the points are kept.", "wrong"),
      );
    } catch (error) {
      cover(`This browser cannot draw volumes: WebGL2 is missing or switched off (${error.message}).`, "wrong");
      return;
    }
    listen();
    try {
      await follow(await server.sitting());
      server.beat();
    } catch (error) {
      cover(`The sitting cannot be read: ${error.message}.`, "wrong");
    }
  }

  start();
})(window.fastsegViewer);
