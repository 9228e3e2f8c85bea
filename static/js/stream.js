// One stream for every page that is looked at.
const pages = new Map(); // when each asked last
let source, last;

const tell = (what) =>
	pages.forEach((at, port) => (Date.now() - at < 15e3 ? port.postMessage(what) : leave(port)));
function leave(port) {
	pages.delete(port);
	if (!pages.size) source = source?.close();
}
function open(from) {
	source?.close();
	const own = (source = new EventSource(`/events?after=${(last = from)}`));
	own.onopen = () => tell(1);
	own.onmessage = (e) => tell([e.data, (last = e.lastEventId)]);
	own.onerror = () => {
		tell(0);
		// Refused: it gives up.
		if (own.readyState > 1) setTimeout(() => own === source && open(last), 3e3);
	};
}
self.onconnect = ({ ports: [port] }) => {
	port.onmessage = ({ data }) => {
		if (!data) return leave(port);
		const known = Date.now() - pages.get(port) < 15e3;
		pages.set(port, Date.now());
		// New, awake again, or wants all.
		if (!known || data < 0) open(source && +last < +data ? last : data);
	};
};
self.postMessage && onconnect({ ports: [self] });
