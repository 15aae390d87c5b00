"use strict";
// Texts of others become text nodes and nothing else: this page's policy also forbids what could read them as HTML.
const KEY = "raytrain-api-key";
const LOOK_EVERY_MS = 2000;
// With a key, a look at the models counts as a request of that key.
const MODELS_EVERY_MS = 10000;
const LEADS = {
  400: "The request is refused", 401: "An API key is needed", 403: "Not allowed", 404: "Not there", 408: "It took too long",
  413: "The prompt is too long", 429: "Too many requests", 503: "It cannot answer now", 504: "It took too long",
};
const GONE = "The server cannot be reached: it has ended, or the network is gone. This page tries again by itself.";
const byId = (id) => document.getElementById(id);
const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};
const tell = (place, text) => { if (place.textContent !== text) place.textContent = text; place.hidden = !text; };
const short = (digest) => digest.replace(/^sha256:/, "").slice(0, 12);
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

class Fault extends Error {
  constructor(status, message, waitS = 0) { super(message); this.status = status; this.waitS = waitS; }
}

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY), headers = { ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  try {
    return await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault(0, GONE);
  }
}

async function faultOf(response) {
  let told = "the server does not say why";
  try { told = (await response.json()).error.message; } catch { /* not raytrain's: a proxy's, or none */ }
  const waitS = Number(response.headers.get("retry-after")) || 0;
  const again = waitS ? ` Try again in ${waitS} s.` : "";
  return new Fault(response.status, `${LEADS[response.status] ?? "It failed"} (${response.status}): ${told}.${again}`.replace("..", "."), waitS);
}

// Asking

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    let read;
    try { read = await reader.read(); } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Fault(0, `The answer broke off. ${GONE}`);
    }
    if (read.done) return;
    const parts = (rest + read.value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
  }
}

class Pane {
  constructor(id) {
    this.place = byId(id);
    this.model = byId(`${id}-model`);
    for (const part of this.place.querySelectorAll("[data-part]")) this[part.dataset.part] = part;
  }

  async ask(question, signal) {
    this.text.textContent = this.end.textContent = "";
    this.facts.replaceChildren();
    tell(this.fault, "");
    this.place.setAttribute("aria-busy", "true");
    try {
      await this.read({ ...question.body, model: this.model.value }, question.path, signal);
    } catch (error) {
      if (error.name === "AbortError") this.end.textContent = "Stopped."; else this.complain(error);
    } finally {
      this.place.removeAttribute("aria-busy");
    }
  }

  async read(body, path, signal) {
    const began = performance.now();
    let first = 0, last = 0, reason = "", usage = null, isWhole = false;
    const headers = { "content-type": "application/json" };
    const response = await call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
    if (!response.ok) throw await faultOf(response);
    for await (const event of events(response)) {
      if (event === "[DONE]") { isWhole = true; break; }
      const chunk = JSON.parse(event), choice = chunk.choices?.[0];
      if (chunk.error) throw new Fault(500, `The answer broke off: ${chunk.error.message}.`);
      const text = choice?.delta?.content ?? choice?.text ?? "";
      if (!this.facts.childElementCount) {
        this.tellFact("answered by", chunk.raytrain.model);
        this.tellFact("digest", short(chunk.raytrain.digest), chunk.raytrain.digest);
      }
      if (text) {
        last = performance.now();
        if (!first) this.tellFact("first token", `${(((first = last) - began) / 1000).toFixed(2)} s`);
        this.text.append(text);
      }
      reason = choice?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    if (!isWhole) throw new Fault(0, `The answer broke off. ${GONE}`);
    const tokens = usage?.completion_tokens ?? 0;
    if (tokens > 1 && last > first) this.tellFact("tokens/s", ((tokens - 1) * 1000 / (last - first)).toFixed(1));
    const how = reason === "length" ? "cut there, as asked" : "it ended by itself";
    this.end.textContent = `${tokens} ${tokens === 1 ? "token" : "tokens"}; ${how}.`;
  }

  tellFact(name, value, title = "") {
    const told = element("dd", value), both = element("div");
    if (title) told.title = title;
    both.append(element("dt", name), told);
    this.facts.append(both);
  }

  complain(error) {
    tell(this.fault, error instanceof Fault ? error.message : `This page failed: ${error.message}`);
    if (error.status === 401) wantKey(error.message);
  }
}

const panes = [new Pane("left"), new Pane("right")];
let asking = null;

async function ask() {
  const prompt = byId("prompt").value, isChat = byId("kind").value === "chat";
  const question = {
    path: isChat ? "v1/chat/completions" : "v1/completions",
    body: {
      ...(isChat ? { messages: [{ role: "user", content: prompt }] } : { prompt }),
      max_tokens: byId("length").valueAsNumber, temperature: byId("temperature").valueAsNumber,
      stream: true, stream_options: { include_usage: true },
    },
  };
  asking?.abort();
  const mine = asking = new AbortController();
  byId("stop").disabled = false;
  await Promise.all(panes.map((one) => one.ask(question, mine.signal)));
  if (asking === mine) { asking = null; byId("stop").disabled = true; }
}

byId("ask-form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
byId("stop").addEventListener("click", () => asking?.abort());
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId("ask-form").requestSubmit(); }
});

