"use strict";
(() => {
  // The server's answer changes with the rows; the address, which holds all choices, survives a reload.
  let first = null;
  setInterval(async () => {
    try {
      const now = await (await fetch("version")).text();
      first ??= now;
      if (now !== first) location.reload();
    } catch { /* the server has ended: the page stays as it is */ }
  }, 2000);
})();
