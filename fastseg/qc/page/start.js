"use strict";

// What has to be there before anything else: the theme, and the two functions that the report's own scripts call.
// index.js says fastsegIndex({...}); each volume's script says fastsegDetail("<id>", {...}).
(() => {
  const page = (window.fastsegPage = { index: null, details: new Map(), waiting: new Map(), renewed: new Map() });

  // Storage throws in private windows and where a browser forbids it to file:// pages.
  page.storage = {
    get(key) {
      try {
        return window.localStorage.getItem(key);
      } catch {
        return null;
      }
    },
    set(key, text) {
      try {
        window.localStorage.setItem(key, text);
        return true;
      } catch {
        return false;
      }
    },
    keys() {
      try {
        return Object.keys(window.localStorage);
      } catch {
        return [];
      }
    },
  };

  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => page.storage.get("fastseg-theme");
  page.theme = () => root.dataset.theme;
  page.setTheme = (theme) => {
    root.dataset.theme = theme;
    page.storage.set("fastseg-theme", theme);
  };
  const follow = () => {
    root.dataset.theme = ["light", "dark"].includes(chosen()) ? chosen() : dark.matches ? "dark" : "light";
  };
  follow();
  dark.addEventListener("change", follow);

  /** A new element. Texts are only ever set as texts: names of files may be anything. */
  page.make = (tag, options = {}, children = []) => {
    const element = document.createElement(tag);
    const { text, title, className, ...others } = options;
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    if (title) element.title = title;
    for (const [name, value] of Object.entries(others)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  page.makeSvg = (tag, attributes = {}, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  window.fastsegIndex = (index) => {
    page.index = index;
  };
  window.fastsegDetail = (id, detail) => {
    page.details.set(id, detail);
  };
})();
