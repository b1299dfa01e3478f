"use strict";
// Everything from outside is put in as text nodes; nothing is ever parsed as HTML.

const $ = (id) => document.getElementById(id);
const token = takeToken();
let state = null; // title, labeller, items, counts
let names = []; // ids that the filters let through
let at = 0; // place in names
let pair = null; // what is shown
let since = 0; // when it was shown
let busy = false;
let saving = Promise.resolve(); // a note on its way to the server

function takeToken() {
  // The token comes in the fragment, which browsers do not send; it is taken out of the address bar and kept for reloads.
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token") || "";
}

async function ask(path, body) {
  const options = { headers: { "X-Review-Token": token }, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("The command in the terminal has ended, so nothing can be saved. Start it again: it goes on from here.");
  }
  if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).error || `The server says ${reply.status}.`);
  return reply;
}

const askJson = async (path, body) => (await ask(path, body)).json();

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").className = bad ? "bad" : "";
}

function words(item) {
  if (!item.answer) return "";
  const faults = item.faults.length ? ` (${item.faults.join(", ")})` : "";
  return item.answer + faults;
}

function passes(item) {
  const shown = $("shown").value;
  const outcome = $("outcome").value;
  if (outcome && item.outcome !== outcome) return false;
  if (shown === "all") return true;
  if (shown === "open") return item.answer === null;
  if (shown === "noted") return item.note !== "";
  return item.answer === shown;
}

function filter(keep) {
  names = state.items.filter(passes).map((item) => item.id);
  const place = names.indexOf(keep);
  at = place >= 0 ? place : Math.min(at, Math.max(names.length - 1, 0));
}

const itemOf = (id) => state.items.find((item) => item.id === id);

function fill(node, segments, tag) {
  node.replaceChildren(
    ...segments.flatMap(([text, changed]) => {
      if (!changed || !text.trim()) return [text];
      const mark = document.createElement(tag);
      mark.textContent = text.trimStart();
      return [text.slice(0, text.length - mark.textContent.length), mark];
    }),
  );
}

function showCounts() {
  const { counts } = state;
  $("bar").max = counts.pairs;
  $("bar").value = counts.pairs - counts.open;
  $("counts").textContent =
    `${counts.pairs - counts.open} of ${counts.pairs} done · ${counts.same} same · ${counts["not the same"]} not the same · ${counts.skipped} skipped`;
}

async function show() {
  $("main").hidden = names.length === 0;
  $("empty").hidden = names.length > 0;
  showCounts();
  if (names.length === 0) {
    pair = null;
    return;
  }
  const asked = names[at];
  const found = await askJson(`/api/pair?id=${encodeURIComponent(asked)}`);
  if (names[at] !== asked) return; // the person went on meanwhile
  pair = found;
  since = performance.now();
  $("place").textContent = `${at + 1} of ${names.length}${pair.example_id ? " · " + pair.example_id : ""}`;
  $("given").replaceChildren(
    ...pair.given.flatMap(([heading, lines]) => {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = heading;
      text.textContent = lines.join(" | ");
      text.dir = "auto";
      return [term, text];
    }),
  );
  fill($("original"), pair.original, "del");
  fill($("rewritten"), pair.rewritten, "ins");
  const told = [pair.outcome, pair.reason, pair.origin && `written by ${pair.origin}`].filter(Boolean).join(" · ");
  $("machine").hidden = !told;
  $("machine").open = false;
  $("reason").textContent = told;
  $("note").value = pair.note;
  mark();
}

function mark() {
  const item = itemOf(pair.id);
  $("mark").textContent = item.answer ? `labelled: ${words(item)}` : "open";
  const fault = { "": "n", meaning: "m", role: "r", "meaning,role": "b" }[item.faults.join(",")];
  const pressed = { same: "s", skipped: "x", "not the same": fault };
  for (const button of document.querySelectorAll(".acts button")) {
    if ("snmrbx".includes(button.dataset.key)) {
      button.setAttribute("aria-pressed", String(pressed[item.answer] === button.dataset.key));
    }
  }
}

function take(done) {
  state.counts = done.counts;
  Object.assign(itemOf(done.item.id), done.item);
}

const ANSWERS = { s: ["same", []], n: ["not the same", []], m: ["not the same", ["meaning"]], r: ["not the same", ["role"]], b: ["not the same", ["meaning", "role"]], x: ["skipped", []] };

