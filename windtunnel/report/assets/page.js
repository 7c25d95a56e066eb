"use strict";
// Enhances a page that already says everything in tables and SVG: theme, table, flame view, timeline.
const $ = (id) => document.getElementById(id);
document.documentElement.className = "js";

function tip(text, x, y) {
  const box = $("tip");
  box.hidden = !text;
  box.textContent = text;
  if (!text) return;
  const size = box.getBoundingClientRect();
  box.style.left = Math.max(4, Math.min(x + 14, innerWidth - size.width - 6)) + "px";
  box.style.top = (y + size.height + 24 > innerHeight ? y - size.height - 10 : y + 16) + "px";
}

function theme() {
  const button = $("theme"), root = document.documentElement;
  const remembered = () => { try { return localStorage.getItem("windtunnel-theme"); } catch { return null; } };
  if (remembered()) root.dataset.theme = remembered();
  button.hidden = false;
  button.onclick = () => {
    const dark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("windtunnel-theme", root.dataset.theme); } catch { /* a page from disk may not */ }
    dispatchEvent(new Event("themechange"));
  };
}

function copying() {
  const button = $("copy");
  if (!button || !navigator.clipboard) return;
  button.hidden = false;
  button.onclick = async () => {
    await navigator.clipboard.writeText($("command").textContent);
    button.textContent = "Copied";
  };
}

