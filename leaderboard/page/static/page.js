"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // Tables of up to WHOLE lines are shown whole, longer ones from the top: laying out lines is what takes time.
  const WHOLE = 200, FIRST = 50, MISSING = "-";
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);

  // Small helpers: elements are made with text nodes only, so that nothing in a row is ever read as HTML.
  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== ""));
    return node;
  }
  function draw(name, attributes, ...children) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  const option = (value, text, chosen) => make("option", { value, selected: value === chosen }, text);
  const fixed = (value, digits = 1) => (value === null || value === undefined ? MISSING : value.toFixed(digits));
  function save(name, type, content) {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // The state is the address: every choice is a parameter of the hash, so that a view can be linked.
  let state = new URLSearchParams(location.hash.slice(1));
  function set(changes) {
    for (const [key, value] of Object.entries(changes)) value ? state.set(key, value) : state.delete(key);
    state.delete("at");
    history.replaceState(null, "", "#" + state);
  }
  const task = () => data.tasks.find((one) => one.label === state.get("task")) || data.tasks[0];

  // Tables.
  const tables = new Map();
  function found(name) {
    if (name === "overview") return data.overview;
    const [label, place, index] = name.split("/");
    return data.tasks.find((one) => one.label === label).tables[place][index];
  }
  function prepare(block) {
    const name = block.dataset.table, table = found(name);
    const at = (heading) => table.columns.findIndex((column) => column.name === heading);
    const one = { name, block, table, method: at("Method"), limit: table.lines.length > WHOLE ? FIRST : WHOLE, body: block.querySelector("tbody") };
    one.ranges = table.columns.map((column, i) => range(column, i, table.lines));
    one.heads = [...block.querySelectorAll("thead th")];
    one.heads.forEach((head, i) => {
      head.replaceChildren(make("button", { type: "button", onclick: () => sortBy(one, i) }, head.textContent));
      head.classList.add(table.columns[i].kind);
    });
    tools(one);
    tables.set(name, one);
  }
  function range(column, i, lines) {
    if (column.kind !== "interval") return null;
    let low = column.limit ?? Infinity, high = column.limit ?? -Infinity;
    for (const { cells } of lines) {
      const [, value, from = value, to = value] = cells[i];
      if (value === undefined) continue;
      low = Math.min(low, from);
      high = Math.max(high, to);
    }
    return { low: Math.min(low, 0), high: Math.max(high, 0.001) };
  }
  const FILTERS = { source: "Source", status: "Status", needs: "Needs" };
  function tools(one) {
    const bar = one.block.querySelector(".tools");
    const key = (part) => one.name + "." + part;
    if (one.table.lines.length > 5) {
      const find = make("input", { type: "search", placeholder: "Find a method", "aria-label": "Find in " + one.table.title,
        value: state.get(key("find")) || "", oninput: () => { set({ [key("find")]: find.value }); show(one); } });
      bar.append(find);
      for (const [part, label] of Object.entries(FILTERS)) {
        const values = [...new Set(one.table.lines.flatMap((line) => line[part] ?? []))].sort();
        if (values.length < 2) continue;
        const select = make("select", { "data-part": part, onchange: () => { set({ [key(part)]: select.value }); show(one); } },
          option("", "any", ""), ...values.map((value) => option(value, value, state.get(key(part)))));
        bar.append(make("label", { class: "pick" }, make("span", {}, label), select));
      }
    }
    one.count = make("span", { class: "count soft", role: "status", "aria-live": "polite" });
    one.all = make("button", { type: "button", class: "quiet", hidden: true, onclick: () => clear(one) }, "Show all");
    const exports = make("select", { "aria-label": "Export " + one.table.title, onchange: () => {
      if (exports.value) save(fileName(one) + "." + exports.value, "text/plain", EXPORTS[exports.value](one));
      exports.value = "";
    } }, option("", "Export…", ""), ...Object.keys(EXPORTS).map((name) => option(name, NAMES[name], "")));
    bar.append(one.count, one.all, exports);
    one.more = make("button", { type: "button", hidden: true, onclick: () => { one.limit += 1000; show(one); } });
    one.block.querySelector(".scroll").after(one.more);
  }
  function clear(one) {
    set(Object.fromEntries(["find", ...Object.keys(FILTERS)].map((part) => [one.name + "." + part, ""])));
    one.block.querySelectorAll(".tools input, .tools select").forEach((field) => { field.value = ""; });
    show(one);
    one.block.querySelector(".tools input").focus();
  }
  function sortBy(one, column) {
    const [now, way] = order(one);
    const first = ["rank", "text"].includes(one.table.columns[column].kind) ? 1 : -1;
    const next = now !== column ? first : way === first ? -first : 0;
    set({ [one.name + ".sort"]: next ? column + ":" + next : "" });
    show(one);
  }
  function order(one) {
    const [column, way] = (state.get(one.name + ".sort") || "").split(":").map(Number);
    return one.table.columns[column] && way ? [column, way] : [-1, 0];
  }
  function visible(one) {
    const words = (state.get(one.name + ".find") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = Object.keys(FILTERS).map((part) => [part, state.get(one.name + "." + part)]).filter(([, value]) => value);
    const fits = (line) => wanted.every(([part, value]) => [].concat(line[part] ?? []).includes(value)) &&
      words.every((word) => line.cells.some((cell, i) => one.table.columns[i].kind === "text" && cell[0].toLowerCase().includes(word)));
    const lines = words.length || wanted.length ? one.table.lines.filter(fits) : one.table.lines;
    const [column, way] = order(one);
    if (column < 0) return lines;
    const pinned = (line) => one.method >= 0 && line.cells[one.method][0] === MISSING;
    return [...lines.filter(pinned), ...sorted(lines.filter((line) => !pinned(line)), column, one.table.columns[column].kind, way)];
  }
  const collator = new Intl.Collator("en", { numeric: true });
  function sorted(lines, column, kind, way) {
    // Positions are sorted by an array of keys: 20,000 lines take a few milliseconds. What has no number comes last.
    const keys = kind === "text" ? lines.map(({ cells }) => cells[column][0]) : Float64Array.from(lines, ({ cells }) => cells[column][1] ?? NaN);
    const order = Uint32Array.from(lines.keys());
    if (kind === "text") order.sort((i, j) => way * collator.compare(keys[i], keys[j]) || i - j);
    else order.sort((i, j) => isNaN(keys[i]) - isNaN(keys[j]) || way * (keys[i] - keys[j]) || i - j);
    return Array.from(order, (i) => lines[i]);
  }
  function show(one) {
    const lines = visible(one), total = one.table.lines.length;
    const [column, way] = order(one);
    one.heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : way > 0 ? "ascending" : "descending"));
    one.body.replaceChildren(...lines.slice(0, one.limit).map((line) => row(one, line)));
    const hidden = total - lines.length;
    one.count.textContent = hidden ? `${lines.length} of ${total} rows, ${hidden} hidden by filters` : `${total} rows`;
    one.all.hidden = !hidden;
    one.more.hidden = lines.length <= one.limit;
    one.more.textContent = `Show more: ${lines.length - one.limit} rows are below`;
  }
  function row(one, line) {
    const tie = line.tie === undefined ? "" : line.tie % 2 ? "tie odd" : "tie even";
    return make("tr", { class: tie, title: line.why ?? null }, ...line.cells.map((cell, i) => td(one, line, cell, i)));
  }
  function td(one, line, cell, i) {
    const kind = one.table.columns[i].kind;
    if (i === one.method) {
      const name = cell[0].split("@")[0];
      const inside = byId("method-" + name) ? make("a", { href: "#" + new URLSearchParams({ method: name }) }, cell[0]) : cell[0];
      return make("th", { scope: "row" }, inside);
    }
    if (kind === "rank" && line.tie !== undefined)
      return make("td", { class: kind }, cell[0], " ", make("b", { class: "letter", title: "group of ties" }, letter(line.tie)));
    if (kind !== "interval" || cell.length < 2) return make("td", { class: kind + " s-" + (i ? cell[0].split(" ")[0] : "") }, cell[0]);
    const [, value, bounds = "", more = ""] = /^(\S+?)( \[.*?\])?((?:,| \(| ±).*)?$/.exec(cell[0]) || [null, cell[0]];
    const number = make("span", {}, make("b", {}, value), make("span", { class: "soft" }, bounds), more && make("span", {}, more));
    return make("td", { class: kind }, number, bar(one.ranges[i], cell, one.table.columns[i].limit));
  }
  const letter = (index) => (index < 26 ? "" : letter(Math.floor(index / 26) - 1)) + String.fromCharCode(65 + (index % 26));
  function bar({ low, high }, [, value, from, to], limit) {
    const x = (number) => (2 + (96 * (number - low)) / (high - low)).toFixed(1);
    const svg = draw("svg", { class: "bar", viewBox: "0 0 100 10", "aria-hidden": "true", preserveAspectRatio: "none" });
    svg.append(draw("line", { x1: x(0), x2: x(0), y1: 0, y2: 10, class: "zero" }));
    if (limit !== undefined) svg.append(draw("line", { x1: x(limit), x2: x(limit), y1: 0, y2: 10, class: "limit" }));
    if (from !== undefined) svg.append(draw("line", { x1: x(from), x2: x(to), y1: 5, y2: 5, class: "span" }));
    svg.append(draw("line", { x1: x(value), x2: x(value), y1: 1, y2: 9, class: "mean" }));
    return svg;
  }

  // What is exported is what is shown: filtered, sorted, with the text's own numbers.
  const fileName = (one) => one.name.replaceAll("/", "-");
  const shownCells = (one) => visible(one).map((line) => line.cells);
  const NAMES = { csv: "CSV", json: "JSON", tex: "LaTeX", md: "Markdown" };
  const parts = ({ name, kind }) => (kind === "interval" ? [name, name + " low", name + " high"] : [name]);
  const values = (cell, { kind }) => (kind === "interval" ? [cell[1] ?? "", cell[2] ?? "", cell[3] ?? ""] : [kind === "number" ? cell[1] ?? "" : cell[0]]);
  // A cell that a spreadsheet would take for a formula gets an apostrophe.
  const quoted = (value) => (typeof value === "number" ? String(value) : `"${String(value).replace(/^(?=[=+@\t]|-\D)/, "'").replaceAll('"', '""')}"`);
  const tex = (text) => text.replace(/[\\&%$#_{}~^]/g, (sign) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" })[sign] || "\\" + sign).replaceAll("×", "$\\times$");
  const EXPORTS = {
    csv: (one) => [one.table.columns.flatMap(parts).map(quoted), ...shownCells(one).map((cells) => cells.flatMap((cell, i) => values(cell, one.table.columns[i])).map(quoted))].map((line) => line.join(",")).join("\n") + "\n",
    json: (one) => JSON.stringify({ title: one.table.title, notes: one.table.notes, rows: shownCells(one).map((cells) => Object.fromEntries(cells.map((cell, i) => [one.table.columns[i].name,
      cell.length > 2 ? { text: cell[0], mean: cell[1], low: cell[2], high: cell[3] } : cell.length > 1 && one.table.columns[i].kind !== "rank" ? cell[1] : cell[0]]))) }, null, 1) + "\n",
    tex: (one) => ["% " + one.table.title.replace(/\s+/g, " "), `\\begin{tabular}{${one.table.columns.map(({ kind }) => (kind === "text" ? "l" : "r")).join("")}}`, "\\toprule",
      one.table.columns.map(({ name }) => tex(name)).join(" & ") + " \\\\", "\\midrule", ...shownCells(one).map((cells) => cells.map(([text]) => tex(text)).join(" & ") + " \\\\"), "\\bottomrule", "\\end{tabular}", ""].join("\n"),
    md: (one) => { const md = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("|", "\\|").replaceAll("\n", " ");
      return [one.table.columns.map(({ name }) => md(name)), one.table.columns.map(({ kind }) => (kind === "text" ? "---" : "---:")), ...shownCells(one).map((cells) => cells.map(([text]) => md(text)))].map((line) => `| ${line.join(" | ")} |`).join("\n") + "\n"; },
  };

  // Figures: each can be taken as SVG or PNG, with its own style inside.
  function figureFile(figure) {
    const svg = figure.querySelector("svg").cloneNode(true);
    svg.prepend(draw("style", {}, byId("look").textContent.replace(/@media[^{]*\{:root\{[^}]*\}\}/, "")));
    return new XMLSerializer().serializeToString(svg);
  }
  function png(figure, name) {
    const { width, height } = figure.querySelector("svg").viewBox.baseVal, image = new Image();
    image.onload = () => {
      const canvas = make("canvas", { width: 2 * width, height: 2 * height }), pen = canvas.getContext("2d");
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(name + ".png", "image/png", blob));
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(figureFile(figure));
  }
  for (const figure of document.querySelectorAll("figure[data-name]")) {
    const name = figure.dataset.name;
    figure.querySelector("figcaption").append(
      make("button", { type: "button", class: "quiet", "aria-label": "SVG of " + name, onclick: () => save(name + ".svg", "image/svg+xml", figureFile(figure)) }, "SVG"),
      make("button", { type: "button", class: "quiet", "aria-label": "PNG of " + name, onclick: () => png(figure, name) }, "PNG"));
  }

  // Choices that show one of several figures: which cost, and what images are compared by.
  function choose() {
    for (const select of document.querySelectorAll("select[data-choose]")) {
      const wanted = state.get(select.dataset.choose);
      if ([...select.options].some(({ value }) => value === wanted)) select.value = wanted;
      const home = select.closest("section").querySelector(`[data-chosen="${select.dataset.choose}"]`);
      home.querySelectorAll("[data-choice]").forEach((one) => { one.hidden = one.dataset.choice !== select.value; });
    }
  }

  // Two entries side by side.
  const named = (label, fallback) => { const i = (task().entries || []).findIndex(([name]) => name === label); return i < 0 ? fallback : i; };
  function fill(select, pairs, chosen) {
    select.replaceChildren(...pairs.map(([value, text]) => option(String(value), text, String(chosen))));
  }
  function compare() {
    const { entries = [], pairs = [], queries = [], scores = [] } = task();
    byId("compare").hidden = entries.length < 2;
    if (entries.length < 2) return;
    const a = named(state.get("a"), 0), b = named(state.get("b"), Math.min(1, entries.length - 1));
    for (const [id, chosen] of [["a", a], ["b", b]]) fill(byId(id), entries.map(([name, , , text], i) => [i, `${name}  ${text}`]), chosen);
    const pair = pairs.find(([i, j]) => i === Math.min(a, b) && j === Math.max(a, b));
    const shared = queries.map((query, i) => [query, scores[a][i], scores[b][i]]).filter(([, x, y]) => x !== null && y !== null);
    byId("verdict").replaceChildren(...verdict(entries[a][0], entries[b][0], pair && (a < b ? pair : turned(pair)), shared));
    byId("scatter").replaceChildren(scatter(entries[a][0], entries[b][0], shared), perQuery(entries[a][0], entries[b][0], shared));
  }
  const turned = ([i, j, mean, low, high, p]) => [j, i, -mean, low === null ? null : -high, low === null ? null : -low, p];
  function verdict(a, b, pair, shared) {
    if (a === b) return ["Choose two different entries."];
    if (!pair) return ["One of them misses queries: means over different queries do not compare."];
    const [, , mean, low, high, p] = pair;
    const wins = shared.filter(([, x, y]) => x > y).length;
    const said = low > 0 ? `${a} is significantly better than ${b}` : high < 0 ? `${b} is significantly better than ${a}` : `${a} and ${b} cannot be told apart`;
    const by = `: ${a} less ${b} is ${fixed(mean)} [${fixed(low)}, ${fixed(high)}] LDS×100 over all kinds, p ${p < 0.01 ? (p < 0.002 ? "≤ 0.002" : "= " + p.toFixed(3)) : "= " + p.toFixed(2)} (paired bootstrap, not corrected for many comparisons). `;
    return [make("b", {}, said), by, `${a} scores higher on ${wins} of ${shared.length} queries.`];
  }
  function scatter(a, b, shared) {
    const size = 420, margin = 46, all = shared.flatMap(([, x, y]) => [x, y]);
    const low = Math.floor(Math.min(0, ...all) / 20) * 20, high = Math.ceil(Math.max(20, ...all) / 20) * 20;
    const x = (value) => margin + ((size - 2 * margin) * (value - low)) / (high - low), y = (value) => size - x(value);
    const svg = draw("svg", { class: "figure", viewBox: `0 0 ${size} ${size}`, width: size, height: size, role: "img", "aria-label": `LDS×100 of ${shared.length} queries: ${a} across, ${b} upwards; the same as a table below` });
    for (let tick = low; tick <= high; tick += 20) {
      svg.append(draw("line", { x1: x(tick), x2: x(tick), y1: y(low), y2: y(high), class: "s-line" }), draw("line", { x1: x(low), x2: x(high), y1: y(tick), y2: y(tick), class: "s-line" }));
      svg.append(draw("text", { x: x(tick), y: y(low) + 16, "text-anchor": "middle", "font-size": 11, class: "f-soft" }, String(tick)), draw("text", { x: x(low) - 6, y: y(tick) + 4, "text-anchor": "end", "font-size": 11, class: "f-soft" }, String(tick)));
    }
    svg.append(draw("line", { x1: x(low), x2: x(high), y1: y(low), y2: y(high), class: "s-soft", "stroke-dasharray": "5 4" }));
    const kinds = [...new Set(shared.map(([[, kind]]) => kind))];
    for (const [[query, kind], one, other] of shared) {
      const k = kinds.indexOf(kind) % 4, place = k ? { x: x(one) - 4, y: y(other) - 4, width: 8, height: 8 } : { cx: x(one), cy: y(other), r: 4.5 };
      const dot = draw(k ? "rect" : "circle", { ...place, class: `dot f-c${k}` }, draw("title", {}, `${query}: ${a} ${fixed(one)}, ${b} ${fixed(other)}`));
      dot.addEventListener("click", () => go({ q: query, at: "query" }));
      svg.append(dot);
    }
    kinds.forEach((kind, i) => svg.append(draw("text", { x: margin + 4 + 130 * i, y: 18, "font-size": 12, class: `f-c${i % 4}` }, `${i ? "■" : "●"} ${kind}`)));
    svg.append(draw("text", { x: size / 2, y: size - 8, "text-anchor": "middle", "font-size": 12, class: "f-text" }, a), draw("text", { x: 12, y: size / 2, transform: `rotate(-90 12 ${size / 2})`, "text-anchor": "middle", "font-size": 12, class: "f-text" }, b));
    return make("div", { class: "scroll" }, svg);
  }
  function perQuery(a, b, shared) {
    const heads = ["Query", "Kind", a, b, "Difference"].map((text) => make("th", { scope: "col" }, text));
    const lines = [...shared].sort((one, other) => Math.abs(other[1] - other[2]) - Math.abs(one[1] - one[2]));
    const rows = lines.map(([[query, kind], one, other]) => make("tr", {}, make("th", { scope: "row" }, make("a", { href: "#" + new URLSearchParams({ q: query, at: "query" }) }, query)), make("td", {}, kind), ...[one, other, one - other].map((value) => make("td", { class: "number" }, fixed(value)))));
    return make("details", { open: true }, make("summary", {}, "Each query"), make("div", { class: "scroll" }, make("table", { class: "plain" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows))));
  }

  // One query: its picture and what entries put on top.
  function useSprites() {
    data.tasks.forEach(({ sprite }, i) => {
      if (sprite) document.styleSheets[0].insertRule(`.sprite-${i}{background-image:url("${sprite.uri}")}`, 0);
    });
  }
  function tile(kind, id, side) {
    const { sprite } = task(), index = sprite && sprite[kind][id];
    if (index === null || index === undefined) return make("span", { class: "tile none" }, kind === "items" ? "#" + id : id);
    const node = make("span", { class: "tile sprite-" + data.tasks.indexOf(task()), role: "img", "aria-label": (kind === "items" ? "training image " : "query ") + id });
    Object.assign(node.style, { width: side + "px", height: side + "px", backgroundSize: sprite.columns * side + "px auto", backgroundPosition: `${-side * (index % sprite.columns)}px ${-side * Math.floor(index / sprite.columns)}px` });
    node.style.imageRendering = sprite.tile < side ? "pixelated" : "auto";
    return node;
  }
  function drill() {
    const { entries = [], queries = [], scores = [], tops = [], why = "", sprite = null } = task();
    byId("query").hidden = !queries.length;
    if (!queries.length) return;
    const at = Math.max(0, queries.findIndex(([id]) => id === state.get("q")));
    const [id, kind] = queries[at], all = state.get("which") === "all";
    fill(byId("q"), queries.map(([query, sort], i) => [i, `${query} (${sort})`]), at);
    byId("which").value = all ? "all" : "best";
    byId("before").disabled = at === 0;
    byId("after").disabled = at === queries.length - 1;
    const seen = new Set();
    const shown = entries.map((_, i) => i).filter((i) => tops[i] && tops[i][at] && (all || !seen.has(entries[i][1])) && seen.add(entries[i][1]));
    const named = {};
    shown.forEach((i) => tops[i][at].forEach((item) => { named[item] = (named[item] || 0) + 1; }));
    const lines = shown.map((i) => make("div", { class: "named" }, make("div", { class: "who" }, make("b", {}, entries[i][0]), make("span", { class: "soft" }, ` ${fixed(scores[i][at])}`)),
      make("ol", { class: "top", tabindex: "0", "aria-label": "Top items by " + entries[i][0] }, ...tops[i][at].map((item) => make("li", {}, tile("items", item, 48), make("span", { class: "soft" }, (sprite ? "#" + item : "") + (named[item] > 1 ? ` ×${named[item]}` : "")))))));
    const note = shown.length ? "×2: named by two of the entries shown. #: the item's id." : "No row holds top items of this query.";
    byId("drill").replaceChildren(make("div", { class: "asked" }, tile("queries", id, 144), make("p", { class: "soft" }, `${id}, ${kind}`), make("p", { class: "soft" }, sprite ? "" : `No pictures: ${why}.`)), make("div", { class: "lines" }, ...lines, make("p", { class: "soft" }, note)));
  }
  const step = (by) => { const { queries } = task(), at = Math.max(0, queries.findIndex(([id]) => id === state.get("q"))); set({ q: queries[at + by][0] }); drill(); };

  // What the address says is shown.
  function show_all() {
    byId("choose-task").value = task().label;
    document.querySelectorAll("section.task").forEach((one) => { one.hidden = one.dataset.task !== task().label; });
    for (const one of tables.values()) {
      for (const part of ["find", ...Object.keys(FILTERS)]) {
        const field = one.block.querySelector(part === "find" ? ".tools input" : `.tools [data-part="${part}"]`);
        if (field) field.value = state.get(one.name + "." + part) || "";
      }
      if (one.name === "overview" || one.name.startsWith(task().label + "/")) show(one);
    }
    choose();
    compare();
    drill();
    const method = state.get("method") && byId("method-" + state.get("method"));
    if (method) method.open = true;
    const at = state.get("at");
    const target = at ? byId(at) || document.querySelector(`section.task:not([hidden]) [data-at="${CSS.escape(at)}"]`) : method;
    if (target) {
      target.scrollIntoView();
      (target.querySelector("h2, summary") || target).focus({ preventScroll: true });
    }
  }
  // A link names what it changes, and the rest of the state stays.
  function go(changes) {
    const next = new URLSearchParams(location.hash.slice(1));
    ["at", "method"].forEach((key) => next.delete(key));
    for (const [key, value] of Object.entries(changes)) next.set(key, value);
    if ("#" + next === location.hash) show_all();
    else location.hash = next;
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(Object.fromEntries(new URLSearchParams(link.getAttribute("href").slice(1))));
  });
  addEventListener("hashchange", () => { state = new URLSearchParams(location.hash.slice(1)); show_all(); });
  byId("choose-task").addEventListener("change", (event) => { set({ task: event.target.value, a: "", b: "", q: "" }); show_all(); });
  document.querySelectorAll("select[data-choose]").forEach((select) => select.addEventListener("change", () => { set({ [select.dataset.choose]: select.value }); choose(); }));
  for (const id of ["a", "b"]) byId(id).addEventListener("change", (event) => { set({ [id]: task().entries[event.target.value][0] }); compare(); });
  byId("q").addEventListener("change", (event) => { set({ q: task().queries[event.target.value][0] }); drill(); });
  byId("which").addEventListener("change", (event) => { set({ which: event.target.value === "all" ? "all" : "" }); drill(); });
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  useSprites();
  document.querySelectorAll("[data-table]").forEach(prepare);
  show_all();
})();
