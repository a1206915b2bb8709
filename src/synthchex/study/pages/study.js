"use strict";
/* One item at a time: fetch, show, time, send, go on. Nothing is kept here but the colours that a reader chose. */

const byId = (id) => document.getElementById(id);
const FINDING_KEYS = "abcdefghijklmnopqrstuvwxyz";
const NAMES = { authenticity: "Real or synthetic", quality: "Quality", diagnosis: "Findings", preference: "Which is better" };
const HOW = {
  authenticity: "Say whether the film is real or synthetic, and how sure you are.",
  quality: "Rate the film from 1 (very poor) to 5 (very good). Mark what is wrong with it, and add a comment if you like.",
  diagnosis: "Mark every finding that you see on the film, or that there is none.",
  preference: "Two films of the same request. Say which one you would rather take for a patient's film.",
};
const KEYS = {
  authenticity: [["R / S", "real / synthetic"], ["1 to 5", "how sure, from a guess to certain"]],
  quality: [["1 to 5", "rates the line in colour, then goes to the next"], ["↑ ↓", "another line"], ["letters", "what is wrong with it"], ["/", "comment; Esc leaves it"]],
  diagnosis: [["letters", "findings"], ["0", "none"]],
  preference: [["← / →", "left / right"], ["0", "no preference"]],
};
const VIEW_KEYS = [
  ["Enter", "answer and go on"], ["+ / −, wheel, pinch", "zoom"], ["drag", "move"],
  ["Shift + ← →, right drag", "contrast"], ["Shift + ↑ ↓, right drag", "brightness"], ["Home, double click", "reset the view"], ["Esc", "pause"],
];

let now = null; // the item as the server gave it
let reader = ""; // whose session it is: another window may have signed in as somebody else
let texts = {}; // what is asked in each task
let said = {}; // the answer so far
let line = 0; // of the quality items, the one that a digit rates
let sending = false;
let begun = 0; // when the film was last before the reader
let spent = 0; // ms before that
let running = false;
let events = [];
let sent = 0; // when the last answer left
const films = new Map(); // token: promise of a film
let shown = []; // films on the stage
const view = { zoom: 1, x: 0, y: 0, level: 128, width: 256 };

/* requests */

class Failed extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
  const found = await response.json();
  if (!response.ok) throw new Failed(response.status, found.error || "Something went wrong.");
  return found;
}

function film(token) {
  if (!films.has(token)) films.set(token, fetchFilm(token));
  return films.get(token);
}

async function fetchFilm(token) {
  const response = await fetch("/film/" + token, { credentials: "same-origin", cache: "no-store" });
  if (!response.ok) throw new Failed(response.status, "A film is missing.");
  const picture = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const grey = new Uint8Array(canvas.width * canvas.height);
  for (let at = 0; at < grey.length; at++) grey[at] = pixels.data[4 * at];
  return { canvas, context, pixels, grey, seen: "128/256" };
}

const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/* going on */

async function start() {
  try {
    const found = await ask("/item");
    [reader, texts] = [found.reader, found.tasks];
    await receive(found, true);
  } catch (error) {
    if (error.status === 401) return signIn("");
    sheet("The study cannot be reached", [["p", error.message || String(error)]], "Try again", start);
  }
}

async function receive(found, anew) {
  const before = now;
  now = found;
  if (now.state === "done") return done();
  const keep = new Set([...now.films, ...now.ahead]);
  for (const token of films.keys()) if (!keep.has(token)) films.delete(token);
  if (anew || before.task !== now.task) return introduce();
  if (before.practice && !now.practice) return counts();
  await show();
}

async function show() {
  let found;
  try {
    found = await Promise.all(now.films.map(film));
  } catch (error) {
    return start(); // its films were fetched elsewhere: ask for new ones
  }
  closeSheet();
  said = now.task === "quality" ? { tags: [], comment: "" } : now.task === "diagnosis" ? { present: [] } : {};
  [line, events, spent, shown] = [0, [], 0, found];
  now.token = random();
  resetView();
  buildForm();
  header();
  byId("app").hidden = false;
  drawAll();
  requestAnimationFrame(() => setTimeout(() => {
    begun = performance.now();
    running = true;
    if (sent) note("paint", [Math.round(begun - sent)]);
    document.documentElement.dataset.paint = sent ? Math.round(begun - sent) : "";
    sent = 0;
    for (const token of now.ahead) film(token).catch(() => films.delete(token));
  }, 0));
}

