"use strict";

// What runs add to a served report while its page is open: how much it is, and a button that shows it.
(() => {
  const page = window.fastsegPage;
  const { make } = page;
  const EVERY_MS = 10_000;

  class News {
    /** @param button that says how much there is; @param onNews is called when the new index is there */
    constructor(button, onNews) {
      this._button = button;
      this._onNews = onNews;
      this._known = new URLSearchParams();
      button.addEventListener("click", () => this._fetch());
    }

    /** The page shows these rows. */
    know(rows) {
      const since = rows.reduce((newest, { at }) => (at > newest ? at : newest), "");
      this._known = new URLSearchParams({ since, known: String(rows.length) });
      this._button.hidden = true;
    }

    /** Ask the server from now on, while somebody looks. */
    watch() {
      setTimeout(async () => {
        if (!document.hidden) await this._ask();
        this.watch();
      }, EVERY_MS);
    }

    async _ask() {
      const known = this._known;
      try {
        const answer = await fetch(`news.json?${known}`);
        const { count } = await answer.json();
        if (known !== this._known || !Number.isInteger(count)) return;
        this._button.hidden = count < 1;
        this._button.textContent = `${count.toLocaleString("en")} new result${count === 1 ? "" : "s"}: show`;
      } catch {
        // It may be served again later.
      }
    }

    _fetch() {
      const script = make("script", { src: `index.js?${this._known}` });
      script.addEventListener("load", () => {
        script.remove();
        this._onNews();
      });
      script.addEventListener("error", () => script.remove());
      document.head.append(script);
    }
  }

  page.News = News;
})();
