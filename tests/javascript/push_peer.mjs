// A WebSocket server of another make, for the load tester: it pushes what clients publish to whoever has subscribed.
// Prints its port. Its arguments: every so-manieth publication does not reach the first subscriber (0: every one does);
// "deflate" if it compresses, for each connection anew; its port, if it is not any.

import { WebSocketServer } from 'ws';

const dropEvery = Number(process.argv[2] ?? 0);
const perMessageDeflate = process.argv[3] === 'deflate';
const port = Number(process.argv[4] ?? 0);
const subscribers = new Map();
let publications = 0;

const server = new WebSocketServer({ host: '127.0.0.1', port, perMessageDeflate });
server.on('listening', () => console.log(server.address().port));
server.on('connection', (socket) => {
  socket.on('error', () => socket.terminate());
  socket.on('message', (data) => {
    const [, command, rest] = /^(\w+) (.*)$/s.exec(data.toString());
    if (command === 'hello') {
      socket.send(`welcome ${rest}`);
    } else if (command === 'subscribe') {
      subscribe(rest, socket);
    } else if (command === 'publish') {
      const blank = rest.indexOf(' ');
      publish(rest.slice(0, blank), rest.slice(blank + 1));
    }
  });
});

function subscribe(channel, socket) {
  const sockets = subscribers.get(channel) ?? new Set();
  subscribers.set(channel, sockets.add(socket));
  socket.on('close', () => sockets.delete(socket));
  socket.send(`subscribed ${channel}`);
}

function publish(channel, payload) {
  publications += 1;
  const isDropped = dropEvery > 0 && publications % dropEvery === 0;
  const sockets = [...(subscribers.get(channel) ?? [])];
  for (const socket of isDropped ? sockets.slice(1) : sockets) {
    socket.send(`${channel} ${payload}`);
  }
}