async function send() {
  if (sending || !running || !complete()) return;
  sending = true;
  stopClock();
  sent = performance.now();
  byId("send").disabled = true;
  const answer = { reader, position: now.position, token: now.token, answer: said, seconds: spent / 1000, events };
  try {
    const found = await sendUntilKept(answer);
    tell("");
    if (found.told) await toldAfterPractice(found.told);
    await receive(found, false);
  } catch (error) {
    if (error.status === 409) {
      sheet("Answered already", [["p", error.message + " Nothing is lost; the study goes on with the next item."]], "Go on", start);
    } else {
      sheet("This answer was not taken", [["p", error.message || String(error)]], "Go on", start);
    }
  } finally {
    sending = false;
  }
}

async function sendUntilKept(answer) {
  for (let tries = 0; ; tries++) {
    try {
      return await ask("/answer", answer);
    } catch (error) {
      if (error.status === 401) await new Promise((done) => signIn("Your session has ended. Your last answer will be sent when you are back.", done));
      else if (error.status && error.status < 500) throw error;
      else {
        tell("Not saved yet: the study cannot be reached. Trying again …");
        sent = 0;
        await wait(Math.min(5000, 500 * 2 ** tries));
      }
    }
  }
}

function toldAfterPractice(arm) {
  sent = 0;
  return new Promise((done) => sheet("Practice", [["p", `This film was ${arm}.`]], "Go on", done));
}

/* time */

function stopClock() {
  if (running) spent += performance.now() - begun;
  running = false;
}

function startClock() {
  begun = performance.now();
  running = true;
}

function note(kind, value) {
  if (events.length < 450) events.push({ t: Math.round(spent + (running ? performance.now() - begun : 0)), kind, value: value || [] });
}

function pause(kind) {
  if (!running || sending) return;
  stopClock();
  note(kind);
  sheet("Paused", [["p", "The clock stands still, and every answer so far is kept. You may also close this page and go on later with your code."]], "Go on", () => {
    closeSheet();
    startClock();
    note("resume");
    drawAll();
  });
}

/* sheets */

function sheet(title, parts, button, then) {
  const card = byId("card");
  card.replaceChildren(element("h1", title), ...parts.map(([kind, content]) => (kind === "dl" ? definitions(content) : element(kind, content))));
  if (button) {
    const go = element("button", button);
    go.type = "button";
    go.className = "main";
    go.onclick = () => { go.disabled = true; then(); };
    card.append(go);
  }
  byId("sheet").hidden = false;
  byId("app").inert = true;
  card.focus();
}

function closeSheet() {
  byId("sheet").hidden = true;
  byId("app").inert = false;
}

function introduce() {
  const practice = now.practice ? "It begins with practice, which does not count." : "";
  const again = now.at ? "You go on where you stopped." : "";
  const parts = [["p", `${HOW[now.task]} ${practice} ${again}`], ["dl", [...KEYS[now.task], ...VIEW_KEYS]]];
  parts.push(["p", "Answers are kept one by one. An item that was answered does not come back."]);
  sent = 0;
  sheet(`${NAMES[now.task]}: ${now.of} item${now.of === 1 ? "" : "s"}`, parts, now.at ? "Go on" : "Begin", show);
  now.films.forEach((token) => film(token).catch(() => films.delete(token)));
}

function counts() {
  sent = 0;
  sheet("Practice is over", [["p", "From here on your answers count."]], "Begin", show);
}

function done() {
  byId("app").hidden = true;
  sheet("Finished", [["p", `All ${now.total} items are answered and kept. Thank you.`]], "Sign out", async () => {
    await ask("/logout", {});
    signIn("");
  });
}

function signIn(why, then) {
  const card = byId("card");
  const field = element("input");
  Object.assign(field, { id: "code", autocomplete: "off", spellcheck: false, autocapitalize: "characters", placeholder: "R1-····-····-····" });
  field.setAttribute("aria-label", "access code");
  const wrong = element("p", why);
  wrong.className = "wrong";
  wrong.setAttribute("role", "alert");
  sheet("Reader study", [["p", "Enter the access code that you were given."]], "Enter", enter);
  card.insertBefore(field, card.lastChild);
  card.append(wrong);
  field.focus();
  async function enter() {
    const go = card.querySelector("button");
    try {
      await ask("/login", { code: field.value.trim() });
      if (then) { closeSheet(); then(); } else await start();
    } catch (error) {
      wrong.textContent = error.message;
      go.disabled = false;
      field.focus();
    }
  }
}

