"use strict";
// The report's page. Every text reaches the document as textContent or setAttribute, never as markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = DATA.rows;
const SVG = "http://www.w3.org/2000/svg";
const GRADES = ["A", "B", "C", "X"];
const GRADE_WORDS = { A: "sure", B: "likely", C: "maybe", X: "no lens" };
const VERDICTS = {
  supports: ["Supports", "good", "A smooth lens makes these images, and every one that is not seen has a reason."],
  possible: ["Possible", "warn", "Too few constraints to test a lens model, or only differences that have a name."],
  inconsistent: ["Inconsistent", "bad", "No smooth lens makes these images."],
  single: ["One image", "quiet", "One image: no evidence of lensing."],
  no_images: ["No images", "quiet", "No point-like image was detected, so the theorem says nothing."],
  not_run: ["Not counted", "quiet hollow", "The image counter was not run on this row."],
};
const SORTS = [
  ["rank", "rank", 1], ["score", "score", -1], ["p_lens", "p lens", -1], ["arc_score", "arc score", -1],
  ["arc_coverage_deg", "arc coverage", -1], ["theta_e_arcsec", "Einstein radius", -1], ["n_images", "images", -1],
  ["theorem_p_value", "theorem p-value", -1], ["n_images_model", "model images", -1], ["ra_deg", "RA", 1],
  ["dec_deg", "Dec", 1], ["id", "id", 1], ["graded_at", "time graded", -1],
];
const LAYERS = [
  ["images", "images", "--image", false], ["deflector", "deflector", "--deflector", false],
  ["missing", "missing", "--missing", true], ["arc", "arc", "--arc", false], ["ring", "ring", "--ring", true],
];

// ---- small tools ---------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  return fill(node, attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

const has = (value) => typeof value === "number" && Number.isFinite(value);
const fixed = (value, digits) => (has(value) ? value.toFixed(digits) : "—");
const cssVar = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function withError(value, error, digits, unit = "") {
  const parts = [fixed(value, digits)];
  if (has(value) && has(error)) parts.push(el("span", { class: "err" }, ` ± ${fixed(error, digits)}`));
  if (has(value) && unit) parts.push(unit);
  return parts;
}

let toastTimer = 0;
function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("show");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("show"), 2600);
}

// ---- what the browser keeps: grades of this run, and preferences ---------------------------------------------------

const GRADES_KEY = `oddlens:grades:${DATA.run_id}`;
const PREFERENCES_KEY = "oddlens:preferences";
const grades = new Map(); // id -> {grade, graded_at}
const preferences = { hidden: [], overlays: true, pixels: true, advance: false };

function recall() {
  try {
    for (const [id, grade, at] of JSON.parse(localStorage.getItem(GRADES_KEY) || "[]")) {
      if (GRADES.includes(grade)) grades.set(id, { grade, graded_at: at });
    }
    Object.assign(preferences, JSON.parse(localStorage.getItem(PREFERENCES_KEY) || "{}"));
  } catch (error) {
    toast("This browser keeps nothing for local pages: export your grades before you close it.");
  }
}

function keep() {
  try {
    localStorage.setItem(GRADES_KEY, JSON.stringify([...grades].map(([id, g]) => [id, g.grade, g.graded_at])));
    localStorage.setItem(PREFERENCES_KEY, JSON.stringify(preferences));
  } catch (error) {
    toast("The browser could not keep this grade: export your grades before you close the page.");
  }
}

function csvCell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function gradesCsv() {
  const lines = ["id,grade,rank,score,graded_at"];
  for (const row of ROWS) {
    const g = grades.get(row.id);
    if (g) lines.push([row.id, g.grade, row.rank, row.score, g.graded_at].map(csvCell).join(","));
  }
  return lines.join("\n") + "\n";
}

function parseCsv(text) {
  const rows = [[]];
  const cell = /("(?:[^"]|"")*"|[^,\r\n]*)(,|\r\n|\n|\r|$)/g;
  for (let match; cell.lastIndex < text.length && (match = cell.exec(text)); ) {
    const value = match[1].startsWith('"') ? match[1].slice(1, -1).replaceAll('""', '"') : match[1];
    rows[rows.length - 1].push(value);
    if (match[2] !== ",") rows.push([]);
    if (!match[0]) break;
  }
  return rows.filter((row) => row.some((value) => value !== ""));
}

