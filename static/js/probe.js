// Says whether the server answers, away from the page.
onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = async (message) => {
    const answer = await fetch(message.data, { cache: "no-store" }).catch(() => null);
    port.postMessage(Boolean(answer));
  };
};