/* the form */

function element(kind, text) {
  const made = document.createElement(kind);
  if (text) made.textContent = text;
  return made;
}

function definitions(pairs) {
  const list = element("dl");
  for (const [key, meaning] of pairs) list.append(element("dt", key), element("dd", meaning));
  return list;
}

function group(title, small) {
  const set = element("fieldset");
  const legend = element("legend", title);
  if (small) legend.append(element("small", small));
  set.append(legend);
  return set;
}

function option(text, pressed, act, key) {
  const button = element("button", text);
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.pressed = pressed;
  button.onclick = () => { act(); refresh(); };
  if (key) {
    const cap = element("kbd", key);
    if (button.textContent.length > 1 && key.length === 1) button.prepend(cap);
    else button.append(cap);
  }
  return button;
}

function five(pressed, act) {
  const row = element("div");
  row.className = "row five";
  for (let value = 1; value <= 5; value++) row.append(option(String(value), () => pressed() === value, () => act(value)));
  return row;
}

function ends(words) {
  const line = element("div");
  line.className = "ends";
  line.append(element("span", words[0]), element("span", words[words.length - 1]));
  return line;
}

function choices(pairs) {
  const row = element("div");
  row.className = "row";
  for (const [text, key, pressed, act] of pairs) {
    const button = option(text, pressed, act);
    button.className = "big";
    button.append(element("kbd", key));
    row.append(button);
  }
  return row;
}

function marks(names, held) {
  const list = element("div");
  list.className = "list";
  names.forEach((name, at) => list.append(option(name, () => held().includes(name), () => toggle(held(), name), FINDING_KEYS[at].toUpperCase())));
  return list;
}

function toggle(held, name) {
  const at = held.indexOf(name);
  if (at < 0) held.push(name);
  else held.splice(at, 1);
  if (held === said.present) said.none = false;
}

const FORMS = {
  authenticity(form, asked) {
    const call = group("This film is");
    call.append(choices([["Real", "R", () => said.call === "real", () => { said.call = "real"; }], ["Synthetic", "S", () => said.call === "synthetic", () => { said.call = "synthetic"; }]]));
    const sure = group("How sure are you?");
    sure.append(five(() => said.confidence, (value) => { said.confidence = value; }), ends(asked.confidence));
    form.append(call, sure);
  },
  quality(form, asked) {
    Object.entries(asked.items).forEach(([item, text], at) => {
      const [title, small] = text.split(": ");
      const set = group(title, small);
      set.dataset.line = at;
      set.append(five(() => said[item], (value) => rate(item, at, value)), ...(at === 0 ? [ends(asked.scale)] : []));
      form.append(set);
    });
    const wrong = group("What is wrong with it?", "none, one or several");
    wrong.append(marks(asked.tags, () => said.tags));
    wrong.className = "across";
    const words = group("Comment");
    words.className = "across";
    const area = element("textarea");
    area.id = "comment";
    area.maxLength = 2000;
    area.oninput = () => { said.comment = area.value; };
    area.setAttribute("aria-label", "comment");
    words.append(area);
    form.append(wrong, words);
  },
  diagnosis(form, asked) {
    const set = group("Findings on this film");
    set.append(marks(asked.findings, () => said.present));
    const none = choices([["None of these", "0", () => said.none === true, () => { said.none = !said.none; said.present = []; }]]);
    form.append(set, none);
  },
  preference(form) {
    const set = group("Which film is better?");
    const choose = (side) => [() => said.chosen === side, () => { said.chosen = side; }];
    set.append(choices([["Left", "←", ...choose("left")], ["Right", "→", ...choose("right")]]));
    const none = choices([["No preference", "0", ...choose("none")]]);
    form.append(set, none);
  },
};

function rate(item, at, value) {
  said[item] = value;
  const items = Object.keys(texts.quality.items);
  const open = items.findIndex((name, place) => place > at && !said[name]);
  line = open < 0 ? Math.min(at + 1, items.length - 1) : open;
}

function complete() {
  if (now.task === "authenticity") return Boolean(said.call && said.confidence);
  if (now.task === "quality") return Object.keys(texts.quality.items).every((item) => said[item]);
  if (now.task === "diagnosis") return said.none === true || said.present.length > 0;
  return Boolean(said.chosen);
}

