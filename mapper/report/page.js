"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  const unpack = (run) => {
    for (const [name, column] of Object.entries(run.columns))
      if (!Array.isArray(column)) run.columns[name] = column.codes.map((code) => column.values[code]);
    run.rows = run.columns.point.length;
    run.onFront = new Set(run.front);
    return run;
  };
  const run = unpack(data.run), comparison = data.comparison, pictures = data.pictures;
  const unzipped = (text) => new Response(new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  let texts; // of mappings and plans, when one is asked for
  const fileOf = async (row) => (texts ||= await unzipped(data.files.gzip))[data.files.of[row]];
  const names = Object.keys(run.columns);
  const short = (name) => name.replace(/^in /, "");
  const isNumber = {};
  for (const name of names) isNumber[name] = run.columns[name].every((value) => value === null || typeof value === "number");
  const several = new Set(names.filter((name) => run.columns[name].some((value) => value !== run.columns[name][0])));
  const differs = (name) => several.has(name);
  const show = (value) => value === null || value === undefined ? "" : typeof value !== "number" ? String(value)
    : Number.isInteger(value) && Math.abs(value) < 1e9 ? value.toLocaleString("en") : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(3) : String(+value.toPrecision(5));
  const make = (tag, text, attributes = {}) => {
    const found = document.createElement(tag);
    if (text !== undefined) found.textContent = text;
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    return found;
  };

  const whole = run.points - run.failed;
  by("summary").textContent = `${run.points.toLocaleString("en")} points, ${run.failed.toLocaleString("en")} failed, ${run.front.length.toLocaleString("en")} on the Pareto front of ${run.objectives.join(", ")}${run.workload.length ? ` (one front for each ${run.workload.map(short).join(" and ")})` : ""}.`
    + (run.rows < whole ? ` Shown: the front and an even sample, ${run.rows.toLocaleString("en")} of ${whole.toLocaleString("en")}.` : "");
  if (run.reasons.length) {
    by("failures").hidden = false;
    by("failures").querySelector("summary").textContent = `Why ${run.failed.toLocaleString("en")} points failed`;
    for (const [code, text, count] of run.reasons) {
      const row = make("tr");
      row.append(make("td", code), make("td", count.toLocaleString("en"), { class: "number" }), make("td", text));
      by("failures").querySelector("tbody").append(row);
    }
  }

  const dark = () => document.documentElement.dataset.theme === "dark";
  if (!run.rows) {
    by("failures").open = true;
    document.querySelector("main").replaceChildren(make("p", "No point has figures: there is nothing to draw."));
    document.querySelector(".skip").hidden = true;
    by("theme").onclick = () => theme(dark() ? "light" : "dark");
    theme(preferred());
    document.documentElement.dataset.ready = "yes";
    return;
  }

  // --- table: filter, sort, pages ---
  const state = { sort: run.objectives[0].replace(/^-/, ""), up: true, page: 0, rows: [], filter: "", only: false, workload: "" };
  const PAGE = 100;
  const listed = names.filter((name) => name === "point" || !name.startsWith("in ") || differs(name)).sort((a, b) => rank(a) - rank(b));
  function rank(name) { return name === "point" ? 0 : run.objectives.some((o) => o.replace(/^-/, "") === name) ? 1 : name.startsWith("in label.") ? 2 : name.startsWith("in ") ? 3 : 4; }
  const column = (text) => names.find((name) => name === text || short(name) === text);
  function tests(text) {
    return text.trim().split(/\s{2,}|\s+(?=\S*[<>=])|(?<=[<>=]\S*)\s+/).filter(Boolean).map((part) => {
      const match = part.match(/^(.+?)(<=|>=|<|>|=)(.+)$/), name = match && column(match[1].trim());
      if (!name) { const words = part.toLowerCase(); return (row) => names.some((n) => String(run.columns[n][row]).toLowerCase().includes(words)); }
      const values = run.columns[name], wanted = isNumber[name] ? Number(match[3]) : match[3].trim();
      const compare = { "<": (a) => a < wanted, ">": (a) => a > wanted, "<=": (a) => a <= wanted, ">=": (a) => a >= wanted, "=": (a) => String(a) === String(wanted) }[match[2]];
      return (row) => values[row] !== null && compare(values[row]);
    });
  }
  const workloads = run.workload.filter((name) => run.columns[name]);
  const kinds = Array.from({ length: run.rows }, (_, row) => workloads.map((name) => `${short(name).replace(/^.*\./, "")} ${show(run.columns[name][row])}`).join(", "));
  if (workloads.length) {
    const found = [...new Set(kinds)];
    by("which").hidden = found.length < 2;
    by("workload").append(make("option", `all ${found.length}`, { value: "" }), ...found.map((kind) => make("option", kind, { value: kind })));
    by("workload").value = state.workload = found.length > 1 ? found[0] : "";
    by("workload").onchange = () => { state.workload = by("workload").value; select(); body(); plots(); };
  }
  function select() {
    const all = tests(state.filter), found = [];
    for (let row = 0; row < run.rows; row++) if ((!state.workload || kinds[row] === state.workload) && (!state.only || run.onFront.has(row)) && all.every((test) => test(row))) found.push(row);
    const values = run.columns[state.sort], sign = state.up ? 1 : -1;
    found.sort((a, b) => { const p = values[a], q = values[b]; return p === null ? 1 : q === null ? -1 : p < q ? -sign : p > q ? sign : a - b; });
    state.rows = found; state.page = 0;
    by("count").textContent = `${found.length.toLocaleString("en")} of ${run.rows.toLocaleString("en")} rows`;
  }
  function head() {
    const row = make("tr");
    for (const name of listed) {
      const cell = make("th", undefined, { scope: "col", "aria-sort": state.sort === name ? (state.up ? "ascending" : "descending") : "none" });
      const button = make("button", short(name) + (state.sort === name ? (state.up ? " ▲" : " ▼") : ""), { type: "button", "data-name": name });
      button.onclick = () => { state.up = state.sort === name ? !state.up : true; state.sort = name; select(); head(); body(); by("table").querySelector(`[data-name="${CSS.escape(name)}"]`).focus(); };
      cell.append(button); row.append(cell);
    }
    by("table").querySelector("thead").replaceChildren(row);
  }
  function body() {
    const rows = state.rows.slice(state.page * PAGE, (state.page + 1) * PAGE).map((row) => {
      const line = make("tr", undefined, run.onFront.has(row) ? { class: "front" } : {});
      for (const name of listed) {
        const cell = make("td", undefined, isNumber[name] ? { class: "number" } : {});
        if (name === "point") { const button = make("button", show(run.columns.point[row]) + (pictures[run.columns.point[row]] ? " ▣" : ""), { type: "button", "aria-label": `point ${run.columns.point[row]}: details` }); button.onclick = () => detail(row); cell.append(button); }
        else cell.textContent = show(run.columns[name][row]);
        line.append(cell);
      }
      return line;
    });
    by("table").querySelector("tbody").replaceChildren(...rows);
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    by("where").textContent = `page ${state.page + 1} of ${pages}`;
    by("back").disabled = state.page === 0; by("next").disabled = state.page + 1 >= pages;
  }
  by("back").onclick = () => { state.page--; body(); };
  by("next").onclick = () => { state.page++; body(); };
  let soon = 0;
  by("filter").oninput = () => { state.filter = by("filter").value; select(); body(); clearTimeout(soon); soon = setTimeout(plots, 250); };
  by("only").onchange = () => { state.only = by("only").checked; select(); body(); plots(); };

  // --- one point ---
  function detail(row) {
    const box = by("about");
    box.replaceChildren();
    by("h-detail").textContent = `Point ${run.columns.point[row]}`;
    const list = make("table");
    for (const name of names) if (run.columns[name][row] !== null && run.columns[name][row] !== "") {
      const line = make("tr");
      line.append(make("th", short(name), { scope: "row" }), make("td", show(run.columns[name][row])));
      list.append(line);
    }
    const point = run.columns.point[row], planned = run.columns["in gpu"]?.[row];
    if (pictures[point]) { const packed = pictures[point]; let opened; box.append(gallery(point, packed.names, async (name) => (await (opened ||= unzipped(packed.gzip)))[name])); }
    else if (data.files.of[row] >= 0) box.append(gallery(point, [planned ? "plan.json" : "mapping.yaml"], () => fileOf(row)));
    const command = reproduce(row);
    if (command) box.append(make("p", pictures[point] ? "The same from the command line:" : `Its ${planned ? "kernel" : "timeline"} from the command line:`), make("pre", command));
    const fold = make("details"); fold.append(make("summary", "every figure"), list); box.append(fold);
    by("detail").hidden = false; by("detail").focus(); by("detail").scrollIntoView({ block: "start" });
    location.hash = `point-${run.columns.point[row]}`;
  }
  function gallery(point, names, textOf) {
    const box = make("div"), tabs = make("div", undefined, { class: "tabs", role: "group", "aria-label": "pictures and files of this point" }), place = make("div");
    box.append(tabs, place);
    const present = async (name, button) => {
      const text = await textOf(name);
      for (const one of tabs.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === button));
      if (name.includes(".")) place.replaceChildren(make("pre", text));
      else {
        const frame = make("iframe", undefined, { title: `${name} of point ${point}`, sandbox: "" }), size = text.match(/viewBox="0 0 [\d.]+ ([\d.]+)"/);
        frame.style.height = `${Number(size ? size[1] : 400) + 30}px`;
        frame.style.colorScheme = dark() ? "dark" : "light";
        frame.srcdoc = `<!doctype html><meta name="color-scheme" content="light dark"><title>${name}</title><body style="margin:8px">${text}`;
        place.replaceChildren(frame);
      }
      const type = name.includes(".") ? "text/plain" : "image/svg+xml", file = `point-${point}-${name}${name.includes(".") ? "" : ".svg"}`;
      place.append(make("a", `save ${file}`, { href: URL.createObjectURL(new Blob([text], { type })), download: file }));
    };
    for (const name of names) {
      const button = make("button", name, { type: "button", "aria-pressed": "false" });
      button.onclick = () => present(name, button);
      tabs.append(button);
    }
    present(names[0], tabs.firstChild);
    return box;
  }
  function reproduce(row) {
    const get = (name) => { const c = run.columns["in " + name]; return c ? c[row] : null; };
    if (!get("spec")) return "";
    const quoted = /^[\w./-]+$/.test(run.folder) ? run.folder : `'${run.folder.replaceAll("'", "'\\''")}'`, show = `einsmith show ${quoted} --point ${run.columns.point[row]}`;
    const inputs = names.filter((name) => name.startsWith("in ") && run.columns[name][row] !== null && run.columns[name][row] !== "");
    const join = (prefix) => inputs.filter((n) => n.startsWith("in " + prefix)).map((n) => `${n.slice(3 + prefix.length)}=${run.columns[n][row]}`);
    const derive = get("derive"), spec = derive ? "derived.yaml" : get("spec"), param = join("param."), given = param.length ? ` --param ${param.join(",")}` : "";
    const own = `${show} -o ${get("gpu") ? "plan" : "timeline"}.svg\n${show} -o ${get("gpu") ? "kernel.py" : "mapping.yaml"}\n` + (derive ? `einsmith derive ${get("spec")} --rank ${derive} -o derived.yaml\n` : "");
    const sizes = join("size."), size = sizes.length ? ` --size ${sizes.join(",")}` : "";
    if (get("gpu")) return `${own}einsmith plan ${spec} --gpu ${get("gpu")}${size}${given}${get("dtype") ? ` --dtype ${get("dtype")}` : ""}`;
    const side = (n, v) => v.startsWith("[") ? v.replaceAll(" ", "") : run.sides[n] ? `[${new Array(run.sides[n]).fill(v).join(",")}]` : v;
    const set = join("arch.").map((text) => { const [n, v] = text.split("="); return ` --set ${n}=${side(n, v)}`; }).join("");
    const common = `${spec} --arch ${get("arch")}${set}`;
    if (get("mapping") === "search") return `${own}einsmith map ${common}${size}${given}${get("objective") ? ` --objective ${get("objective")}` : ""}`;
    return `${own}einsmith model ${common} --mapping ${join("tile.").length ? "mapping.yaml" : get("mapping")}${size}${given}`;
  }

  // --- plots ---
  const numeric = names.filter((name) => isNumber[name] && name !== "point" && differs(name));
  const options = (id, list, chosen) => { for (const name of list) by(id).append(make("option", short(name), { value: name })); by(id).value = chosen; by(id).onchange = plots; };
  const wanted = run.objectives.map((name) => name.replace(/^-/, ""));
  options("x", numeric, numeric.includes(wanted[0]) ? wanted[0] : numeric[0]);
  const others = numeric.filter((name) => name !== wanted[0] && !name.startsWith("in "));
  options("y", numeric, numeric.includes(wanted[1]) ? wanted[1] : others.find((name) => /area|energy_|bytes/.test(name)) || others[0] || numeric[0]);
  const colours = ["", ...names.filter((name) => name.startsWith("in ") && differs(name) && new Set(run.columns[name]).size <= 16)];
  options("colour", colours, colours.find((name) => name.startsWith("in label.")) || colours[1] || "");
  const palette = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f", "#ff9da7", "#86bcb6", "#8cd17d", "#d37295", "#a0cbe8", "#b6992d", "#499894", "#79706e"];
  const layout = (more) => {
    const ink = dark() ? "#e4e7eb" : "#1d2126", line = dark() ? "#363d46" : "#dfe3e8";
    const axis = { gridcolor: line, zerolinecolor: line, automargin: true, exponentformat: "e" };
    const { xaxis = {}, yaxis = {}, ...rest } = more;
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif", size: 12 }, margin: { l: 70, r: 20, t: 16, b: 64 }, hovermode: "closest", modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: ink },
      legend: { orientation: "h", y: 1.08 }, xaxis: { ...axis, ...xaxis, title: { standoff: 8, ...xaxis.title } }, yaxis: { ...axis, ...yaxis, title: { standoff: 12, ...yaxis.title } }, ...rest };
  };
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"] };
  const telling = names.filter((name) => name.startsWith("in ") && differs(name));
  const title = (row) => `point ${run.columns.point[row]}<br>` + telling.filter((n) => run.columns[n][row] !== null).slice(0, 9).map((n) => `${short(n)} ${show(run.columns[n][row])}`).join("<br>");
  const scatter = (rows, x, y, name, colour, labels) => ({ type: "scatter", mode: "markers", name, x: rows.map((r) => x[r]), y: rows.map((r) => y[r]), customdata: rows, text: rows.map(title), hovertemplate: hover(labels), marker: { color: colour, size: 6, opacity: 0.75 } });
  const hover = ([x, y], extra = "") => `%{text}<br>${x} %{x:.4g}<br>${y} %{y:.4g}<extra>${extra}</extra>`;
  const scientific = (values) => { const most = values.reduce((a, v) => Math.max(a, Math.abs(v || 0)), 0); return most >= 1e5 || most < 1e-2 ? ".3~e" : ""; };
  const axisOf = (name) => ({ title: { text: short(name) }, type: log(run.columns[name]), tickformat: scientific(run.columns[name]) });
  const log = (values) => values.every((v) => v === null || v > 0) ? "log" : "linear";
  function draw(id, traces, more) {
    return Plotly.react(by(id), traces, layout(more), config).then((plot) => {
      plot.removeAllListeners("plotly_click");
      plot.on("plotly_click", (event) => { const row = event.points[0].customdata; if (typeof row === "number") detail(row); });
    });
  }
  function plots() {
    const x = by("x").value, y = by("y").value, kind = by("colour").value, rows = state.rows;
    if (!x || !y) return;
    const traces = coloured(rows, kind, run.columns[x], run.columns[y], [short(x), short(y)]);
    const front = steps(rows, x, y);
    traces.push({ type: "scatter", mode: "lines+markers", name: `front of these ${rows.length.toLocaleString("en")}`, x: front.map((r) => run.columns[x][r]), y: front.map((r) => run.columns[y][r]), customdata: front, text: front.map(title), hovertemplate: hover([short(x), short(y)], "front"), line: { shape: "hv", color: dark() ? "#fff" : "#111", width: 1.5 }, marker: { size: 8, symbol: "diamond" } });
    const best = rows.filter((r) => run.onFront.has(r) && run.columns[x][r] !== null && run.columns[y][r] !== null);
    if (run.objectives.length > 2) traces.push({ ...scatter(best, run.columns[x], run.columns[y], `front of all ${run.objectives.length} objectives`, "", [short(x), short(y)]), marker: { color: "rgba(0,0,0,0)", size: 11, line: { color: dark() ? "#fff" : "#111", width: 1.2 } } });
    draw("pareto", traces, { xaxis: axisOf(x), yaxis: axisOf(y) });
    roofline(rows, kind); utilization(rows); energy(rows);
  }
  function coloured(rows, kind, x, y, labels) {
    const groups = new Map();
    for (const row of rows) { const key = kind ? show(run.columns[kind][row]) : "points"; if (!groups.has(key)) groups.set(key, []); groups.get(key).push(row); }
    return [...groups].map(([name, mine]) => scatter(mine, x, y, name, colourOf(kind, name), labels));
  }
  function colourOf(kind, name) { // the same for a value whatever is filtered
    if (!kind) return palette[0];
    return palette[[...new Set(run.columns[kind])].map(show).indexOf(name) % palette.length];
  }
  function steps(rows, x, y) {
    const p = run.columns[x], q = run.columns[y], found = [];
    const maximal = (name) => run.objectives.includes("-" + name) || name.startsWith("utilization");
    const sx = maximal(x) ? -1 : 1, sy = maximal(y) ? -1 : 1;
    const sorted = rows.filter((r) => p[r] !== null && q[r] !== null).sort((a, b) => sx * (p[a] - p[b]) || sy * (q[a] - q[b]));
    let best = Infinity;
    for (const row of sorted) if (sy * q[row] < best) { best = sy * q[row]; found.push(row); }
    return found;
  }
  function roofline(rows, kind) {
    const c = run.columns;
    if (!c.lane_cycles || !c.peak_lanes_s || !c.bandwidth) return by("roofline").closest("section").hidden = true;
    const ok = rows.filter((r) => c.lane_cycles[r] && c.traffic_bytes[r] && c.bandwidth[r]);
    const x = {}, y = {};
    for (const r of ok) { x[r] = c.lane_cycles[r] / c.traffic_bytes[r] * c.bandwidth[r] / c.peak_lanes_s[r]; y[r] = c.lane_cycles[r] / c.latency_s[r] / c.peak_lanes_s[r]; }
    const low = ok.reduce((a, r) => Math.min(a, x[r]), 0.5), high = ok.reduce((a, r) => Math.max(a, x[r]), 2);
    draw("roofline", [...coloured(ok, kind, x, y, ["intensity / balance", "share of all lanes"]), { type: "scatter", mode: "lines", name: "roof", x: [low / 2, 1, high * 2], y: [low / 2, 1, 1], line: { color: palette[3] }, hoverinfo: "skip" }],
      { xaxis: { type: "log", title: { text: "intensity / balance of the machine" } }, yaxis: { type: "log", title: { text: "share of all lanes" } } });
  }
  function utilization(rows) {
    const shares = names.filter((n) => n.startsWith("utilization."));
    if (!shares.length) return by("utilization").closest("section").hidden = true;
    const bins = 40, traces = shares.map((n, at) => {
      const counts = new Array(bins).fill(0);
      for (const r of rows) if (run.columns[n][r] !== null) counts[Math.min(bins - 1, Math.floor(run.columns[n][r] * bins))]++;
      return { type: "bar", name: n.slice(12), x: counts.map((_, b) => (b + 0.5) / bins), y: counts, marker: { color: palette[at], opacity: 0.75 } };
    });
    draw("utilization", traces, { barmode: "group", bargap: 0.05, xaxis: { title: { text: "utilization" }, range: [0, 1.02] }, yaxis: { title: { text: "points" } } });
  }
  function energy(rows) {
    const parts = names.filter((n) => n.startsWith("energy."));
    if (!parts.length) return by("energy").closest("section").hidden = true;
    const best = rows.filter((r) => run.onFront.has(r));
    const shown = (best.length ? best : steps(rows, by("x").value, by("y").value)).slice(0, 40);
    draw("energy", parts.map((n, at) => ({ type: "bar", name: n.slice(7), x: shown.map((r) => "point " + run.columns.point[r]), y: shown.map((r) => run.columns[n][r]), customdata: shown, marker: { color: palette[at] } })),
      { barmode: "stack", bargap: shown.length < 6 ? 0.7 : 0.2, xaxis: { type: "category" }, yaxis: { title: { text: "pJ" }, tickformat: ".3~e" } });
  }
  function compare() {
    const c = comparison;
    if (!c) return;
    by("compare").hidden = false;
    const number = (value) => value.toLocaleString("en"), sides = [c.first, c.second];
    const words = [`${number(c.both)} points in both`, ...sides.map((name, at) => c.only[at] ? `${number(c.only[at])} only in ${name}` : ""),
      ...Object.entries(c.changed).map(([name, count]) => `${name}: ${number(count)} differ`),
      ...sides.map((name, at) => c.failed[at] ? `${number(c.failed[at])} failed only in ${name}` : ""), c.texts.length ? `other texts of ${c.texts.join(", ")}` : ""];
    by("compared").textContent = `${c.first} against ${c.second}: ${words.filter(Boolean).join("; ")}.` + (c.both ? " A ratio below 1: this run is smaller." : "");
    const traces = Object.entries(c.ratios).map(([name, ratios], at) => ({ type: "scatter", mode: "lines", name, x: ratios.map((_, i) => (i + 1) / ratios.length), y: ratios, line: { color: palette[at] } }));
    by("ratio").hidden = !traces.some((trace) => trace.y.length);
    if (!by("ratio").hidden) draw("ratio", traces, { xaxis: { title: { text: "share of points" } }, yaxis: { title: { text: `${c.first} / ${c.second}` } } });
    by("alone").replaceChildren(...sides.flatMap((name, at) => alone(c, name, at)));
  }
  function alone(c, name, at) {
    if (!c.only[at]) return [];
    const fold = make("details"), list = make("table"), head = make("tr"), keys = Object.keys(c.named[at][0]);
    const values = new Map();
    for (const [what, value, side] of c.values) if (side === at) values.set(what, [...(values.get(what) || []), value]);
    const told = [...values].map(([what, mine]) => `${what}: ${mine.slice(0, 12).join(", ")}${mine.length > 12 ? " ..." : ""}`).join("; ");
    fold.append(make("summary", `${c.only[at].toLocaleString("en")} points only in ${name}${told ? ` (values that only it has: ${told})` : ""}`));
    for (const key of keys) head.append(make("th", key, { scope: "col" }));
    list.append(head);
    for (const point of c.named[at]) { const line = make("tr"); for (const key of keys) line.append(make("td", show(point[key]))); list.append(line); }
    const scroll = make("div", undefined, { class: "scroll", tabindex: "0", "aria-label": `points only in ${name}` });
    scroll.append(list); fold.append(scroll);
    if (c.only[at] > c.named[at].length) fold.append(make("p", `The first ${c.named[at].length} are listed.`, { class: "note" }));
    return [fold];
  }
  function preferred() { return window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"; }
  function theme(name) {
    document.documentElement.dataset.theme = name;
    by("theme").textContent = name === "dark" ? "Light" : "Dark";
    by("theme").setAttribute("aria-pressed", String(name === "dark"));
  }
  by("theme").onclick = () => { theme(dark() ? "light" : "dark"); plots(); compare(); for (const frame of document.querySelectorAll("iframe")) frame.style.colorScheme = dark() ? "dark" : "light"; };
  theme(preferred());
  select(); head(); body(); plots(); compare();
  const match = location.hash.match(/^#point-(\d+)$/);
  if (match) { const row = run.columns.point.indexOf(Number(match[1])); if (row >= 0) detail(row); }
  document.documentElement.dataset.ready = "yes";
})();