function table() {
  const element = $("ops");
  if (!element) return;
  const body = element.tBodies[0], rows = [...body.rows], byId = new Map(), children = new Map();
  for (const row of rows) {
    byId.set(row.dataset.id, row);
    if (!children.has(row.dataset.parent)) children.set(row.dataset.parent, []);
    children.get(row.dataset.parent).push(row);
  }
  const open = new Set();
  const below = (row) => children.get(row.dataset.id) || [];
  const show = (parent, visible) => {
    for (const row of children.get(parent) || []) {
      row.hidden = !visible;
      const isOpen = open.has(row.dataset.id);
      row.classList.toggle("open", isOpen);
      if (row.classList.contains("branch")) row.cells[0].setAttribute("aria-expanded", isOpen);
      show(row.dataset.id, visible && isOpen);
    }
  };
  const refresh = () => show("-1", true);
  const toggle = (row) => {
    if (!open.delete(row.dataset.id)) open.add(row.dataset.id);
    refresh();
  };
  for (const row of rows.filter((each) => each.classList.contains("branch"))) {
    const cell = row.cells[0];
    cell.tabIndex = 0;
    cell.setAttribute("role", "button");
    cell.onclick = () => toggle(row);
    cell.onkeydown = (event) => {
      const key = event.key, isOpen = open.has(row.dataset.id);
      if (key === "Enter" || key === " " || (key === "ArrowRight" && !isOpen) || (key === "ArrowLeft" && isOpen)) {
        event.preventDefault();
        toggle(row);
      }
    };
  }
  const place = (parent) => {
    for (const row of children.get(parent) || []) { body.append(row); place(row.dataset.id); }
  };
  [...element.tHead.rows[0].cells].forEach((head, index) => {
    if (!head.dataset.sort) return;
    head.tabIndex = 0;
    const sort = () => {
      const numeric = head.dataset.sort === "number";
      const up = head.ariaSort === "descending" || (!numeric && !head.ariaSort);
      for (const other of element.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => numeric ? Number(row.cells[index].dataset.value) : row.cells[index].textContent.trim();
      const order = (a, b) => numeric ? value(a) - value(b) : value(a).localeCompare(value(b));
      for (const family of children.values()) family.sort((a, b) => up ? order(a, b) : order(b, a));
      place("-1");
    };
    head.onclick = sort;
    head.onkeydown = (event) => { if (event.key === "Enter") sort(); };
  });
  const tools = element.closest("section").querySelector(".tools");
  tools.hidden = false;
  $("expand").onclick = () => { for (const row of rows) if (below(row).length) open.add(row.dataset.id); refresh(); };
  $("collapse").onclick = () => { open.clear(); $("filter").value = ""; refresh(); };
  $("filter").oninput = () => {
    const wanted = $("filter").value.trim().toLowerCase();
    if (!wanted) { refresh(); return; }
    const kept = new Set();
    for (const row of rows) {
      if (!row.cells[0].textContent.toLowerCase().includes(wanted)) continue;
      for (let each = row; each; each = byId.get(each.dataset.parent)) kept.add(each);
    }
    for (const row of rows) row.hidden = !kept.has(row);
  };
  refresh();
}

function flame() {
  const box = $("flame");
  if (!box) return;
  const frames = [...box.children];
  const at = (frame) => ({ l: +frame.dataset.l, w: +frame.dataset.w, d: +frame.dataset.d });
  const zoom = (chosen) => {
    const { l, w } = at(chosen);
    for (const frame of frames) {
      const own = at(frame), left = (own.l - l) / w, width = own.w / w;
      frame.style.left = 100 * Math.max(0, left) + "%";
      frame.style.width = 100 * (Math.min(1, left + width) - Math.max(0, left)) + "%";
      frame.hidden = left >= 0.99999 || left + width <= 0.00001;
      frame.textContent = frame.hidden || width < 0.012 ? "" : frame.title.split(": ")[0].split(" › ").pop();
    }
  };
  box.onclick = (event) => { if (frames.includes(event.target)) zoom(event.target); };
  box.onkeydown = (event) => {
    const here = frames.indexOf(event.target), own = here < 0 ? null : at(frames[here]);
    if (!own) return;
    const visible = frames.filter((frame) => !frame.hidden);
    const next = {
      ArrowDown: () => visible.find((f) => at(f).d === own.d + 1 && at(f).l >= own.l - 1e-6 && at(f).l < own.l + own.w),
      ArrowUp: () => visible.findLast((f) => at(f).d === own.d - 1 && at(f).l <= own.l + 1e-6),
      ArrowRight: () => visible.filter((f) => at(f).d === own.d && at(f).l > own.l).sort((a, b) => at(a).l - at(b).l)[0],
      ArrowLeft: () => visible.filter((f) => at(f).d === own.d && at(f).l < own.l).sort((a, b) => at(b).l - at(a).l)[0],
      Escape: () => { zoom(frames[0]); return frames[0]; },
    }[event.key];
    const target = next && next();
    if (target) { event.preventDefault(); target.focus(); }
  };
}

async function unpacked() {
  const text = $("data").textContent.trim();
  if (!text || typeof DecompressionStream === "undefined") return null;
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const duration = (ns) => {
  for (const [scale, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) if (ns >= scale) return Number((ns / scale).toPrecision(4)) + " " + unit;
  return ns.toFixed(0) + " ns";
};

function timeline(data) {
  const tracks = data.tracks;
  if (!tracks.length) return;
  let end = 1;
  for (const track of tracks) {
    let start = 0;
    track.starts = Float64Array.from(track.starts, (step) => (start += step));
    const last = track.starts.length - 1;
    for (let i = Math.max(0, last - 50); i <= last; i++) end = Math.max(end, track.starts[i] + track.durations[i]);
  }
  $("lanes").hidden = false;
  $("busy").hidden = true;
  $("busy").nextElementSibling.hidden = true;
  const canvas = $("canvas"), pen = canvas.getContext("2d");
  const LANE = 30, BAR = 20, TOP = 24;
  let from = 0, to = end, chosen = null, margin = 130;
  const string = (number) => data.strings[number];
  const kind = (op) => (op < 0 ? "" : string(data.ops[op][4]));
  const px = (time) => margin + ((time - from) / (to - from)) * (canvas.clientWidth - margin);
  const timeAt = (x) => from + ((x - margin) / (canvas.clientWidth - margin)) * (to - from);
  const firstAt = (track, time) => {
    let low = 0, high = track.starts.length;
    while (low < high) { const mid = (low + high) >> 1; if (track.starts[mid] < time) low = mid + 1; else high = mid; }
    return low;
  };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

  function draw() {
    const width = canvas.clientWidth, height = TOP + LANE * tracks.length + 6, ratio = devicePixelRatio || 1;
    margin = width < 560 ? 96 : 150;
    canvas.style.height = height + "px";
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const colors = Array.from({ length: 11 }, (_, i) => css("--c" + i)), ink = css("--ink"), dim = css("--dim"), rule = css("--rule");
    axis(height, dim, rule);
    tracks.forEach((track, lane) => {
      const y = TOP + lane * LANE + 4;
      pen.save();
      pen.beginPath(); pen.rect(margin, 0, width - margin, height); pen.clip();
      spans(track, lane, y, colors, ink);
      pen.restore();
      pen.fillStyle = dim;
      pen.textAlign = "left";
      pen.fillText(fitted(track.name, margin - 14), 8, y + BAR / 2);
    });
  }
  function fitted(text, room) {
    if (pen.measureText(text).width <= room) return text;
    let letters = text;
    while (letters && pen.measureText(letters + "…").width > room) letters = letters.slice(0, -1);
    return letters + "…";
  }
  function axis(height, dim, rule) {
    const rough = (to - from) / Math.max(2, (canvas.clientWidth - margin) / 110), scale = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * scale).find((each) => each >= rough);
    pen.textAlign = "center";
    for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
      pen.strokeStyle = rule;
      pen.beginPath(); pen.moveTo(px(time), TOP - 6); pen.lineTo(px(time), height); pen.stroke();
      const half = pen.measureText(duration(time)).width / 2;
      pen.fillStyle = dim;
      if (px(time) + half < canvas.clientWidth && px(time) - half > 0) pen.fillText(time ? duration(time) : "0", px(time), 10);
    }
  }
  function spans(track, lane, y, colors, ink) {
    let drawn = -1, i = Math.max(0, firstAt(track, from) - 60);
    for (; i < track.starts.length && track.starts[i] <= to; i++) {
      const x = px(track.starts[i]), right = px(track.starts[i] + track.durations[i]);
      if (right < margin || right < drawn + 0.35) continue;
      const left = Math.max(x, margin), wide = Math.max(right - left, 0.6), op = track.ops[i];
      drawn = left + wide;
      pen.fillStyle = op < 0 ? colors[9] : colors[data.colors[kind(op)] ?? 9];
      pen.fillRect(left, y, wide > 3 ? wide - 0.5 : wide, BAR);
      if (track.critical[i]) { pen.fillStyle = ink; pen.fillRect(left, y + BAR + 1, wide, 2.5); }
      if (chosen && chosen.lane === lane && chosen.index === i) { pen.strokeStyle = ink; pen.lineWidth = 2; pen.strokeRect(left, y, wide, BAR); pen.lineWidth = 1; }
      if (wide > 46) {
        pen.fillStyle = "#fff"; pen.textAlign = "left";
        pen.fillText(fitted(op < 0 ? track.unnamed : string(data.ops[op][0]), wide - 8), left + 4, y + BAR / 2);
      }
    }
  }
  function describe(lane, index) {
    const track = tracks[lane], op = track.ops[index];
    const [name, module, line, shapes] = op < 0 ? [track.unnamed, "", "", ""] : data.ops[op].map(string);
    const when = duration(track.durations[index]) + " from " + duration(track.starts[index]) + (track.critical[index] ? ", on the critical path" : "");
    return [name, when, module, line, shapes].filter(Boolean).join("\n");
  }
  function spanAt(x, y) {
    const lane = Math.floor((y - TOP) / LANE), track = tracks[lane];
    if (!track || x < margin) return null;
    const time = timeAt(x), slack = (to - from) / canvas.clientWidth;
    for (let i = Math.min(firstAt(track, time + slack), track.starts.length) - 1, tries = 0; i >= 0 && tries < 60; i--, tries++) {
      if (track.starts[i] + track.durations[i] + slack >= time) return { lane, index: i };
    }
    return null;
  }
  let queued = false;
  const redraw = () => { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } };
  function look(begin, finish) {
    const span = Math.min(end, Math.max(100, finish - begin));
    from = Math.max(0, Math.min(end - span, begin));
    to = from + span;
    redraw();
  }
  const zoom = (factor, around = (from + to) / 2) => look(around - (around - from) * factor, around + (to - around) * factor);
  function select(lane, index) {
    if (!tracks[lane] || index < 0 || index >= tracks[lane].starts.length) return;
    chosen = { lane, index };
    const start = tracks[lane].starts[index], finish = start + tracks[lane].durations[index];
    $("selected").textContent = describe(lane, index).replaceAll("\n", " · ");
    if (start < from || finish > to) look(start - (to - from) / 3, start + ((to - from) * 2) / 3);
    redraw();
  }
  const touches = new Map();
  let moved = false;
  canvas.onpointerdown = (event) => { touches.set(event.pointerId, event); moved = false; canvas.setPointerCapture(event.pointerId); };
  canvas.onpointerup = (event) => {
    touches.delete(event.pointerId);
    const found = !moved && spanAt(event.offsetX, event.offsetY);
    if (found) select(found.lane, found.index);
  };
  canvas.onpointercancel = (event) => touches.delete(event.pointerId);
  canvas.onpointerleave = () => tip("");
  canvas.onpointermove = (event) => {
    const before = touches.get(event.pointerId), scale = (to - from) / (canvas.clientWidth - margin);
    if (!before) {
      const found = spanAt(event.offsetX, event.offsetY);
      tip(found ? describe(found.lane, found.index) : "", event.clientX, event.clientY);
      return;
    }
    tip("");
    if (Math.abs(event.clientX - before.clientX) > 2) moved = true;
    if (touches.size === 2) {
      const other = [...touches].find(([id]) => id !== event.pointerId)[1];
      zoom(Math.max(20, Math.abs(before.clientX - other.clientX)) / Math.max(20, Math.abs(event.clientX - other.clientX)), timeAt(other.offsetX));
    } else if (moved) {
      look(from - (event.clientX - before.clientX) * scale, to - (event.clientX - before.clientX) * scale);
    }
    if (moved || touches.size === 2) touches.set(event.pointerId, event);
  };
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) { event.preventDefault(); zoom(Math.exp(event.deltaY * 0.004), timeAt(event.offsetX)); }
    else if (event.deltaX) { event.preventDefault(); const by = (event.deltaX * (to - from)) / canvas.clientWidth; look(from + by, to + by); }
  }, { passive: false });
  canvas.ondblclick = (event) => zoom(0.3, timeAt(event.offsetX));
  canvas.onkeydown = (event) => {
    const shift = (to - from) / 6, at = chosen || { lane: 0, index: -1 };
    const act = {
      ArrowLeft: () => look(from - shift, to - shift), ArrowRight: () => look(from + shift, to + shift),
      "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.7), Home: () => look(0, end),
      "]": () => select(at.lane, at.index + 1), "[": () => select(at.lane, at.index - 1),
      ArrowDown: () => tracks[at.lane + 1] && select(at.lane + 1, firstAt(tracks[at.lane + 1], tracks[at.lane].starts[at.index] ?? from)),
      ArrowUp: () => at.lane && select(at.lane - 1, firstAt(tracks[at.lane - 1], tracks[at.lane].starts[at.index] ?? from)),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  };
  $("zoom-in").onclick = () => zoom(0.5);
  $("zoom-out").onclick = () => zoom(2);
  $("zoom-all").onclick = () => look(0, end);
  addEventListener("resize", redraw);
  addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  draw();
}

theme();
copying();
table();
flame();
unpacked().then((data) => { if (data && data.tracks) timeline(data); });
