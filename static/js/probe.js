// Tells a page whether the server answers.
onconnect = ({ ports: [port] }) => {
  const say = (yes) => () => port.postMessage(yes);
  port.onmessage = ({ data }) => fetch(data).then(say(true), say(false));
};
