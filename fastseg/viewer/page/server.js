"use strict";

// What the page says to the program that serves it. Paths are relative: they lie below the token.
(function (viewer) {
  const PAUSE_MS = 500;
  const RETRY_MS = 3000;
  // A dead tunnel leaves connections open without a word.
  const PATIENCE_MS = 30000;

  // The program is gone, or the way to it.
  class Gone extends Error {}

  class Server {
    // presence(there) is called when the program goes, and when it is back.
    constructor({ presence, news }) {
      this.presence = presence;
      this.news = news;
      this.change = -1;
      this.there = true;
      this.over = false;
      this.timer = 0;
    }

    async ask(method, path, body) {
      let answer;
      try {
        answer = await fetch(path, {
          method,
          cache: "no-store",
          headers: body === undefined ? {} : { "Content-Type": "application/json" },
          body: body === undefined ? undefined : JSON.stringify(body),
          signal: method === "GET" ? undefined : AbortSignal.timeout(PATIENCE_MS),
        });
      } catch (error) {
        this.seen(false);
        throw new Gone("the program does not answer");
      }
      this.seen(true);
      if (!answer.ok) throw new Error(await oneLine(answer));
      return answer;
    }

    async json(method, path, body) {
      const answer = await this.ask(method, path, body);
      const text = await answer.text();
      return text ? JSON.parse(text) : {};
    }

    async bytes(path) {
      return (await this.ask("GET", path)).arrayBuffer();
    }

    sitting() {
      return this.json("GET", "sitting.json");
    }

    // Heartbeat, and at once the way to learn what was done in the program's terminal: it answers when there is
    // news, or after a while. news(state) says whether it took them.
    async beat() {
      if (this.over || this.beating) return;
      clearTimeout(this.timer);
      this.beating = true;
      try {
        // Who was gone asks for an answer at once.
        const state = await this.json("POST", "alive", { change: this.there ? this.change : -1 });
        if (await this.news(state)) this.change = state.change;
      } catch (error) {
        // seen() has told that the program is gone; anything else is tried again.
      } finally {
        this.beating = false;
        if (!this.over) this.timer = setTimeout(() => this.beat(), this.there ? PAUSE_MS : RETRY_MS);
      }
    }

    close() {
      this.over = true;
      clearTimeout(this.timer);
    }

    seen(there) {
      if (this.there === there || this.over) return;
      this.there = there;
      this.presence(there);
    }
  }

  async function oneLine(answer) {
    const text = (await answer.text()).trim().split("\n")[0];
    return text || `status ${answer.status}`;
  }

  // Sends the newest of what changes often: one request at a time, and what came meanwhile is left out.
  class Newest {
    // send(value) gives a promise; done(result, value) is called only if nothing newer waits.
    constructor(send, done, failed) {
      this.send = send;
      this.done = done;
      this.failed = failed;
      this.waiting = null;
      this.running = null;
    }

    put(value) {
      this.waiting = { value };
      if (!this.running) this.running = this.run();
    }

    // What is not yet sent is of no use any more; nor is the answer that is on its way.
    drop() {
      this.waiting = null;
      this.dropped = true;
    }

    async run() {
      while (this.waiting) {
        const { value } = this.waiting;
        this.waiting = null;
        this.dropped = false;
        try {
          const result = await this.send(value);
          if (!this.waiting && !this.dropped) this.done(result, value);
        } catch (error) {
          if (!this.waiting && !this.dropped) this.failed(error, value);
        }
      }
      this.running = null;
    }

    // Resolves when all is sent.
    async settled() {
      while (this.running) await this.running;
    }
  }

  viewer.Gone = Gone;
  viewer.Server = Server;
  viewer.Newest = Newest;
})((window.fastsegViewer = window.fastsegViewer || {}));
