// Clocks, connection, title and icon.
const $ = (id) => document.getElementById(id);
const on = (name, run) => document.addEventListener(name, run);
const all = (what) => document.querySelectorAll(what);
const stream = $("stream");
const offset = (+document.body.dataset.now || Date.now()) - Date.now();
const now = () => Date.now() + offset;

const two = (n) => `${n}`.padStart(2, 0);
const parts = (ms) => {
	const s = Math.max(0, ms / 1e3) | 0;
	return [(s / 3600) | 0, ((s / 60) | 0) % 60, s % 60];
};
const clock = (ms) => {
	const [h, m, s] = parts(ms);
	return (h ? `${h}:${two(m)}` : m) + `:${two(s)}`;
};
const span = (ms, fine) => {
	const [h, m, s] = parts(ms);
	return h ? `${h} h ${two(m)} min` : !m ? `${s} s` : `${m} min` + (fine ? ` ${s} s` : "");
};
const forms = {
	since: (t) => clock(now() - t),
	until: (t) => clock(t - now()),
	span: (t) => span(now() - t),
	ago: (t) => `${span(now() - t, true)} ago`,
	silence: (t) => (now() - t < 6e4 ? span : clock)(now() - t),
};

let link, busy, said;
let lost = 0;
let last = "";
let ticked = now();

function tick() {
	// The machine slept: the stream may be dead.
	if (now() - ticked > 3e4) link?.reader?.cancel();
	ticked = now();
	if (lost || document.hidden) return;
	for (const el of all(".tick"))
		for (const name in el.dataset) {
			const text = forms[name]?.(el.dataset[name]);
			if (text && text !== el.textContent) el.textContent = text;
		}
	for (const el of all("[data-silent]")) {
		const share = Math.min(100, Math.max(0, ((now() - el.dataset.silent) / el.dataset.of) * 100));
		el.querySelector(".meter-is").setAttribute("width", `${share.toFixed(1)}%`);
		el.dataset.level = share < 50 ? "ok" : share < 90 ? "high" : "over";
	}
}

function mirror() {
	const from = all("[data-say]")[0]?.dataset;
	if (!from) return;
	if ($("verdict")) document.title = from.pageTitle;
	if ($("icon").href !== from.icon) $("icon").href = from.icon;
	all(".mark")[0].dataset.hue = from.hue;
	if (said && said !== from.say) $("announcer").textContent = from.say;
	said = from.say;
}

function show(live) {
	lost = live ? 0 : lost || now();
	document.body.dataset.connection = live ? "live" : "lost";
	const el = $("connection");
	el.dataset.hue = live ? "done" : "attention";
	el.textContent = live ? "Live" : `Reconnecting, as of ${new Date(lost).toTimeString().slice(0, 8)}`;
}

// In a worker: what is refused there logs no error here.
const probe = stream && window.SharedWorker && new SharedWorker("/static/js/probe.js").port;
const answers = () =>
	new Promise((done) => {
		if (!probe) return done(true);
		probe.onmessage = (e) => done(e.data);
		probe.postMessage("/healthz");
	});

async function reconnect() {
	if (busy || link || document.hidden) return;
	busy = true;
	for (let wait = 500; !(await answers()); wait = Math.min(wait * 1.6, 15e3)) {
		show(false);
		await new Promise((done) => setTimeout(done, wait * (1 + Math.random() / 2)));
	}
	busy = false;
	htmx.ajax("GET", `/events?after=${last}`, { source: stream });
}

on("htmx:sse:before:connection", (e) => {
	link = e.detail.connection;
	// The first is open; later ones are ours.
	if (link.attempt) e.preventDefault();
});
on("htmx:sse:after:connection", () => show(true));
on("htmx:sse:after:message", ({ detail }) => {
	last = detail.message.id || last;
	mirror();
	tick();
});
on("htmx:sse:close", () => {
	link = null;
	setTimeout(reconnect, 400);
});
on("visibilitychange", () => stream && reconnect());

on("htmx:after:request", ({ detail: { ctx } }) => {
	if (ctx.request.method === "GET") return;
	const bad = ctx.response.status >= 400;
	// Not every click makes an event: fetch all anew.
	if (!bad) {
		last = "";
		link?.reader?.cancel();
	}
	const told = ctx.text.match(/"error":\s*("(\\.|[^"])*")/);
	$("notice").textContent = told ? JSON.parse(told[1]) : "That failed.";
	$("notice").hidden = !bad;
});

mirror();
tick();
setInterval(tick, 1000);
