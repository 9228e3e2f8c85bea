// Clocks, connection, keys.
const { stream, connection, notice } = window;
const on = (name, run) => document.addEventListener(name, run);
const all = (what) => [...document.querySelectorAll(what)];
const page = document.body.dataset;
const offset = (+page.now || Date.now()) - Date.now();
const now = () => Date.now() + offset;

const clock = (ms) => new Date(Math.max(0, ms)).toISOString().slice(11, 19).replace(/^(00:)?0?/, "");
const span = (ms, fine) => {
	const m = (ms / 6e4) | 0;
	const h = (m / 60) | 0;
	if (h) return `${h} h ${`${m % 60}`.padStart(2, 0)} min`;
	const s = `${((ms / 1e3) | 0) % 60} s`;
	return m ? `${m} min` + (fine ? ` ${s}` : "") : s;
};
const forms = {
	since: clock,
	until: (ms) => (ms > -36e5 ? clock : span)(-ms),
	span,
	ago: (ms) => `${span(ms, 1)} ago`,
	silence: (ms) => (ms < 6e4 ? span : clock)(ms),
};

let link, lost;
let last = "";
let ticked = now();

function tick() {
	// The machine slept: the stream may be dead.
	if (now() - ticked > 3e4) link?.reader?.cancel();
	ticked = now();
	if (lost || document.hidden) return;
	for (const el of all(".tick"))
		for (const [name, at] of Object.entries(el.dataset)) {
			const text = forms[name]?.(ticked - at);
			if (text && text !== el.textContent) el.textContent = text;
		}
	for (const el of all("[data-silent]")) {
		const share = Math.max(0, (ticked - el.dataset.silent) / el.dataset.of);
		el.querySelector(".meter-is").setAttribute("width", `${share * 100}%`);
		el.dataset.level = share < 0.5 ? "ok" : share < 0.9 ? "high" : "over";
	}
}

function show(live) {
	lost = !live && (lost || now());
	page.connection = live ? "live" : "lost";
	connection.dataset.hue = live ? "done" : "attention";
	const at = new Date(lost).toTimeString().slice(0, 8);
	connection.textContent = live ? "Live" : `Reconnecting, as of ${at}`;
}

// In a worker: what is refused there logs no error here.
const probe = stream && window.SharedWorker && new SharedWorker("/static/js/probe.js").port;
const answers = () =>
	new Promise((done) => {
		if (!probe) return done(1);
		probe.onmessage = (e) => done(e.data);
		probe.postMessage("/healthz");
	});

async function reconnect() {
	if (!stream || link || document.hidden) return;
	link = {};
	for (let wait = 500; !(await answers()); wait = Math.min(wait * 1.6, 15e3)) {
		show();
		await new Promise((done) => setTimeout(done, wait * (1 + Math.random())));
	}
	htmx.ajax("GET", `/events?after=${last}`, { source: stream });
}
function again() {
	link = 0;
	setTimeout(reconnect, 400);
}

on("htmx:sse:before:connection", (e) => {
	link = e.detail.connection;
	// The first is open; later ones are ours.
	if (link.attempt) e.preventDefault();
});
on("htmx:sse:after:connection", () => show(1));
on("htmx:sse:after:message", ({ detail }) => {
	last = detail.message.id || last;
	tick();
});
on("htmx:sse:close", again);
on("visibilitychange", reconnect);

on("htmx:after:request", ({ detail: { ctx } }) => {
	const ok = ctx.response.status < 400;
	if (ctx.request.method === "GET") return ok || again();
	notice.hidden = ok;
	// Not every click makes an event: fetch all anew.
	if (ok) link?.reader?.cancel((last = ""));
	else notice.textContent = JSON.parse(ctx.text).error;
});

// A key presses what names it: each is a link or button too.
let before = "";
on("keydown", (e) => {
	const at = document.activeElement;
	if (e.key === "Escape") {
		for (const el of all(".c details,.menu,.ask")) el.open = 0;
		at.blur();
	}
	if (e.ctrlKey || e.metaKey || e.altKey || at.matches("input,select")) return;
	const key = before + e.key;
	before = key === "g" ? key : "";
	const rows = all("tbody th a,[data-row]");
	const step = { j: 1, k: -1 }[key];
	const el = step
		? rows[Math.max(0, rows.indexOf(at) + step)]
		: all("[data-key]").find((el) => el.dataset.key === key);
	if (!el) return;
	e.preventDefault();
	el.focus();
	if (!step) el.click();
});

tick();
setInterval(tick, 1e3);
