// Does the server answer?
onconnect = ({ ports: [port] }) => {
	const say = (yes) => () => port.postMessage(yes);
	port.onmessage = ({ data }) => fetch(data).then(say(1), say(0));
};
