// A very small VNC server: a picture that changes with each key. For tests of the console only.
// `screen` is what all who look at one desktop share: { keys, seats }. It begins anew when nobody looks any more.
export function serveRfb(socket, screen, { viewOnly } = {}) {
  const W = 800;
  const H = 500;
  let stage = "version";
  let buffer = Buffer.alloc(0);
  let pending = false;
  let dirty = true;
  const picture = () => {
    const out = Buffer.alloc(W * H * 4);
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++) {
        const bar = y < 26;
        const icon = x > 24 && x < 72 && y > 50 && y % 80 < 48 && y < 280;
        const win = x > 180 && x < 700 && y > 80 && y < 420;
        const title = win && y < 106;
        const typed = win && y > 130 && y < 150 && x > 200 && x < 200 + (screen.keys % 40) * 12 && x % 12 < 9;
        const [r, g, b] = bar ? [32, 44, 40] : typed ? [120, 230, 170] : title ? [52, 72, 66] : win ? [18, 26, 24] : icon ? [233, 196, 106] : [24 + (y >> 3), 96 + (x >> 4), 110 + (y >> 3)];
        out.writeUInt32LE((b << 16) | (g << 8) | r, (y * W + x) * 4);
      }
    return out;
  };
  const update = () => {
    if (!pending || !dirty || socket.readyState !== 1) return;
    pending = false;
    dirty = false;
    const head = Buffer.alloc(16);
    head.writeUInt16BE(1, 2);
    head.writeUInt16BE(W, 8);
    head.writeUInt16BE(H, 10);
    socket.send(Buffer.concat([head, picture()]));
  };
  const changed = () => {
    dirty = true;
    update();
  };
  screen.seats.add(changed);
  socket.on("close", () => {
    screen.seats.delete(changed);
    if (screen.seats.size === 0) screen.keys = 0;
  });
  const take = (n) => {
    const part = buffer.subarray(0, n);
    buffer = buffer.subarray(n);
    return part;
  };
  const step = () => {
    if (stage === "version" && buffer.length >= 12) {
      take(12);
      stage = "security";
      socket.send(Buffer.from([1, 1]));
      return true;
    }
    if (stage === "security" && buffer.length >= 1) {
      take(1);
      stage = "init";
      socket.send(Buffer.from([0, 0, 0, 0]));
      return true;
    }
    if (stage === "init" && buffer.length >= 1) {
      take(1);
      stage = "run";
      const init = Buffer.alloc(20);
      init.writeUInt16BE(W, 0);
      init.writeUInt16BE(H, 2);
      init.set([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0], 4);
      socket.send(Buffer.concat([init, Buffer.from([0, 0, 0, 4]), Buffer.from("mock")]));
      return true;
    }
    if (stage !== "run" || buffer.length === 0) return false;
    const need = { 0: 20, 3: 10, 4: 8, 5: 6 }[buffer[0]];
    if (buffer[0] === 2) {
      if (buffer.length < 4 || buffer.length < 4 + 4 * buffer.readUInt16BE(2)) return false;
      take(4 + 4 * buffer.readUInt16BE(2));
      return true;
    }
    if (buffer[0] === 6) {
      if (buffer.length < 8 || buffer.length < 8 + Math.abs(buffer.readInt32BE(4))) return false;
      take(8 + Math.abs(buffer.readInt32BE(4)));
      return true;
    }
    if (!need) {
      socket.close();
      return false;
    }
    if (buffer.length < need) return false;
    const message = take(need);
    if (message[0] === 3) {
      pending = true;
      if (message[1] === 0) dirty = true;
    }
    if (message[0] === 4 && message[1] === 1) {
      if (!viewOnly) {
        screen.keys += 1;
        screen.seats.forEach((changed) => changed());
      }
    }
    update();
    return true;
  };
  socket.on("message", (data) => {
    buffer = Buffer.concat([buffer, data]);
    while (step());
  });
  socket.send(Buffer.from("RFB 003.008\n"));
}
