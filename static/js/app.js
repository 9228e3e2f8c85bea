// Clocks, connection, keys.
const on = (name, run) => document.addEventListener(name, run);
const all = (what) => [...document.querySelectorAll(what)];
const { body } = document;
const page = body.dataset;
const skew = page.now - Date.now();

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

let lost;
// In a worker: its refusals log nothing here.
const port = page.worker && (window.SharedWorker ? new SharedWorker(page.worker).port : new Worker(page.worker));
const ask = (from = page.after) => port?.postMessage(document.hidden ? 0 : from);

function tick() {
	ask();
	if (lost || document.hidden) return;
	const now = Date.now() + skew;
	for (const el of all(".tick"))
		for (const name in el.dataset) {
			const text = forms[name]?.(now - el.dataset[name]);
			if (text && text !== el.textContent) el.textContent = text;
		}
	for (const el of all("[data-silent]")) {
		const share = Math.max(0, (now - el.dataset.silent) / el.dataset.of);
		el.querySelector(".meter-is").setAttribute("width", `${share * 100}%`);
		el.dataset.level = share < 0.5 ? "ok" : share < 0.9 ? "high" : "over";
	}
}

if (port)
	port.onmessage = ({ data }) => {
		lost = !data && (lost || new Date());
		page.connection = data ? "live" : "lost";
		connection.textContent = data ? "Live" : `Reconnecting, as of ${lost.toTimeString().slice(0, 8)}`;
		if (!data[0]) return;
		page.after = data[1];
		htmx.swap({ sourceElement: body, target: body, swap: "none", text: data[0] });
		body.dispatchEvent(new Event("news"));
		tick();
	};
on("visibilitychange", tick);

on("htmx:before:request", (e) => lost && e.preventDefault());
on("htmx:after:request", ({ detail: { ctx } }) => {
	if (ctx.request.method === "GET") return;
	notice.hidden = !ctx.text;
	// Not every click makes an event.
	if (!ctx.text) return ask(-1);
	notice.textContent = JSON.parse(ctx.text).error;
});

// A key presses what names it.
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
	const step = { j: 1, n: 1, k: -1, N: -1 }[key];
	const rows = all(/n/i.test(key) ? "[data-hit]" : "tbody th a,[data-row]").filter((el) => el.checkVisibility());
	const el = step
		? rows[rows.indexOf(at) + step]
		: all("[data-key]").find((el) => el.dataset.key === key);
	if (!el) return;
	e.preventDefault();
	el.focus();
	if (!step) el.click();
});

tick();
setInterval(tick, 1e3);
