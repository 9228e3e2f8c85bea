// Clocks, the state of the connection in words, title and icon; everything else is rendered by the server.
(() => {
  const $ = (id) => document.getElementById(id);
  const body = document.body;
  const offset = Number(body.dataset.now) - Date.now();
  const now = () => Date.now() + offset;
  const stream = $("stream");
  const two = (n) => String(n).padStart(2, "0");
  const clock = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    const h = Math.floor(s / 3600);
    const m = Math.floor(s / 60) % 60;
    return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
  };
  const span = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} min`;
  };
  const forms = {
    since: (t) => clock(now() - t),
    span: (t) => span(now() - t),
    ago: (t) => (now() - t > 86400000 ? null : `${span(now() - t)} ago`),
    until: (t) => clock(t - now()),
    sinceShort: (t) => span(now() - t),
  };
  const put = (el, text) => {
    if (text !== null && el.textContent !== text) el.textContent = text;
  };

  let lost = 0;
  let ticked = Date.now();
  let connection = null;
  let lastId = "";
  let said = "";

  function tick() {
    // A gap of this length was a sleeping machine: the stream may be dead without knowing it.
    if (Date.now() - ticked > 30000) connection?.reader?.cancel();
    ticked = Date.now();
    if (lost || document.hidden) return;
    for (const el of document.querySelectorAll(".tick")) {
      for (const name in el.dataset) if (forms[name]) put(el, forms[name](Number(el.dataset[name])));
    }
    for (const el of document.querySelectorAll("[data-silent]")) {
      const share = Math.min(100, ((now() - el.dataset.silent) / el.dataset.of) * 100);
      el.querySelector(".meter-is").setAttribute("width", `${share.toFixed(1)}%`);
      el.dataset.level = share >= 90 ? "over" : share >= 50 ? "high" : "ok";
    }
  }

  function mirror() {
    const from = document.querySelector("[data-say]");
    if (!from) return;
    const { say, pageTitle, icon } = from.dataset;
    if ($("verdict")) document.title = pageTitle;
    if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
    document.querySelector(".brand .mark").dataset.hue = from.dataset.hue;
    if (said && said !== say) $("announcer").textContent = say;
    said = say;
  }

  function show(live) {
    const el = $("connection");
    if (!el) return;
    if (!live && !lost) lost = now();
    if (live) lost = 0;
    body.dataset.connection = live ? "live" : "lost";
    el.dataset.hue = live ? "done" : "attention";
    put(el, live ? "Live" : `Reconnecting, as of ${new Date(lost).toTimeString().slice(0, 8)}`);
  }

  // Asked in a worker: a refused connection there leaves no error in the console of this page.
  let probe = null;
  async function answers() {
    if (!window.SharedWorker) return true;
    probe ??= new SharedWorker("/static/js/probe.js").port;
    return new Promise((done) => {
      probe.onmessage = (event) => done(event.data);
      probe.postMessage("/healthz");
    });
  }

  let trying = false;
  async function reconnect() {
    if (trying) return;
    trying = true;
    for (let wait = 500; !(await answers()); wait = Math.min(wait * 1.6, 15000)) {
      show(false);
      await new Promise((done) => setTimeout(done, wait * (0.7 + Math.random() * 0.6)));
    }
    trying = false;
    htmx.ajax("GET", `/events?after=${lastId}`, { source: stream });
  }

  document.addEventListener("htmx:sse:before:connection", (event) => {
    connection = event.detail.connection;
    // The first time the answer is there already; after that the way back is ours (see answers).
    if (connection.attempt > 0) event.preventDefault();
  });
  document.addEventListener("htmx:sse:after:connection", () => show(true));
  document.addEventListener("htmx:sse:after:message", (event) => {
    lastId = event.detail.message.id || lastId;
    mirror();
    tick();
  });
  document.addEventListener("htmx:sse:close", () => {
    connection = null;
    if (!leaving) setTimeout(() => !document.hidden && reconnect(), 400);
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && stream && !connection) reconnect();
  });
  let leaving = false;
  addEventListener("pagehide", () => (leaving = true));
  addEventListener("pageshow", (event) => {
    leaving = false;
    if (event.persisted && stream && !connection) reconnect();
  });

  document.addEventListener("htmx:after:request", (event) => {
    const { response, text, request } = event.detail.ctx;
    if (request.method === "GET") return;
    let words = "";
    if (response.status >= 400) {
      try {
        words = JSON.parse(text).error;
      } catch {
        words = `The server answered ${response.status}.`;
      }
    }
    $("notice").textContent = words;
    $("notice").hidden = !words;
  });

  mirror();
  tick();
  setInterval(tick, 1000);
})();