async function label(key) {
  if (!pair) return;
  const [answer, faults] = ANSWERS[key];
  const id = pair.id;
  const seconds = Math.round((performance.now() - since) / 100) / 10;
  take(await askJson("/api/label", { id, answer, faults, note: $("note").value, seconds }));
  say(`${words(itemOf(id))} · saved`);
  const open = nextOpen(id);
  filter(open || id);
  await show();
  if (!open && state.counts.open === 0) say("All pairs are labelled. Labels are on disk; you may end the command with Ctrl-C.");
}

function nextOpen(id) {
  const place = names.indexOf(id);
  const after = [...names.slice(place + 1), ...names.slice(0, place)];
  return after.find((name) => itemOf(name).answer === null);
}

async function undo() {
  const done = await askJson("/api/undo", {});
  if (!done.item) {
    say("Nothing to undo.");
    return;
  }
  take(done);
  if (!passes(itemOf(done.item.id))) $("shown").value = "all";
  if (!passes(itemOf(done.item.id))) $("outcome").value = "";
  filter(done.item.id);
  await show();
  say("Taken back.");
}

async function saveNote() {
  const item = pair && itemOf(pair.id);
  if (!item || item.note === $("note").value.trim()) return;
  if (!item.answer) {
    say("The note is saved with your answer.");
    return;
  }
  take(await askJson("/api/label", { id: item.id, answer: item.answer, faults: item.faults, note: $("note").value, seconds: null }));
  say("Note saved.");
}

async function go(step) {
  if (names.length === 0) return;
  at = (at + step + names.length) % names.length;
  await show();
  say("");
}

async function exportLabels() {
  const blob = await (await ask("/api/export")).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "labels.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say("Exported your labels.");
}

async function refilter() {
  filter(pair && pair.id);
  await show();
  say(`${names.length} shown`);
}

const KEYS = {
  u: undo,
  j: () => go(1),
  ArrowRight: () => go(1),
  k: () => go(-1),
  ArrowLeft: () => go(-1),
  e: exportLabels,
  g: async () => {
    const open = state.items.find((item) => item.answer === null && passes(item));
    if (!open) return say("None is open here.");
    filter(open.id);
    return show();
  },
  f: () => {
    const box = $("shown");
    box.selectedIndex = (box.selectedIndex + 1) % box.options.length;
    return refilter();
  },
  t: () => {
    if (pair) $("note").focus();
  },
  v: () => {
    if (!$("machine").hidden) $("machine").open = !$("machine").open;
  },
  "?": () => {
    $("help").open = !$("help").open;
    $("help").scrollIntoView({ block: "nearest" });
  },
};
for (const key of Object.keys(ANSWERS)) KEYS[key] = () => label(key);

async function act(work) {
  if (busy) return; // one act at a time: a key held down must not label what was not seen
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await saving;
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
    document.body.setAttribute("aria-busy", "false");
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (event.target === $("note")) {
    if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) {
      event.preventDefault();
      $("note").blur();
    }
    return;
  }
  if (event.target instanceof HTMLSelectElement && event.key !== "f") return;
  const work = KEYS[event.key] || KEYS[event.key.toLowerCase()];
  if (!work || !state) return;
  event.preventDefault();
  act(work);
});
$("note").addEventListener("blur", () => {
  saving = saveNote().catch((error) => say(error.message, true));
});
for (const button of document.querySelectorAll(".acts button")) {
  button.addEventListener("click", () => act(KEYS[button.dataset.key]));
}
$("export").addEventListener("click", () => act(exportLabels));
for (const box of ["shown", "outcome"]) $(box).addEventListener("change", () => act(refilter));

act(async () => {
  state = await askJson("/api/state");
  document.title = $("title").textContent = state.title || "Review";
  $("who").textContent = `${state.labeller} → ${state.labels}`;
  const outcomes = [...new Set(state.items.map((item) => item.outcome).filter(Boolean))];
  $("outcome-label").hidden = outcomes.length === 0;
  for (const name of outcomes) {
    const option = document.createElement("option");
    option.value = option.textContent = name;
    $("outcome").append(option);
  }
  const open = state.items.find((item) => item.answer === null);
  filter(open ? open.id : null);
  await show();
  say(open ? "" : "All pairs are labelled.");
  document.body.dataset.ready = "yes";
});
