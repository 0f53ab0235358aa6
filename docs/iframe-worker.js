// Search of the site opened as a file. Browsers refuse to start a Worker from a file: URL, so this
// one runs the script in a hidden frame. It has what the search of mkdocs-material uses.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.scope = frame.contentWindow;
      const page = this.scope.document;
      page.open();
      page.write("<!doctype html><body></body>");
      page.close();
      this.scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
      const load = source => new Promise((done, failed) => {
        const script = page.createElement("script");
        Object.assign(script, {src: source, onload: done, onerror: failed});
        page.body.append(script);
      });
      // In order: a later script uses an earlier one.
      this.scope.importScripts = (...urls) => urls.reduce((loaded, next) => loaded.then(() => load(next)), Promise.resolve());
      this.loaded = load(String(url));
    }
    postMessage(data) {
      this.loaded.then(() => this.scope.dispatchEvent(new MessageEvent("message", {data})));
    }
    terminate() {
      this.scope.frameElement.remove();
    }
  };
}