function buildForm() {
  const form = byId("form");
  form.replaceChildren();
  form.className = now.task === "quality" ? "wide" : "";
  if (now.practice) {
    const practice = element("b", "Practice: does not count");
    practice.className = "practice across";
    form.append(practice);
  }
  if (now.findings) {
    const { present, absent } = now.findings;
    const asked = element("p", present.length ? `Asked for: ${present.join(", ")}` : `Asked for: no ${absent.join(", no ")}`);
    asked.className = "findings across";
    form.append(asked);
  }
  FORMS[now.task](form, texts[now.task]);
  form.scrollTop = 0;
  refresh();
}

function refresh() {
  for (const button of byId("form").querySelectorAll("button")) if (button.pressed) button.setAttribute("aria-pressed", String(button.pressed()));
  for (const set of byId("form").querySelectorAll("[data-line]")) set.classList.toggle("active", Number(set.dataset.line) === line);
  byId("send").disabled = !complete() || sending;
}

function header() {
  byId("task-name").textContent = NAMES[now.task];
  byId("count").textContent = `${now.at + 1} of ${now.of}`;
  byId("progress").firstElementChild.style.width = `${(100 * now.position) / now.total}%`;
  byId("progress").setAttribute("aria-valuemax", now.total);
  byId("progress").setAttribute("aria-valuenow", now.position);
}

function tell(text) {
  byId("note").textContent = text;
}

/* the film */

function resetView() {
  Object.assign(view, { zoom: 1, x: 0, y: 0, level: 128, width: 256 });
}

function drawAll() {
  const stage = byId("stage");
  while (stage.children.length < shown.length) stage.append(pointed(element("canvas")));
  while (stage.children.length > shown.length) stage.lastChild.remove();
  shown.forEach((film, at) => draw(film, stage.children[at]));
  byId("zoom").textContent = `${Math.round(100 * view.zoom)} %`;
}

function draw(film, canvas) {
  const dots = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * dots), Math.round(canvas.clientHeight * dots)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  window_(film);
  const scale = Math.min(width / film.canvas.width, height / film.canvas.height) * view.zoom;
  const context = canvas.getContext("2d", { alpha: false });
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.setTransform(scale, 0, 0, scale, width / 2 + view.x * dots, height / 2 + view.y * dots);
  context.drawImage(film.canvas, -film.canvas.width / 2, -film.canvas.height / 2);
}

function window_(film) {
  const wanted = `${view.level}/${view.width}`;
  if (film.seen === wanted) return;
  const table = new Uint8ClampedArray(256);
  for (let value = 0; value < 256; value++) table[value] = ((value - view.level + view.width / 2) * 256) / view.width;
  const data = film.pixels.data;
  for (let at = 0, to = 0; at < film.grey.length; at++, to += 4) data[to] = data[to + 1] = data[to + 2] = table[film.grey[at]];
  film.context.putImageData(film.pixels, 0, 0);
  film.seen = wanted;
}

function zoomBy(factor, x, y) {
  const zoom = Math.min(12, Math.max(1, view.zoom * factor));
  const ratio = zoom / view.zoom;
  view.x = zoom === 1 ? 0 : (x || 0) - ((x || 0) - view.x) * ratio;
  view.y = zoom === 1 ? 0 : (y || 0) - ((y || 0) - view.y) * ratio;
  view.zoom = zoom;
  later("zoom", () => [round(view.zoom)]);
}

function windowBy(level, width) {
  view.level = Math.min(255, Math.max(0, view.level + level));
  view.width = Math.min(512, Math.max(8, view.width + width));
  later("window", () => [round(view.level), round(view.width)]);
}

const round = (value) => Math.round(value * 100) / 100;
const pending = new Map();

function later(kind, value) { // one event for a gesture, and one drawing for a frame
  clearTimeout(pending.get(kind));
  pending.set(kind, setTimeout(() => { if (running) note(kind, value()); }, 250));
  cancelAnimationFrame(pending.get("frame"));
  pending.set("frame", requestAnimationFrame(drawAll));
}

const ACTS = {
  in: () => zoomBy(1.25), out: () => zoomBy(0.8), darker: () => windowBy(12, 0), brighter: () => windowBy(-12, 0),
  softer: () => windowBy(0, 24), harder: () => windowBy(0, -24),
  reset: () => { resetView(); later("reset", () => []); },
};