function importGrades(text) {
  const [header = [], ...lines] = parseCsv(text.replace(/^\uFEFF/, ""));
  const at = { id: header.indexOf("id"), grade: header.indexOf("grade"), time: header.indexOf("graded_at") };
  if (at.id < 0 || at.grade < 0) return toast("No grades read: the first line must name the columns id and grade.");
  let taken = 0, unknown = 0;
  for (const line of lines) {
    const grade = (line[at.grade] || "").toUpperCase();
    if (!byId.has(line[at.id]) || !GRADES.includes(grade)) { unknown += 1; continue; }
    grades.set(line[at.id], { grade, graded_at: line[at.time] || new Date().toISOString() });
    taken += 1;
  }
  keep();
  ROWS.forEach(showGrade);
  apply();
  toast(`${taken} grades read` + (unknown ? `, ${unknown} lines name no candidate of this page` : ""));
}

function exportGrades() {
  if (!grades.size) return toast("Nothing graded yet: press A, B, C or X on a candidate.");
  const address = URL.createObjectURL(new Blob([gradesCsv()], { type: "text/csv;charset=utf-8" }));
  const name = `oddlens-grades-${DATA.run_id}`.replace(/[^\w.-]+/g, "_");
  el("a", { href: address, download: `${name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// ---- pictures ------------------------------------------------------------------------------------------------------

function twice(tag, attributes, layer) {
  return [svg(tag, { ...attributes, class: "halo" }), svg(tag, { ...attributes, class: layer })];
}

function picture(row, large) {
  const s = row.stamp;
  if (!s) return el("div", { class: "picture no-picture" }, row.status === "skipped" ? "not read" : "no picture kept");
  const side = Math.max(s.width, s.height);
  const left = (s.width - side) / 2, top = (s.height - side) / 2;
  const root = svg("svg", {
    class: "sky", viewBox: `${left} ${top} ${side} ${side}`, role: "img", "aria-label": `Cutout of ${row.id}`,
  });
  root.append(svg("image", { href: s.image, width: s.width, height: s.height, preserveAspectRatio: "none" }));
  const px = side / (large ? 460 : 150); // one screen pixel in cutout pixels
  root.append(ringLayer(s, large), arcLayer(s), deflectorLayer(s, px, large), missingLayer(s, px, large), imageLayer(s, px, large));
  if (large) root.append(scaleBar(s, left, top, side, px), ...compass(s, left, top, side, px));
  return el("div", { class: "picture" }, root);
}

function ellipse(layer, [cx, cy, rx, ry, turn], title) {
  return svg("ellipse", { class: layer, cx, cy, rx, ry, transform: `rotate(${turn} ${cx} ${cy})` }, svg("title", {}, title));
}

function ringLayer(s, large) {
  const group = svg("g", { class: "g-ring" });
  if (s.ring) group.append(svg("circle", { class: "o-ring", cx: s.ring[0], cy: s.ring[1], r: s.ring[2] }, svg("title", {}, "Einstein radius")));
  if (s.ellipse && large) group.append(ellipse("o-ellipse", s.ellipse, "the ellipse on which the arcs lie"));
  return group;
}

function arcLayer(s) {
  const lines = s.arcs.flatMap((arc) => twice("polyline", { points: arc.map((p) => p.join(",")).join(" ") }, "o-arc"));
  return svg("g", { class: "g-arc" }, lines);
}

function deflectorLayer(s, px, large) {
  const group = svg("g", { class: "g-deflector" });
  if (!s.deflector || !large) return group; // on a card it would hide the centre
  const [x, y] = s.deflector, a = (large ? 7 : 5) * px, b = (large ? 17 : 12) * px;
  const d = `M${x - b} ${y}H${x - a}M${x + a} ${y}H${x + b}M${x} ${y - b}V${y - a}M${x} ${y + a}V${y + b}`;
  group.append(...twice("path", { d }, "o-deflector"), svg("title", {}, "deflector"));
  return group;
}

function missingLayer(s, px, large) {
  const group = svg("g", { class: "g-missing" });
  s.missing.forEach(([x, y, name], k) => {
    const words = name.replaceAll("_", " ");
    const searched = large ? s.missing_ellipses[k] : null;
    if (searched) {
      const [a, b, turn, far] = searched;
      group.append(ellipse("o-search", [x, y, a, b, turn], "holds the missing image with 68%"));
      group.append(ellipse("o-search", [x, y, far, far * b / a, turn], "holds the missing image with 95%"));
    }
    const mark = svg("g", {}, svg("title", {}, `predicted image, not seen: ${words}`));
    mark.append(...twice("circle", { cx: x, cy: y, r: (large ? 11 : 7) * px }, "o-missing"));
    group.append(mark);
  });
  return group;
}

function imageLayer(s, px, large) {
  const group = svg("g", { class: "g-images" });
  const radius = (large ? 10 : 6) * px;
  s.images.forEach(([x, y], k) => {
    const sure = has(s.confidence[k]) ? `, confidence ${s.confidence[k].toFixed(2)}` : "";
    const mark = svg("g", {}, svg("title", {}, `image ${k + 1}${sure}`), ...twice("circle", { cx: x, cy: y, r: radius }, "o-image"));
    if (large) mark.append(svg("text", { class: "t-image", x: x + radius + 2 * px, y: y - radius * 0.5, "font-size": 13 * px }, String(k + 1)));
    group.append(mark);
  });
  return group;
}

function scaleBar(s, left, top, side, px) {
  const group = svg("g", { class: "g-scale" });
  const scale = s.pixel_scale_arcsec;
  const length = has(scale) ? [5, 2, 1, 0.5, 0.2, 0.1].find((l) => l / scale < side * 0.3) : 0;
  const x = left + 14 * px, y = top + side - 14 * px;
  const bar = length ? length / scale : [50, 20, 10, 5, 2].find((l) => l < side * 0.3) || 1;
  group.append(...twice("path", { d: `M${x} ${y}h${bar}M${x} ${y - 3 * px}v${6 * px}M${x + bar} ${y - 3 * px}v${6 * px}` }, "o-scale"));
  group.append(svg("text", { x, y: y - 8 * px, "font-size": 12 * px }, length ? `${length}″` : `${bar} pix`));
  return group;
}

function compass(s, left, top, side, px) {
  if (!has(s.north_deg)) return [];
  const x = left + side - 28 * px, y = top + side - 22 * px, arm = 20 * px;
  const group = svg("g", { class: "g-compass" });
  for (const [label, angle] of [["N", s.north_deg], ["E", s.north_deg + 90]]) {
    const dx = -Math.sin((angle * Math.PI) / 180), dy = -Math.cos((angle * Math.PI) / 180);
    group.append(...twice("path", { d: `M${x} ${y}l${dx * arm} ${dy * arm}`, "stroke-dasharray": s.north_assumed ? "2 3" : null }, "o-scale"));
    group.append(svg("text", {
      x: x + dx * arm * 1.45, y: y + dy * arm * 1.45, "font-size": 11 * px, "text-anchor": "middle", "dominant-baseline": "central",
    }, label));
  }
  if (s.north_assumed) group.append(svg("title", {}, "assumed: north up, east left"));
  return [group];
}

function wheel(row) {
  const root = svg("svg", { class: "wheel", viewBox: "0 0 100 100", role: "img" });
  root.append(svg("circle", { class: "track", cx: 50, cy: 50, r: 42 }));
  const sectors = row.stamp ? row.stamp.sectors : [];
  const polar = (turn) => `${(50 + 42 * Math.cos(2 * Math.PI * turn)).toFixed(2)} ${(50 - 42 * Math.sin(2 * Math.PI * turn)).toFixed(2)}`;
  sectors.forEach((value, k) => {
    if (!value) return;
    const d = `M${polar(k / sectors.length)}A42 42 0 0 0 ${polar((k + 1.04) / sectors.length)}`;
    root.append(svg("path", { class: "sector", d, opacity: Math.max(0.35, value) }));
  });
  const coverage = has(row.arc_coverage_deg) ? `${row.arc_coverage_deg.toFixed(0)}°` : "—";
  const error = has(row.arc_coverage_err_deg) ? `± ${row.arc_coverage_err_deg.toFixed(0)}°` : "";
  root.append(svg("text", { x: 50, y: 52 }, coverage), svg("text", { class: "unit", x: 50, y: 65 }, error || "arc coverage"));
  root.append(svg("title", {}, "Arc coverage of the Einstein ring; sectors lie as in the picture"));
  return root;
}

// ---- cards ---------------------------------------------------------------------------------------------------------

const byId = new Map(ROWS.map((row, k) => [row.id, k]));
const verdictOf = (row) => VERDICTS[row.theorem_verdict] || [row.theorem_verdict, "quiet", ""];

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    const row = ROWS[Number(entry.target.dataset.k)];
    entry.target.querySelector(".picture").replaceWith(picture(row, false));
  }
}, { root: $("grid"), rootMargin: "400px" });

function card(row, k) {
  const [verdict, tone] = verdictOf(row);
  const flags = el("div", { class: "flags" });
  if (row.status !== "ok") {
    flags.append(el("span", { class: `flag ${row.status === "skipped" ? "bad" : "warn"}`, title: row.reason }, row.status));
  }
  const node = el("div", {
    class: "card", id: `card-${k}`, role: "option", "aria-selected": "false", "data-k": k, title: row.id,
    onclick: () => select(k),
  },
    el("div", { class: "picture" }), flags,
    el("div", { class: "caption" },
      el("span", { class: "id" }, el("span", { class: "rank" }, String(row.rank ?? "—")), row.id),
      el("span", { class: "score" }, fixed(row.score, 3)),
      el("span", { class: `verdict dot ${tone}` }, verdict),
      el("span", { class: "theta" }, has(row.theta_e_arcsec) ? `θE ${row.theta_e_arcsec.toFixed(2)}″` : "")));
  watcher.observe(node);
  return node;
}

function showGrade(row) {
  const node = cards[byId.get(row.id)];
  node.querySelector(".grade")?.remove();
  const g = grades.get(row.id);
  if (g) node.append(el("span", { class: `grade grade-${g.grade}`, title: `graded ${g.graded_at}` }, g.grade));
}

// ---- sorting, filtering, moving ------------------------------------------------------------------------------------

let visible = [];
let selected = -1;
let direction = 1;
let cards = [];

function sortValue(row, key) {
  return key === "graded_at" ? grades.get(row.id)?.graded_at ?? null : row[key] ?? null;
}

function compare(a, b) {
  const key = $("sort-key").value;
  const x = sortValue(ROWS[a], key), y = sortValue(ROWS[b], key);
  if (x === null || y === null) return (x === null) - (y === null) || a - b; // what is unknown comes last either way
  const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
  return direction * order || a - b;
}

function passes(row) {
  const needle = $("filter-text").value.trim().toLowerCase();
  const text = [row.id, row.source, row.reason, row.morphology, row.theorem_sentence].join("\n").toLowerCase();
  const minimum = Number($("filter-score").value);
  const grade = grades.get(row.id)?.grade ?? "";
  const wanted = $("filter-grade").value;
  return (!needle || text.includes(needle))
    && matches("filter-verdict", row.theorem_verdict) && matches("filter-morphology", row.morphology)
    && matches("filter-status", row.status)
    && (wanted === "*" || (wanted === "any" ? grade !== "" : wanted === "none" ? grade === "" : grade === wanted))
    && (minimum <= 0 || (has(row.score) && row.score >= minimum));
}

const matches = (id, value) => $(id).value === "*" || $(id).value === `=${value}`;

function apply() {
  const before = visible.indexOf(selected);
  visible = ROWS.map((_, k) => k).filter((k) => passes(ROWS[k])).sort(compare);
  $("grid").replaceChildren(...visible.map((k) => cards[k]));
  if (!visible.length) {
    $("grid").append(ROWS.length
      ? el("p", { class: "empty" }, el("strong", {}, "No candidate passes these filters"), "Reset clears them.")
      : el("p", { class: "empty" }, el("strong", {}, "No candidates"), "Nothing in this run passed the gate. Every input is accounted for in candidates.csv and problems.csv."));
  }
  $("score-value").textContent = Number($("filter-score").value).toFixed(2);
  $("sort-direction").textContent = direction > 0 ? "↑" : "↓";
  $("sort-direction").title = direction > 0 ? "Smallest first" : "Largest first";
  tell();
  if (!visible.includes(selected)) select(visible[Math.min(Math.max(before, 0), visible.length - 1)] ?? -1);
  else select(selected);
}

function tell() {
  const shown = visible.length === ROWS.length ? `${ROWS.length} shown` : `${visible.length} of ${ROWS.length}`;
  $("shown").textContent = `${shown}, ${grades.size} graded`;
}

function select(k) {
  if (cards[selected]) cards[selected].setAttribute("aria-selected", "false");
  selected = k;
  detail();
  if (k < 0) return $("grid").removeAttribute("aria-activedescendant");
  cards[k].setAttribute("aria-selected", "true");
  cards[k].scrollIntoView({ block: "nearest" });
  $("grid").setAttribute("aria-activedescendant", `card-${k}`);
}

function move(step) {
  if (!visible.length) return;
  const at = visible.indexOf(selected) + step;
  select(visible[Math.min(Math.max(at, 0), visible.length - 1)]);
}

const columns = () => getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;

function grade(value) {
  if (selected < 0) return;
  const row = ROWS[selected];
  if (value) grades.set(row.id, { grade: value, graded_at: new Date().toISOString() });
  else grades.delete(row.id);
  keep();
  showGrade(row);
  const next = visible[visible.indexOf(selected) + 1];
  const here = selected;
  apply();
  if (value && preferences.advance && next !== undefined && selected === here) select(next);
}

// ---- detail --------------------------------------------------------------------------------------------------------

function detail() {
  const panel = $("detail");
  const row = ROWS[selected];
  if (!row) return panel.replaceChildren(el("p", { class: "empty" }, ROWS.length ? "Nothing selected" : "Nothing to show"));
  const at = visible.indexOf(selected);
  panel.replaceChildren(
    el("div", { class: "title" }, el("h2", {}, row.id), el("span", { class: "of" }, at < 0 ? "" : `${at + 1} of ${visible.length}`)),
    el("p", { class: "subtitle" }, ...subtitle(row)),
    el("div", { class: "stage" }, picture(row, true)), controls(), grading(row), theorem(row),
    el("div", { class: "measures" }, wheel(row), numbers(row)), more(row));
}

function subtitle(row) {
  const parts = [];
  if (row.status !== "ok") parts.push(el("span", { class: row.status === "skipped" ? "bad" : "warn" }, `${row.status}: ${row.reason.replaceAll("_", " ") || "no reason given"}`), " · ");
  if (row.morphology) parts.push(`${row.morphology.replaceAll("_", " ")} · `);
  return [...parts, has(row.ra_deg) && has(row.dec_deg) ? `${sexagesimal(row.ra_deg / 15, 2)} ${row.dec_deg < 0 ? "−" : "+"}${sexagesimal(Math.abs(row.dec_deg), 1)}` : "no sky position"];
}

function sexagesimal(value, digits) {
  const unit = 10 ** digits;
  const ticks = Math.round(value * 3600 * unit);
  const pad = (n) => String(n).padStart(2, "0");
  const seconds = ((ticks % (60 * unit)) / unit).toFixed(digits).padStart(3 + digits, "0");
  return `${pad(Math.floor(ticks / (3600 * unit)))}:${pad(Math.floor(ticks / (60 * unit)) % 60)}:${seconds}`;
}

function controls() {
  const box = (label, checked, change, ...extra) =>
    el("label", {}, el("input", { type: "checkbox", checked, onchange: (event) => { change(event.target.checked); event.target.blur(); } }), ...extra, label);
  const layers = LAYERS.map(([name, label, colour, dashed]) => {
    const swatch = el("span", { class: `swatch${dashed ? " dashed" : ""}` });
    swatch.style.borderColor = cssVar(colour);
    return box(label, !preferences.hidden.includes(name), (on) => {
      preferences.hidden = preferences.hidden.filter((n) => n !== name).concat(on ? [] : [name]);
      showLayers();
    }, swatch);
  });
  const all = box("all", preferences.overlays, (on) => { preferences.overlays = on; showLayers(); });
  all.firstChild.id = "toggle-overlays";
  all.title = "Overlays on or off (o)";
  return el("div", { class: "controls" }, all, layers,
    box("pixels", preferences.pixels, (on) => { preferences.pixels = on; showLayers(); }));
}

function showLayers() {
  for (const [name] of LAYERS) document.body.classList.toggle(`hide-${name}`, preferences.hidden.includes(name));
  document.body.classList.toggle("hide-all", !preferences.overlays);
  document.body.classList.toggle("pixels", preferences.pixels);
  const box = $("toggle-overlays");
  if (box) box.checked = preferences.overlays;
  keep();
}

function grading(row) {
  const now = grades.get(row.id)?.grade;
  const buttons = GRADES.map((g) => el("button", {
    type: "button", "aria-pressed": String(now === g), class: now === g ? `grade-${g}` : "", onclick: () => grade(g),
  }, el("b", {}, g), GRADE_WORDS[g]));
  const clear = el("button", { type: "button", onclick: () => grade(""), disabled: !now }, el("b", {}, "U"), "clear");
  const advance = el("button", {
    type: "button", id: "advance", "aria-pressed": String(preferences.advance), title: "After a grade, go on to the next candidate (n)", onclick: toggleAdvance,
  }, "auto-next");
  return el("div", { class: "grading" }, buttons, clear, advance);
}

function toggleAdvance() {
  preferences.advance = !preferences.advance;
  keep();
  $("advance")?.setAttribute("aria-pressed", String(preferences.advance));
}

function theorem(row) {
  const [label, tone, meaning] = verdictOf(row);
  const section = el("section", { class: "theorem" }, el("h3", { class: `dot ${tone}` }, label), el("p", {}, row.theorem_sentence || meaning));
  if (row.missing_names.length) {
    section.append(el("p", { class: "missing" }, `Not seen: ${row.missing_names.map((n) => n.replaceAll("_", " ")).join("; ")}`));
  }
  if (row.arc_theorem_verdict !== "not_run") {
    const [words] = VERDICTS[row.arc_theorem_verdict] || [row.arc_theorem_verdict];
    const factor = has(row.arc_theorem_log_bayes_factor) ? ` (ln Bayes factor ${row.arc_theorem_log_bayes_factor.toFixed(1)})` : "";
    section.append(el("p", { class: "of-arcs" }, `Peaks of the arcs: ${words.toLowerCase()}${factor}. ${row.arc_theorem_sentence}`));
  }
  return section;
}

function pairs(entries) {
  const list = el("dl", { class: "numbers" });
  for (const [name, value] of entries) list.append(el("dt", {}, name), el("dd", {}, ...[value].flat()));
  return list;
}

function numbers(row) {
  return pairs([
    ["score", fixed(row.score, 4)], ["p lens", withError(row.p_lens, row.p_lens_err, 3)],
    ["images seen / in model", `${fixed(row.n_images, 0)} / ${fixed(row.n_images_model, 0)}`],
    ["N+ / N− of the model", `${fixed(row.n_positive, 0)} / ${fixed(row.n_negative, 0)}`],
    ["parity sum", has(row.parity_sum) ? (row.parity_sum > 0 ? "+" : "") + row.parity_sum.toFixed(0).replace("-", "−") : "—"],
    ["S/N of a point under the deflector", fixed(row.under_deflector_snr, 1)],
    ["theorem p-value", fixed(row.theorem_p_value, 3)], ["ln Bayes factor, lens / chance", fixed(row.theorem_log_bayes_factor, 1)],
    ["hypothesis", row.theorem_hypothesis.replaceAll("_", " ") || "—"], ["arc score", fixed(row.arc_score, 3)],
    ["Einstein radius", withError(row.theta_e_arcsec, row.theta_e_err_arcsec, 2, "″")],
    ["arcs / counter-images", `${fixed(row.n_arcs, 0)} / ${fixed(row.n_counter_images, 0)}`],
    ["arc S/N", fixed(row.arc_snr, 0)], ["colour, arcs less deflector", withError(row.arc_colour_mag, row.arc_colour_err_mag, 2, " mag")],
    ["ring of the arcs, radius", has(row.ring_radius_arcsec) ? `${fixed(row.ring_radius_arcsec, 2)}″` : "—"],
    ["its axis ratio", withError(row.ring_axis_ratio, row.ring_axis_ratio_err, 2)],
    ["its long axis, from x", has(row.ring_angle_deg) ? `${fixed(row.ring_angle_deg, 0)}°` : "—"],
    ["its centre, x, y", has(row.ring_x_pix) ? `${fixed(row.ring_x_pix, 1)}, ${fixed(row.ring_y_pix, 1)} ± ${fixed(row.ring_err_pix, 1)} pix` : "—"],
  ]);
}

function table(head, rows) {
  if (!rows.length) return null;
  const line = (tag, cells) => el("tr", {}, ...cells.map((t) => el(tag, {}, ...[t].flat())));
  return el("table", {}, el("thead", {}, line("th", head)), el("tbody", {}, rows.map((cells) => line("td", cells))));
}

function more(row) {
  const section = el("section", { class: "more" });
  section.append(pairs([["rank", row.rank ?? "—"], ["RA, Dec", `${fixed(row.ra_deg, 5)}, ${fixed(row.dec_deg, 5)}`], ["file", row.source]]));
  const { image_x_pix: x, missing_x_pix: mx, arc_length_arcsec: length } = row;
  section.append(...[
    table(["image", "x / pix", "y / pix", "confidence", "model magnification", "arrival"], x.map((_, k) => [
      String(k + 1), fixed(x[k], 2), fixed(row.image_y_pix[k], 2), fixed(row.image_confidence[k], 2),
      fixed(row.image_magnification[k], 1), fixed(row.image_arrival[k], 0)])),
    table(["not seen", "x / pix", "y / pix", "magnification", "mag beyond 5σ depth", "S/N there", "probability"], mx.map((_, k) => [
      (row.missing_names[k] || "").replaceAll("_", " "), fixed(mx[k], 2), fixed(row.missing_y_pix[k], 2),
      fixed(row.missing_magnification[k], 1), withError(row.missing_depth_mag[k], row.missing_mag_err[k], 1),
      fixed(row.missing_snr[k], 1), fixed(row.missing_probability[k], 2)])),
    table(["arc", "radius / ″", "angle / °", "extent / °", "length / ″", "width / ″"], length.map((_, k) => [
      String(k + 1), fixed(row.arc_radius_arcsec[k], 2), fixed(row.arc_angle_deg[k], 0), fixed(row.arc_extent_deg[k], 0),
      fixed(length[k], 2), fixed(row.arc_width_arcsec[k], 2)])),
  ].filter((t) => t !== null));
  return section;
}

// ---- header and dialogs --------------------------------------------------------------------------------------------

function header() {
  const run = DATA.summary;
  const finished = typeof run.finished_at === "string" ? run.finished_at.replace("T", " ").replace(/(\+00:00|Z)$/, " UTC") : "";
  const parts = [DATA.input, finished, run.run_id && `run ${run.run_id}`].filter(Boolean).join(" · ");
  $("run-line").append(run.status === "partial" ? el("strong", { class: "warn" }, "partial run · ") : "", parts);
  $("run-line").title = $("run-line").textContent;
  const order = ["read", "ok", "degraded", "skipped", "flagged", "selected"];
  const place = ([name]) => (order.includes(name) ? order.indexOf(name) : order.length);
  for (const [name, value] of Object.entries(run.counts || {}).sort((a, b) => place(a) - place(b))) {
    $("counts").append(el("div", { class: `${name} ${value ? "" : "zero"}` }, el("dt", {}, name), el("dd", {}, Number(value).toLocaleString("en"))));
  }
}

const entry = ([name, value]) => `${name.replaceAll("_", " ")}: ${text(value).replaceAll("\n", "; ")}`;

function text(value) {
  if (Array.isArray(value)) return value.map(text).join(", ");
  return value !== null && typeof value === "object" ? Object.entries(value).map(entry).join("\n") : String(value ?? "—");
}

function runDialog() {
  const dialog = $("run");
  dialog.append(el("h2", {}, "Run details"));
  const plain = [];
  const groups = [];
  for (const [name, value] of Object.entries(DATA.summary)) {
    (value !== null && typeof value === "object" ? groups : plain).push([name, value]);
  }
  const list = (entries, show = text) => el("dl", { class: "pairs" }, entries.flatMap(([n, v]) => [el("dt", {}, n.replaceAll("_", " ")), el("dd", {}, show(v))]));
  dialog.append(list(plain));
  for (const [name, value] of groups) {
    const show = name === "seconds" ? (v) => (has(v) ? `${v.toFixed(2)} s` : text(v)) : text;
    dialog.append(el("h3", {}, name === "seconds" ? "seconds per stage" : name), list(Object.entries(value), show));
  }
  const links = ["candidates.csv", "candidates.parquet", "candidates.vot", "candidates.reg", "problems.csv", "run.json"]
    .flatMap((name) => [el("a", { href: `../${name}` }, name), "  "]);
  dialog.append(el("h3", {}, "files of this run"), el("p", { class: "files" }, links));
  dialog.append(el("form", { method: "dialog" }, el("button", {}, "Close")));
}

function helpDialog() {
  const keys = [
    [["←", "→", "↑", "↓"], "move"], [["j", "k"], "next, previous"], [["Home", "End"], "first, last"],
    [["a", "b", "c", "x"], "grade: sure, likely, maybe, no lens"], [["u"], "clear the grade"], [["n"], "auto-next: after a grade, go on to the next"], [["o"], "overlays on or off"],
    [["p"], "pixels or smooth"], [["/"], "search"], [["e"], "export grades"], [["?"], "this help"],
  ];
  $("help").append(el("h2", {}, "Keyboard"),
    el("dl", { class: "keys" }, keys.flatMap(([k, what]) => [el("dt", {}, ...k.flatMap((name) => [el("kbd", {}, name), " "])), el("dd", {}, what)])),
    el("h3", {}, "Grades"),
    el("p", {}, "Grades stay in this browser, for this run. Export them as CSV to keep or share them; importing adds to what is here."),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
}

function options(id, values, words = (v) => v.replaceAll("_", " ")) {
  $(id).append(el("option", { value: "*" }, "all"), ...values.map((v) => el("option", { value: `=${v}` }, words(v) || "none")));
}

function distinct(key) {
  return [...new Set(ROWS.map((row) => row[key]))].sort();
}

// ---- start ---------------------------------------------------------------------------------------------------------

const KEYS = {
  ArrowRight: () => move(1), ArrowLeft: () => move(-1), ArrowDown: () => move(columns()), ArrowUp: () => move(-columns()),
  j: () => move(1), k: () => move(-1), Home: () => move(-Infinity), End: () => move(Infinity),
  a: () => grade("A"), b: () => grade("B"), c: () => grade("C"), x: () => grade("X"), u: () => grade(""),
  o: () => { preferences.overlays = !preferences.overlays; showLayers(); },
  p: () => { preferences.pixels = !preferences.pixels; showLayers(); detail(); },
  n: toggleAdvance, e: exportGrades, "/": () => $("filter-text").focus(), "?": () => $("help").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const tag = event.target.tagName;
  if (tag === "INPUT" && event.target.type !== "checkbox" || tag === "SELECT") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function reset() {
  for (const id of ["filter-verdict", "filter-morphology", "filter-status", "filter-grade"]) $(id).value = "*";
  $("filter-text").value = "";
  $("filter-score").value = 0;
  apply();
}

function start() {
  recall();
  header();
  runDialog();
  helpDialog();
  $("sort-key").append(...SORTS.map(([key, label]) => el("option", { value: key }, label)));
  options("filter-verdict", distinct("theorem_verdict"), (v) => (VERDICTS[v] || [v])[0]);
  options("filter-morphology", distinct("morphology"));
  options("filter-status", distinct("status"));
  $("filter-grade").append(...[["*", "all"], ["any", "graded"], ["none", "ungraded"], ...GRADES.map((g) => [g, g])].map(([v, w]) => el("option", { value: v }, w)));
  cards = ROWS.map(card);
  ROWS.forEach(showGrade);
  for (const id of ["filter-text", "filter-verdict", "filter-morphology", "filter-status", "filter-grade", "filter-score"]) $(id).addEventListener("input", apply);
  $("sort-key").addEventListener("change", () => { direction = SORTS.find(([key]) => key === $("sort-key").value)[2]; apply(); $("sort-key").blur(); });
  $("sort-direction").addEventListener("click", () => { direction = -direction; apply(); });
  $("filter-clear").addEventListener("click", reset);
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("run-button").addEventListener("click", () => $("run").showModal());
  $("export-button").addEventListener("click", exportGrades);
  $("import-button").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", async (event) => {
    if (event.target.files.length) importGrades(await event.target.files[0].text());
    event.target.value = "";
  });
  document.addEventListener("keydown", onKey);
  showLayers();
  apply();
}

start();