// Keys

function wantKey(message) {
  showModels([]);
  byId("operators").hidden = byId("key-held").hidden = true;
  byId("key-form").hidden = false;
  tell(byId("fault"), message);
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  byId("key").value = "";
  if (!/^[\x21-\x7e]+$/.test(key)) { tell(byId("fault"), "This is no API key: keys have neither spaces nor letters beyond ASCII."); return; }
  sessionStorage.setItem(KEY, key);
  lookNow();
});
byId("forget").addEventListener("click", () => { sessionStorage.removeItem(KEY); lookNow(); });

// What is served

let cards = [], shown = "", refused = new Map(), nextModelsAt = 0, before = "";

async function lookAround() {
  const response = await call("ready");
  let ready;
  try { ready = await response.json(); } catch { ready = { is_ready: false }; }
  showReady(ready);
  const now = JSON.stringify(ready);
  if (now !== before || performance.now() >= nextModelsAt) {
    const key = sessionStorage.getItem(KEY), answer = await call("v1/models");
    if (!answer.ok) throw await faultOf(answer);
    const { data } = await answer.json();
    if (key !== sessionStorage.getItem(KEY)) return;  // it was told to another
    nextModelsAt = performance.now() + (key ? MODELS_EVERY_MS : LOOK_EVERY_MS) - 100;
    before = now;
    byId("key-form").hidden = true;
    byId("key-held").hidden = !key;
    byId("operators").hidden = "problems" in ready;
    tellNews(data);
    showModels(data);
  }
  tell(byId("fault"), "");
}

function showReady(ready) {
  const problems = ready.problems ?? [];
  const word = !ready.is_ready ? "not ready" : problems.length ? "ready, with problems" : "ready";
  showState(word, !ready.is_ready ? "failed" : problems.length ? "unknown" : "passed");
  refused = new Map();
  const others = [];
  for (const one of problems) {
    const [, alias, why] = /^([^\s:@]+@[^\s:@]+): (.*)$/s.exec(one) ?? [];
    if (alias) refused.set(alias, why); else others.push(one);
  }
  byId("problems").hidden = !others.length;
  byId("problems").querySelector("ul").replaceChildren(...others.map((one) => element("li", one)));
}

function showState(word, kind) {
  const badge = byId("state").firstElementChild;
  tell(badge, word);
  badge.className = `badge ${kind}`;
}