function pointed(canvas) {
  const held = new Map();
  const middle = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  };
  canvas.onpointerdown = (event) => { held.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); };
  canvas.onpointerup = canvas.onpointercancel = (event) => held.delete(event.pointerId);
  canvas.onpointermove = (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const [across, down] = [event.clientX - before.clientX, event.clientY - before.clientY];
    held.set(event.pointerId, event);
    const other = [...held.values()].find((point) => point.pointerId !== event.pointerId);
    if (other) {
      const apart = (point) => Math.hypot(point.clientX - other.clientX, point.clientY - other.clientY);
      zoomBy(apart(event) / Math.max(1, apart(before)), ...middle(event));
    } else if (event.buttons === 2 || event.shiftKey) windowBy(down / 2, across / 2);
    else if (view.zoom > 1) {
      [view.x, view.y] = [view.x + across, view.y + down];
      later("pan", () => [Math.round(view.x), Math.round(view.y)]);
    }
  };
  canvas.onwheel = (event) => { event.preventDefault(); zoomBy(Math.exp(-event.deltaY / 500), ...middle(event)); };
  canvas.ondblclick = ACTS.reset;
  canvas.oncontextmenu = (event) => event.preventDefault();
  return canvas;
}

/* keys */

function typed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!byId("sheet").hidden) {
    if (event.key === "Enter" && !event.repeat) { event.preventDefault(); byId("card").querySelector("button.main:not(:disabled)")?.click(); }
    return;
  }
  if (event.target.id === "comment") {
    if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) { event.preventDefault(); event.target.blur(); }
    return;
  }
  if (!running || !now || now.state !== "item") return;
  if (act(event)) { event.preventDefault(); refresh(); }
}

function act(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "Enter") { if (!event.repeat) send(); return true; }
  if (key === "Escape") { pause("pause"); return true; }
  if (key === "+" || key === "=") { ACTS.in(); return true; }
  if (key === "-") { ACTS.out(); return true; }
  if (key === "Home") { ACTS.reset(); return true; }
  const shifted = { ArrowLeft: "softer", ArrowRight: "harder", ArrowUp: "brighter", ArrowDown: "darker" }[key];
  if (event.shiftKey && shifted) { ACTS[shifted](); return true; }
  return !event.repeat && TYPED[now.task](key);
}

const digit = (key) => (/^[1-5]$/.test(key) ? Number(key) : 0);

const TYPED = {
  authenticity(key) {
    if (key === "r" || key === "s") said.call = key === "r" ? "real" : "synthetic";
    else if (digit(key)) said.confidence = digit(key);
    else return false;
    return true;
  },
  quality(key) {
    const items = Object.keys(texts.quality.items);
    const tag = key.length === 1 ? texts.quality.tags[FINDING_KEYS.indexOf(key)] : undefined;
    if (digit(key)) rate(items[line], line, digit(key));
    else if (key === "ArrowUp" || key === "ArrowDown") line = Math.min(items.length - 1, Math.max(0, line + (key === "ArrowUp" ? -1 : 1)));
    else if (key === "/") byId("comment").focus();
    else if (tag) toggle(said.tags, tag);
    else return false;
    return true;
  },
  diagnosis(key) {
    const finding = key.length === 1 ? texts.diagnosis.findings[FINDING_KEYS.indexOf(key)] : undefined;
    if (key === "0") { said.none = !said.none; said.present = []; }
    else if (finding) toggle(said.present, finding);
    else return false;
    return true;
  },
  preference(key) {
    const chosen = { ArrowLeft: "left", ArrowRight: "right", 0: "none" }[key];
    if (chosen) said.chosen = chosen;
    return Boolean(chosen);
  },
};

/* once */

function colours(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  try { localStorage.setItem("theme", theme); } catch (error) { /* a browser that keeps nothing */ }
}

function kept() {
  try { return localStorage.getItem("theme"); } catch (error) { return null; }
}

function help() {
  if (!running || sending) return;
  stopClock();
  note("help");
  sheet(NAMES[now.task], [["p", HOW[now.task]], ["dl", [...KEYS[now.task], ...VIEW_KEYS]]], "Go on", () => { closeSheet(); startClock(); });
}

colours(kept() === "light" ? "light" : "dark");
byId("theme").onclick = () => { colours(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); byId("theme").blur(); };
byId("pause").onclick = () => pause("pause");
byId("help").onclick = help;
byId("send").onclick = send;
for (const button of document.querySelectorAll("[data-view]")) button.onclick = () => { ACTS[button.dataset.view](); button.blur(); };
document.addEventListener("keydown", typed);
document.addEventListener("visibilitychange", () => { if (document.hidden) pause("hidden"); });
window.addEventListener("resize", () => { if (shown.length) drawAll(); });
start();
