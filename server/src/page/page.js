// The page of the admin port. It asks for data below /page/, and puts all of it in as text: never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const TABS = ["pools", "vms", "templates", "server", "events"];
// What can be looked for; nothing in what is not a list.
const FIND = { pools: "name, template (/)", vms: "name, tenant, label, state (/)", templates: "name, provider (/)", server: "",
  events: "what, name, tenant, state, pool (/)" };
const PERIOD_MS = 3000;
const LOOK_MS = 30000;
const MAX_EVENTS = 500;
const state = { tab: "pools", find: "", after: "", token: "", events: [], resume: "", asked: 0, isEntering: false, isStale: false, stop: null, doctor: null, looked: 0 };

// An element with a text or children.
function make(tag, content, classes) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (Array.isArray(content)) element.append(...content);
  else if (content !== undefined && content !== null) element.textContent = String(content);
  return element;
}

class Refused extends Error {
  constructor(status, error) {
    super(error.message || `status ${status}`);
    this.status = status;
    this.reason = error.reason || "";
  }
}

function headers() {
  return state.token ? { Authorization: `Bearer ${state.token}` } : {};
}

async function ask(what, query = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  const answer = await fetch(`/page/${what}?${parameters}`, { headers: headers(), cache: "no-store" });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

async function refusal(answer) {
  const said = await answer.json().catch(() => ({}));
  return new Refused(answer.status, said.error || {});
}

// How things are written.
const seconds = (value) => value === null ? "" : value < 1e-3 ? `${Math.round(value * 1e6)} µs`
  : value < 1 ? `${(value * 1e3).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
const percent = (value) => value === null ? "" : `${(value * 100).toFixed(value > 0.999 || value < 0.1 ? 2 : 1)} %`;
const mib = (value) => value >= 1024 ? `${(value / 1024).toFixed(1)} GiB` : `${value} MiB`;

function ago(time) {
  if (!time) return "";
  const past = Math.round((Date.now() - Date.parse(time)) / 1000);
  const long = Math.abs(past);
  const text = long < 120 ? `${long} s` : long < 7200 ? `${Math.round(long / 60)} min`
    : long < 172800 ? `${Math.round(long / 3600)} h` : `${Math.round(long / 86400)} d`;
  return past >= 0 ? `${text} ago` : `in ${text}`;
}

// A column: heading, what of an item it shows, classes of the cell.
const POOLS = [
  ["Pool", (it) => it.id, "name"],
  ["Template", (it) => `${it.template}@${it.generation}${it.not_ready ? `, not ready: ${it.not_ready}` : ""}`, (it) => it.not_ready ? "bad" : ""],
  ["Warm", (it) => it.warm, (it) => it.warm < it.target ? "number warn" : "number good"],
  ["Target", (it) => it.target, "number"],
  ["Restoring", (it) => it.restoring, "number"],
  ["Leased", (it) => it.leased, "number"],
  ["Waiting", (it) => it.waiting, "number"],
  ["Hits, 1 h", (it) => percent(it.last_hour.hit_ratio), "number"],
  ["p50", (it) => seconds(it.last_hour.p50_seconds), "number"],
  ["p99", (it) => seconds(it.last_hour.p99_seconds), "number"],
  ["Breaker", (it) => it.breaker.open ? `open: ${it.breaker.reason}` : it.breaker.failures ? `${it.breaker.failures} failed` : "closed",
    (it) => it.breaker.open ? "bad" : it.breaker.failures ? "warn" : ""],
  ["Why this target", (it) => it.summary, "why"],
];
const VMS = [
  ["VM", (it) => it.id, "name"],
  ["State", (it) => it.state, (it) => it.state === "FAILED" ? "bad" : it.state === "RUNNING" ? "good" : ""],
  ["Lease", (it) => it.leased ? (it.expire_time ? `ends ${ago(it.expire_time)}` : "leased") : "warm"],
  ["Tenant", (it) => it.tenant],
  ["Pool", (it) => it.pool],
  ["Template", (it) => it.template ? `${it.template}@${it.generation}` : ""],
  ["Labels", (it) => Object.entries(it.labels).map(([key, value]) => `${key}=${value}`).join(" ")],
  ["Made", (it) => ago(it.create_time)],
];
const TEMPLATES = [
  ["Template", (it) => it.id, "name"],
  ["State", (it) => it.state, (it) => it.state === "FAILED" ? "bad" : it.state === "READY" ? "good" : ""],
  ["Generation", (it) => it.generation, "number"],
  ["Generations", (it) => it.generations.map((made) => `${made.generation} ${made.state}`).join(", ")],
  ["Provider", (it) => it.provider],
  ["Changed", (it) => ago(it.update_time)],
  ["Note", (it) => it.failure ? it.failure.message : ""],
];
const EVENTS = [
  ["When", (it) => it.at],
  ["What", (it) => it.what],
  ["VM", (it) => it.vm.id, "name"],
  ["State", (it) => it.vm.state],
  ["Tenant", (it) => it.vm.tenant],
  ["Pool", (it) => it.vm.pool],
];
const PROVIDERS = [
  ["Provider", (it) => it.name, "name"],
  ["Kind", (it) => it.kind],
  ["Version", (it) => it.version],
  ["Acceleration", (it) => it.accel || "none"],
  ["Can", (it) => it.can.join(", ")],
  ["Cannot", (it) => it.cannot.join(", ")],
];
const CHECKS = [
  ["Check", (it) => it.provider ? `${it.provider}: ${it.name}` : it.name],
  ["Outcome", (it) => it.status, (it) => it.status === "fail" ? "bad" : it.status === "warn" ? "warn" : "good"],
  ["Found", (it) => it.message],
  ["What mends it", (it) => it.remedy],
];

// A table; `open` is what a row does, `key` finds it again when the table is drawn anew.
function table(columns, items, key, open) {
  const head = make("thead", [make("tr", columns.map(([heading, , classes]) => {
    const cell = make("th", heading, typeof classes === "string" && classes.includes("number") ? "number" : "");
    cell.scope = "col";
    return cell;
  }))]);
  const rows = items.map((item) => {
    const row = make("tr", columns.map(([heading, text, classes]) => {
      const cell = make("td", text(item), typeof classes === "function" ? classes(item) : classes);
      cell.dataset.label = heading;
      return cell;
    }));
    if (open) {
      row.tabIndex = 0;
      row.dataset.key = key(item);
      row.addEventListener("click", () => open(item));
      row.open = () => open(item);
    }
    return row;
  });
  const drawn = make("table", [head, make("tbody", rows)]);
  const nothing = state.find ? `Nothing here has “${state.find}”. Esc in the field shows everything.` : "There is nothing here.";
  const empty = items.length ? [] : [make("p", nothing, "quiet")];
  return items.length ? make("div", [drawn], "scroll") : make("div", empty);
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", shown.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

// Draws a panel anew without taking the keyboard from a row.
function draw(panel, ...content) {
  const focused = document.activeElement && panel.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const scrolled = panel.firstElementChild ? panel.firstElementChild.scrollLeft : 0;
  panel.replaceChildren(...content);
  if (panel.firstElementChild) panel.firstElementChild.scrollLeft = scrolled;
  if (focused) rows().find((row) => row.dataset.key === focused)?.focus({ preventScroll: true });
  if (state.isEntering && document.activeElement === $("find")) move(1);
  state.isEntering = false;
}

function say(problem) {
  $("problem").hidden = !problem;
  $("problem").textContent = problem || "";
}

async function refresh() {
  const asked = ++state.asked;
  const { tab, find, after } = state;
  state.isStale = false;
  try {
    const node = await ask("node");
    const list = ["pools", "vms", "templates"].includes(tab) ? await ask(tab, { find, after }) : null;
    if (asked !== state.asked) return;
    say("");
    const ready = node.not_ready ? `takes no work: ${node.not_ready}` : "takes work";
    $("node").textContent = `${node.version}, ${ready}, ${node.live_vms} VMs, started ${ago(node.start_time)}`;
    $("next").hidden = !(list && list.next);
    $("next").dataset.after = list?.next || "";
    $("first").hidden = !after;
    const isPart = list && list.items.length < list.found;
    $("found").textContent = list ? `${list.found} of ${list.of}${isPart ? `, ${list.items.length} shown` : ""}` : "";
    if (tab === "pools") draw($("pools"), table(POOLS, list.items, (it) => it.id, openPool));
    if (tab === "vms") draw($("vms"), table(VMS, list.items, (it) => it.uid, openVm));
    if (tab === "templates") draw($("templates"), table(TEMPLATES, list.items, (it) => it.id, openTemplate));
    if (tab === "server") draw($("server"), table(PROVIDERS, node.providers, (it) => it.name, null), facts([
      ["Version", node.version], ["Started", ago(node.start_time)], ["Takes work", node.not_ready ? `no: ${node.not_ready}` : "yes"],
      ["VMs", node.live_vms], ["VMs at most", node.max_vms || "as many as there is room for"], ["Leased from pools", node.leased_vms],
      ["Restores at once", node.max_parallel_restores], ["CPUs", node.cpu_count],
      ["Memory", `${mib(node.mem_available_mib)} of ${mib(node.mem_size_mib)} free`],
      ["Remembered requests", node.remembered_requests]]), ...host());
    if (tab === "events") drawEvents();
  } catch (error) {
    if (asked !== state.asked) return;
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) return signIn(error);
    say(error instanceof Refused ? `${error.reason}: ${error.message}` : "The server does not answer.");
  }
}

// What the doctor says of the machine. It may look for seconds, so it is asked beside all else, and not often.
function host() {
  if (Date.now() - state.looked >= LOOK_MS) look();
  const said = state.doctor;
  const title = make("h2", "What the doctor says of this machine");
  if (!said) return [title, make("p", "It is looking.", "quiet")];
  if (said.problem) return [title, make("p", said.problem)];
  return [title, make("p", `It looked ${ago(said.time)}.`, "quiet"), table(CHECKS, said.checks, (it) => it.name, null)];
}

async function look() {
  state.looked = Date.now();
  const token = state.token;
  let said;
  try {
    said = await ask("doctor");
  } catch (error) {
    said = { problem: error instanceof Refused ? `${error.reason}: ${error.message}` : "The server does not answer." };
    // It is asked again soon.
    state.looked = Date.now() - LOOK_MS + PERIOD_MS;
  }
  if (token !== state.token) return;
  state.doctor = said;
  state.isStale = true;
}

function drawEvents() {
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (it) => words.every((word) => `${it.what} ${it.vm.id} ${it.vm.state} ${it.vm.tenant} ${it.vm.pool}`.toLowerCase().includes(word));
  const shown = state.events.filter(matches);
  $("found").textContent = `${shown.length} of ${state.events.length}`;
  draw($("events"), table(EVENTS, shown, (it) => it.key, (it) => openVm(it.vm)));
}

// What one thing is.
function show(title, ...content) {
  $("detail-title").textContent = title;
  $("detail-body").replaceChildren(...content);
  if (!$("detail").open) $("detail").showModal();
  // The title has the keyboard: what matters most comes first, and is not scrolled away.
  $("detail").scrollTop = 0;
}

function openPool(it) {
  const hour = it.last_hour;
  show(it.id, make("p", it.summary), facts([
    ["Template", `${it.template}@${it.generation}`], ["Not ready", it.not_ready], ["Warm", `${it.warm} of ${it.target}`], ["Restoring", it.restoring],
    ["Leased", it.leased], ["Waiting", it.waiting], ["Quarantined", it.quarantined], ["Of older generations", it.outdated],
    ["Draining", it.draining ? "yes" : "no"], ["The target is bound by", it.bound], ["Restores are limited by", it.restore_limit || "nothing"],
    ["Acquires a second", it.claims_per_second.toPrecision(3)], ["Offered load", it.offered_load.toPrecision(3)],
    ["Predicted misses", percent(it.predicted_miss_ratio)],
    ["Breaker", it.breaker.open ? `open until ${ago(it.breaker.retry_time)}: ${it.breaker.reason}` : "closed"],
    ["Last hour", `${hour.warm} warm, ${hour.cold} cold, ${hour.failed} failed`], ["Hits", percent(hour.hit_ratio)],
    ["p50", seconds(hour.p50_seconds)], ["p99", seconds(hour.p99_seconds)],
    ...it.misses.map((miss) => [`Missed: ${miss.reason}`, `${miss.count}, the last ${ago(miss.last_time)}`])]));
}

function openTemplate(it) {
  const columns = [
    ["Generation", (made) => made.generation, "number"], ["State", (made) => made.state],
    ["Changed", (made) => ago(made.update_time)], ["Note", (made) => made.failure ? made.failure.message : ""]];
  show(it.id, table(columns, it.generations, (made) => made.id, null));
}

async function openVm(row) {
  let it = row;
  let note = "";
  try {
    it = await ask("vm", { uid: row.uid });
  } catch (error) {
    note = `It is not there any more, and was so: ${error.message}`;
  }
  const failure = it.failure;
  const output = make("pre", "reading");
  output.id = "console";
  output.tabIndex = 0;
  const title = make("h3", "Console, its end");
  const again = make("button", "Read again");
  again.type = "button";
  const read = async () => {
    try {
      const said = await ask("console", { uid: it.uid });
      output.textContent = said.text || "Nothing was written yet.";
    } catch (error) {
      output.textContent = `${error.reason || ""} ${error.message}`.trim();
    }
    output.scrollTop = output.scrollHeight;
  };
  again.addEventListener("click", read);
  const console = it.leased ? [title, output, again] : [make("p", "It waits in its pool: its console is read once somebody has it.", "quiet")];
  show(it.id, ...(note ? [make("p", note, "quiet")] : []), facts([
    ["State", it.state], ["Uid", it.uid], ["Tenant", it.tenant], ["Lease", it.leased ? `ends ${ago(it.expire_time)}` : "none: it is warm"],
    ["Acquired", ago(it.acquire_time)], ["Made", ago(it.create_time)], ["Pool", it.pool],
    ["Template", it.template ? `${it.template}@${it.generation}` : ""], ["Provider", it.provider], ["Process", it.pid],
    ["Frozen", it.preserved ? "yes" : ""],
    ...it.endpoints.map((endpoint) => ["Endpoint", endpoint]),
    ...Object.entries(it.labels).map(([key, value]) => [`Label ${key}`, value]),
    ["Failure", failure ? `${failure.reason}: ${failure.message}` : ""]]), ...console);
  if (it.leased && !note) await read();
}

// Events, one stream after the other; read by hand, so that the token can be sent.
async function follow() {
  const stop = new AbortController();
  state.stop?.abort();
  state.stop = stop;
  while (!stop.signal.aborted) {
    let pause = 200;
    try {
      const parameters = new URLSearchParams(state.resume ? { after: state.resume } : {});
      const answer = await fetch(`/page/events?${parameters}`, { headers: headers(), signal: stop.signal, cache: "no-store" });
      if (!answer.ok) throw await refusal(answer);
      if (state.resume) $("live").textContent = "live";
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        text += part.value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        blocks.forEach(heard);
      }
    } catch (error) {
      if (stop.signal.aborted) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) return;
      // Its place is forgotten, or it was of another life of the server.
      state.resume = "";
      $("live").textContent = "off";
      pause = 2000;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function heard(block) {
  const fields = Object.fromEntries(block.split("\n").map((line) => {
    const at = line.indexOf(": ");
    return [line.slice(0, at), line.slice(at + 2)];
  }));
  if (fields.id) state.resume = fields.id;
  $("live").textContent = "live";
  if (fields.event !== "vm") return;
  const { kind, vm } = JSON.parse(fields.data);
  const what = kind === "deleted" ? "gone" : kind === "added" ? (vm.leased ? "came, leased" : "came") : vm.leased ? "leased" : "changed";
  state.events.unshift({ at: new Date().toLocaleTimeString(), what, vm, key: fields.id });
  state.events.length = Math.min(state.events.length, MAX_EVENTS);
  state.isStale = true;
}

// Who may see it.
function signIn(error) {
  state.stop?.abort();
  state.token = "";
  sessionStorage.removeItem("token");
  $("main").hidden = true;
  $("sign-in").hidden = false;
  $("forget").hidden = true;
  $("sign-in-error").textContent = error ? `${error.reason}: ${error.message}` : "";
  $("node").textContent = "";
  // What was shown is not for whoever comes next.
  TABS.forEach((tab) => $(tab).replaceChildren());
  state.events = [];
  state.resume = "";
  state.doctor = null;
  state.looked = 0;
  if ($("detail").open) $("detail").close();
  $("token").focus();
}

async function enter() {
  state.token = $("token").value.trim();
  $("token").value = "";
  if (!state.token) return;
  try {
    await ask("node");
  } catch (error) {
    return signIn(error instanceof Refused ? error : new Refused(0, { reason: "", message: "The server does not answer." }));
  }
  sessionStorage.setItem("token", state.token);
  begin(true);
}

function begin(hasToken) {
  $("sign-in").hidden = true;
  $("main").hidden = false;
  $("forget").hidden = !hasToken;
  follow();
  refresh();
}

// The keyboard.
const rows = () => [...$(state.tab).querySelectorAll("tbody tr[tabindex]")];

function move(by) {
  const all = rows();
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
  next?.focus();
}

function select(tab) {
  // What is looked for in one list is seldom in another.
  if (tab !== state.tab) $("find").value = state.find = "";
  state.tab = tab;
  state.after = "";
  $("find").placeholder = FIND[tab];
  $("find").parentElement.hidden = !FIND[tab];
  for (const each of TABS) {
    const isOne = each === tab;
    $(each).hidden = !isOne;
    $(`tab-${each}`).setAttribute("aria-selected", String(isOne));
    $(`tab-${each}`).tabIndex = isOne ? 0 : -1;
  }
  refresh();
}

function toggleTheme() {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(isDark ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

function help() {
  if (!$("help").open) $("help").showModal();
}

function nextPage() {
  if ($("next").hidden) return;
  state.after = $("next").dataset.after;
  refresh().then(() => scrollTo(0, 0));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("main").hidden) return;
  const isTyping = event.target instanceof HTMLInputElement;
  if (document.querySelector("dialog[open]")) return;
  if (isTyping) {
    if (event.key === "Escape") { event.target.blur(); if (event.target.value) { event.target.value = ""; search(); } }
    if (event.key === "Enter" || event.key === "ArrowDown") { state.isEntering = true; search(); event.preventDefault(); }
    return;
  }
  const number = TABS[Number(event.key) - 1];
  const isTab = event.target.getAttribute?.("role") === "tab";
  if (event.key === "/") $("find").select();
  else if (event.key === "j" || event.key === "ArrowDown") move(1);
  else if (event.key === "k" || event.key === "ArrowUp") move(-1);
  else if (event.key === "Enter" && event.target.open instanceof Function) event.target.open();
  else if (event.key === "n") nextPage();
  else if (event.key === "t") toggleTheme();
  else if (event.key === "?") help();
  else if (isTab && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
    const at = TABS.indexOf(state.tab) + (event.key === "ArrowRight" ? 1 : -1);
    const tab = TABS[(at + TABS.length) % TABS.length];
    select(tab);
    $(`tab-${tab}`).focus();
  } else if (number) select(number);
  else return;
  event.preventDefault();
});

// Looks for what is in the field; whoever leaves it by Enter gets to the first row of the answer, not of what
// was shown before.
let typed = 0;
function search() {
  clearTimeout(typed);
  state.find = $("find").value;
  state.after = "";
  refresh();
}
$("find").addEventListener("input", () => {
  state.isEntering = false;
  clearTimeout(typed);
  typed = setTimeout(search, 150);
});
for (const tab of TABS) $(`tab-${tab}`).addEventListener("click", () => select(tab));
$("theme").addEventListener("click", toggleTheme);
$("keys").addEventListener("click", help);
$("forget").addEventListener("click", () => signIn());
$("enter").addEventListener("click", enter);
$("token").addEventListener("keydown", (event) => { if (event.key === "Enter") enter(); });
$("next").addEventListener("click", nextPage);
$("first").addEventListener("click", () => { state.after = ""; refresh(); });
$("close").addEventListener("click", () => $("detail").close());
$("help-close").addEventListener("click", () => $("help").close());

// Levels: everything is asked for again from time to time, and soon after an event.
let last = 0;
setInterval(() => {
  const isDue = Date.now() - last >= (state.isStale ? PERIOD_MS / 6 : PERIOD_MS);
  if ($("main").hidden || document.hidden || !isDue) return;
  last = Date.now();
  refresh();
}, 250);

(async () => {
  const theme = localStorage.getItem("theme");
  if (theme) setTheme(theme);
  state.token = sessionStorage.getItem("token") || "";
  try {
    const about = await ask("about");
    if (about.needs_token && !state.token) signIn();
    else begin(about.needs_token);
  } catch (error) {
    $("node").textContent = "The server does not answer. Load the page again.";
  }
})();