function tellNews(found) {
  const old = new Map(cards.map((one) => [one.id, one.raytrain]));
  const moved = found.filter((one) => one.id.includes("@") && cards.length && old.get(one.id)?.digest !== one.raytrain.digest);
  const told = moved.map((one) => `${one.id} is ${one.raytrain.version} now`);
  if (told.length) byId("news").textContent = `${new Date().toLocaleTimeString()}: ${told.join(", ")}.`;
}

function showModels(found) {
  cards = found;
  if (shown === (shown = JSON.stringify([found, [...refused]]))) return;
  // `name` alone is `name@production`, and has no row of its own.
  const rows = found.filter((one) => one.id.includes("@") || !one.raytrain.aliases.length).map(rowOf);
  const listed = new Set(found.map((one) => one.id));
  for (const [alias, why] of refused) if (!listed.has(alias)) rows.push(rowOfRefused(alias, why));
  byId("models").tBodies[0].replaceChildren(...rows);
  byId("models").hidden = !rows.length;
  panes.forEach((pane, place) => showChoices(pane.model, place));
}

function rowOf(card) {
  const { digest, version, is_loaded: isLoaded } = card.raytrain, row = element("tr"), state = element("td");
  const why = refused.get(card.id), hash = element("td"), code = element("code", short(digest));
  code.title = digest;
  hash.append(code);
  state.append(element("span", isLoaded ? "loaded" : "read when asked", `badge ${isLoaded ? "passed" : ""}`));
  if (why) state.append(" ", element("span", "its successor is refused", "badge failed"), element("small", why));
  row.append(element("td"), element("td", version || "base model"), hash, state);
  row.firstChild.append(element("b", card.id));
  if (card.id.endsWith("@production")) row.firstChild.append(element("small", `also as ${card.id.split("@")[0]}`));
  return row;
}

function rowOfRefused(alias, why) {
  const row = element("tr"), state = element("td");
  state.append(element("span", "refused", "badge failed"), element("small", why));
  row.append(element("td"), element("td"), element("td"), state);
  row.firstChild.append(element("b", alias));
  return row;
}

function showChoices(select, place) {
  const chosen = select.value, versions = new Set();
  const options = cards.map((one) => new Option(one.raytrain.version ? `${one.id} · ${one.raytrain.version}` : one.id, one.id));
  for (const one of cards) if (one.raytrain.version) versions.add(`${one.id.split("@")[0]}@${one.raytrain.version}`);
  for (const one of versions) options.push(new Option(one, one));
  const known = options.map((one) => one.value);
  if (!cards.length) options.push(new Option("no version is known yet", ""));
  else if (chosen && !known.includes(chosen)) options.push(new Option(`${chosen} · no longer told of`, chosen));
  select.replaceChildren(...options);
  // What served before on the left, what serves now on the right.
  const production = cards.find((one) => one.raytrain.aliases.includes("production") && !one.id.includes("@"));
  const previous = cards.find((one) => one.id === `${production?.id}@previous`) ?? cards[0];
  select.value = chosen || (place ? production ?? cards[0] : previous)?.id || "";
}

let isWanted = false, wake = () => {};

async function lookOnce() {
  try {
    const version = byId("server-version");
    if (!version.textContent) version.textContent = (await (await call("version")).json()).raytrain ?? "";
    await lookAround();
    return 0;
  } catch (error) {
    if (error.status === 0) showState("not reached", "failed");
    if (error.status === 401) wantKey(sessionStorage.getItem(KEY) ? error.message : "This server answers those with an API key.");
    else tell(byId("fault"), error instanceof Fault ? error.message : `This page failed: ${error.message}`);
    return (error.waitS ?? 0) * 1000;
  }
}

async function follow() {
  for (;;) {
    isWanted = false;
    const waitMs = document.hidden ? 0 : await lookOnce();
    if (!isWanted) await Promise.race([pause(Math.max(waitMs, LOOK_EVERY_MS)), new Promise((resolve) => { wake = resolve; })]);
  }
}

function lookNow() { isWanted = true; nextModelsAt = 0; wake(); }

document.addEventListener("visibilitychange", lookNow);
follow();
