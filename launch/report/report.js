  // Draws the report from the data in the page. launch/report/report.cpp describes their format.
  const data = JSON.parse(document.getElementById("data").textContent);
  const report = document.getElementById("report");

  // ---- Elements of the page ----

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  // Drawings on canvases use the colours of the style sheet, too.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const seriesColour = (i) => `series-${(i % 8) + 1}`;

  // ---- Formats of numbers ----

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const count = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  function short(value) {
    const size = Math.abs(value);
    if (size >= 1e6) return value.toExponential(1).replace("e+", "e");
    if (size >= 1e4) return count(value);
    return String(Number(value.toPrecision(size >= 1000 ? 4 : 3)));
  }
  const percent = (value) => `${(100 * value).toFixed(2)} %`;
  const percentAxis = (value) => `${short(value)} %`;
  const milliseconds = (ms) => (ms < 1e4 ? `${short(ms)} ms` : `${short(ms / 1000)} s`);
  function duration(seconds) {
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
    const two = (value) => String(value).padStart(2, "0");
    return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)} h` : `${minutes}:${two(whole % 60)} min`;
  }
  const date = (seconds) => new Date(1000 * seconds).toISOString().replace("T", " ").slice(0, 16) + " UTC";

  function median(values) {
    const sorted = values.filter(isNumber).sort((a, b) => a - b);
    return sorted.length ? sorted[Math.floor(sorted.length / 2)] : NaN;
  }

  // ---- Charts ----

  const charts = [];
  const update = (which, options) => charts.filter((c) => c[which]).forEach((c) => c.graph.updateOptions(options));

  // A column of a run, for table(). The default colour is that of its place among the curves.
  const curve = (run, group, key, label, colour) => ({ label, colour, x: run[group].step || [], y: run[group][key] || [] });

  // {labels, rows, colours} of curves in the format of dygraphs: one row per x. A y of false means no value, and null means a
  // value that was not finite, which leaves a gap.
  function table(curves) {
    const rows = new Map();
    curves.forEach(({ x: xs, y: ys }, i) => xs.forEach((x, j) => {
      if (!rows.has(x)) rows.set(x, [x, ...curves.map(() => null)]);
      if (ys[j] !== false) rows.get(x)[i + 1] = ys[j] === null ? NaN : ys[j];
    }));
    return { labels: ["step", ...curves.map((c) => c.label)], rows: [...rows.values()].sort((a, b) => a[0] - b[0]),
             colours: curves.map((c, i) => c.colour || seriesColour(i)) };
  }

  function legend(graph) {
    const stacked = graph.dygraph.getOption("stackedGraph");
    const x = graph.x === undefined ? "" : `<b>${graph.xHTML}</b> `;
    return graph.series.map((series, i) => {
      const value = graph.x === undefined || series.y === undefined ? "" : ` <b>${series.yHTML}</b>`;
      return `<button type="button" data-series="${i}" class="${series.isVisible ? "" : "off"}">` +
        `<i class="${stacked ? "box" : ""}" style="border-color:${series.color}"></i>${series.labelHTML}${value}</button>`;
    }).join("") + x;
  }

  // One figure. `steps`: its x axis is the step, and all such charts zoom together. `smooth`, `logarithmic`: whether the
  // switches of the page apply to it.
  function addChart(parent, { title, note = "", labels, rows, colours, options = {}, axis = short, steps = true, smooth = false,
                              logarithmic = false, marks = [] }) {
    const labelsDiv = make("div", { class: "legend" });
    const plot = make("div", { class: "plot", role: "img", "aria-label": title });
    parent.append(make("figure", {}, make("figcaption", {}, make("h3", {}, title), make("p", {}, note)), labelsDiv, plot));
    const chart = { steps, smooth, logarithmic };
    const drawMarks = (context, area, graph) => {
      for (const mark of marks) {
        const x = Math.round(graph.toDomXCoord(mark.step)) + 0.5;
        if (x < area.x || x > area.x + area.w) continue;
        context.save();
        context.strokeStyle = colour(markColours[mark.event]);
        if (mark.event === "resume") context.setLineDash([6, 4]);
        context.lineWidth = 1.5;
        context.beginPath();
        // There may be many skipped steps and stragglers, so their lines are short.
        context.moveTo(x, mark.event === "resume" ? area.y : area.y + area.h - 14);
        context.lineTo(x, area.y + area.h);
        context.stroke();
        context.restore();
      }
    };
    chart.style = () => ({ colors: colours.map(colour), gridLineColor: colour("grid"), axisLineColor: colour("line") });
    chart.graph = new Dygraph(plot, rows, {
      labels, labelsDiv, legend: "always", legendFormatter: legend, hideOverlayOnMouseOut: true,
      ...chart.style(), strokeWidth: 1.8, connectSeparatedPoints: true, highlightCircleSize: 4, animatedZooms: false, yRangePad: 6, xRangePad: 4,
      rollPeriod: smooth ? smoothing() : 1, logscale: logarithmic && logarithms(), underlayCallback: drawMarks,
      xlabel: steps ? "step" : "", xLabelHeight: steps ? 16 : 0,
      zoomCallback: (from, to) => steps && zoom(chart, [from, to]),
      ...(steps ? { dateWindow: stepWindow } : {}), ...options,
      axes: {
        x: { valueFormatter: (x) => (steps ? `step ${count(x)}` : short(x)), axisLabelFormatter: (x) => count(x), pixelsPerLabel: 70,
             ...(options.axes || {}).x },
        y: { valueFormatter: axis, axisLabelFormatter: axis, axisLabelWidth: 56, pixelsPerLabel: 34, ...(options.axes || {}).y },
      },
    });
    labelsDiv.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const series = Number(button.dataset.series);
      chart.graph.setVisibility(series, !chart.graph.visibility()[series]);
    });
    charts.push(chart);
  }

  // From the first to the last step of all runs, or the zoomed range.
  const allSteps = data.runs.flatMap((run) => [...(run.steps.step || []), ...(run.evals.step || [])]);
  const [firstStep, lastStep] = allSteps.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
  const margin = 0.01 * Math.max(1, lastStep - firstStep);
  const allOfIt = [firstStep - margin, lastStep + margin];
  let stepWindow = allOfIt;
  function zoom(origin, window) {
    const extremes = origin.graph.xAxisExtremes();
    stepWindow = window[0] <= extremes[0] && window[1] >= extremes[1] ? allOfIt : window;
    update("steps", { dateWindow: stepWindow });
  }

  const smoothingSelect = make("select", { id: "smoothing" },
    ...[1, 3, 10, 30, 100].map((n) => make("option", { value: n }, n === 1 ? "none" : `mean of ${n} points`)));
  const logarithmsBox = make("input", { type: "checkbox", id: "logarithms" });
  const smoothing = () => Number(smoothingSelect.value);
  const logarithms = () => logarithmsBox.checked;
  smoothingSelect.addEventListener("change", () => update("smooth", { rollPeriod: smoothing() }));
  logarithmsBox.addEventListener("change", () => update("logarithmic", { logscale: logarithms() }));

  // Does not create plots, because a canvas that is created during printing stays blank.
  const restyle = () => charts.forEach((chart) => chart.graph.updateOptions(chart.style()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  const onPaper = (paper) => {
    document.documentElement.classList.toggle("paper", paper);
    restyle();
  };
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));

  // ---- Runs ----

  // The shortest names that distinguish the runs, usually those of their directories.
  function nameRuns(runs) {
    const parts = runs.map((run) => run.name.split("/").filter((part) => part && part !== "."));
    const ends = (n) => parts.map((p) => p.slice(-n).join("/"));
    const distinct = (names) => new Set(names).size === names.length;
    const stems = parts.map((p) => (p.length > 1 && /^metrics\.jsonl?$/.test(p[p.length - 1]) ? p[p.length - 2] : p[p.length - 1]));
    if (distinct(stems)) return stems.map((name) => name.replace(/\.jsonl$/, ""));
    const longest = Math.max(...parts.map((p) => p.length));
    for (let n = 2; n <= longest; ++n) if (distinct(ends(n))) return ends(n);
    return runs.map((run, i) => `${run.name} (${i + 1})`);
  }

  // ---- Events ----

  const markColours = { resume: "series-6", nonfinite: "bad", straggler: "warn", diagnosis: "warn", stuck_head: "warn", checkpoint: "other", done: "good", start: "good", restart: "bad", failure: "bad" };
  const eventNames = { resume: "resumed", nonfinite: "step skipped", diagnosis: "hardly learns", stuck_head: "head does not learn", restart: "failed, restarted", failure: "failed" };
  const marked = ["resume", "nonfinite", "straggler", "diagnosis", "stuck_head"];
  const swatch = (name) => make("span", { class: "swatch", style: `background:var(--${name})` });

  // The fields of an event that have no column. Commands may add such fields.
  function eventText(event) {
    if (event.reason || event.what) return event.reason || event.what;
    return Object.entries(event)
      .filter(([key]) => !["event", "step", "time"].includes(key))
      .map(([key, value]) => {
        if (key === "path") return String(value);
        if (key === "seconds") return duration(value);
        if (key.endsWith("_seconds") && isNumber(value)) return `${key.slice(0, -8).replaceAll("_", " ")} ${duration(value)}`;
        return `${key.replaceAll("_", " ")} ${isNumber(value) ? short(value) : JSON.stringify(value)}`;
      }).join(", ");
  }

  function stateOf(run) {
    const last = run.events[run.events.length - 1];
    if (last && last.event === "done") return ["done", "good"];
    if (last && last.event === "failure") return ["failed", "bad"];
    if (!run.run && !run.steps.step) return ["evaluation", "good"];
    return [data.reload_seconds > 0 ? "running" : "not finished", "warn"];
  }

  function best(run) {
    const { step = [], top1 = [], top5 = [] } = run.evals;
    const at = top1.indexOf(Math.max(...top1.filter(isNumber)));
    return at < 0 ? null : { step: step[at], top1: top1[at], top5: top5[at] };
  }

  function describeRun(run, i) {
    const { steps, config = {}, run: how = {} } = run;
    const last = (values) => (values && values.length ? values[values.length - 1] : null);
    const [state, mood] = stateOf(run);
    const top = best(run);
    const replaced = (event, i) => run.events.slice(i).some((later) => later.event === "resume" && later.step < event.step);
    const skipped = run.events.filter((event, i) => event.event === "nonfinite" && !replaced(event, i)).length;
    const sessions = 1 + run.events.filter((event) => event.event === "resume").length;
    const step = last(steps.step) ?? last(run.evals.step) ?? 0;
    const tile = (value, label) => make("div", { class: "tile" }, make("b", {}, value), make("span", {}, label));
    const tiles = [
      top && tile(percent(top.top1), `best top-1, at ${count(top.step)}`),
      steps.loss ? tile(isNumber(last(steps.loss)) ? short(last(steps.loss)) : "not finite", "last loss") : null,
      steps.images_per_second ? tile(short(median(steps.images_per_second)), "median images/s") : null,
      tile(count(step), how.total_steps ? `of ${count(how.total_steps)} steps` : "steps"),
      run.last_time > run.first_time ? tile(duration(run.last_time - run.first_time), sessions > 1 ? `${sessions} sessions` : "start to end") : null,
    ];
    const facts = [
      ["Model", config.model && `${config.model}${how.parameters ? `, ${count(how.parameters)} parameters` : ""}, ${config.image_size} px, ${count(config.num_classes)} classes`],
      ["Data", how.data && `${how.data}: ${count(how.samples)} samples${how.eval_samples ? `, ${count(how.eval_samples)} to evaluate on` : ""}`],
      ["Ranks", how.ranks && `${how.ranks}, each with ${how.device}, ${how.precision}`],
      ["Training", how.optimizer && `${how.optimizer}, ${count(how.global_batch)} images per step, learning rate ${how.lr} (${how.lr_schedule}), seed ${how.seed}`],
      ["Flags", how.flags && String(how.flags).split(/ (?=--)/).flatMap((flag) => [make("span", { class: "flag" }, flag), " "])],
      ["Top-5", top && isNumber(top.top5) && percent(top.top5)],
      ["Skipped", skipped && `${skipped} steps whose loss or gradients were not finite`],
      ["Repeated", run.repeated && `${run.repeated} logged steps after resuming; shown once`],
      ["Started", run.first_time && date(run.first_time)],
      ["File", run.name],
    ].filter(([, text]) => text);
    return make("section", { class: "card run" },
      make("h3", {}, swatch(seriesColour(i)), names[i],
        make("span", { class: "state", style: `color:var(--${mood})` }, state)),
      make("div", { class: "tiles" }, ...tiles),
      make("dl", {}, ...facts.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, ...(Array.isArray(text) ? text : [String(text)]))])));
  }

  // One curve per run that has this column.
  const overRuns = (group, key) =>
    table(data.runs.flatMap((run, i) => (run[group][key] ? [curve(run, group, key, names[i], seriesColour(i))] : [])));

  const points = { drawPoints: true, pointSize: 3 };
  const headName = (key) => key.replace(/^loss_/, "");

  function addLosses(parent, marks) {
    const keys = [...new Set(data.runs.flatMap((run) => Object.keys(run.steps)))].filter((key) => key.startsWith("loss_"));
    const switches = { smooth: true, logarithmic: true, marks };
    if (data.runs.length > 1) {
      addChart(parent, { title: "Loss", note: "in training, weighted sum over the heads", ...overRuns("steps", "loss"), ...switches });
      if (keys.length > 1)
        for (const key of keys) addChart(parent, { title: `Loss of head ${headName(key)}`, note: "in training", ...overRuns("steps", key), ...switches });
      if (data.runs.some((run) => run.evals.loss))
        addChart(parent, { title: "Loss in evaluation", ...overRuns("evals", "loss"), ...switches, options: points, smooth: false });
      return;
    }
    const [run] = data.runs;
    const curves = keys.length > 1
      ? [curve(run, "steps", "loss", "all heads, weighted"), ...keys.map((key) => curve(run, "steps", key, headName(key)))]
      : [curve(run, "steps", "loss", "training")];
    const options = {};
    if (run.evals.loss) {
      curves.push(curve(run, "evals", "loss", "evaluation"));
      options.series = { evaluation: { ...points, strokePattern: [5, 3] } };
    }
    addChart(parent, { title: "Loss", note: keys.length > 1 ? "of each head, and their weighted sum" : "", ...table(curves), options, ...switches });
  }

  function addAccuracies(parent, marks) {
    const inPercent = (rows) => rows.map(([x, ...ys]) => [x, ...ys.map((y) => (y === null ? null : 100 * y))]);
    const add = (title, note, curves) =>
      addChart(parent, { title, note, ...curves, rows: inPercent(curves.rows), axis: percentAxis, options: points, marks });
    if (data.runs.length > 1) {
      add("Top-1 accuracy", "in evaluation", overRuns("evals", "top1"));
      add("Top-5 accuracy", "in evaluation", overRuns("evals", "top5"));
    } else {
      const [run] = data.runs;
      add("Accuracy", `over ${count(run.evals.count[run.evals.count.length - 1])} images`,
        table([curve(run, "evals", "top1", "top-1"), curve(run, "evals", "top5", "top-5")]));
    }
  }

  // Of the stages of one network.
  function addDiagnoses(parent, run, i, marks) {
    const curves = (prefix) => table(Object.keys(run.diagnoses).filter((key) => key.startsWith(prefix))
      .map((key) => curve(run, "diagnoses", key, key.slice(prefix.length))));
    const of = data.runs.length > 1 ? `: ${names[i]}` : "";
    addChart(parent, { title: `Gradients${of}`, note: "norm over that of the weights", ...curves("gradient_"), logarithmic: true, options: points, marks });
    const dead = curves("dead_");
    if (dead.labels.length > 1)
      addChart(parent, { title: `Dead ReLUs${of}`, note: "channels without a gradient in a step", ...dead,
                         rows: dead.rows.map(([x, ...ys]) => [x, ...ys.map((y) => (y === null ? null : 100 * y))]),
                         axis: percentAxis, options: { ...points, includeZero: true }, marks });
  }

  // The parts of a stack of times, from bottom to top.
  const splitKeys = [["compute_ms", "compute", "compute"], ["comm_exposed_ms", "exposed communication", "communication"],
                     ["peer_wait_ms", "waiting for peers", "peers"], ["data_wait_ms", "waiting for data", "data"], ["other_ms", "other", "other"]];

  function addSplit(parent, run, i, marks) {
    // dygraphs stacks the first series on top of the last.
    const keys = splitKeys.filter(([key]) => run.steps[key]).reverse();
    addChart(parent, {
      title: data.runs.length > 1 ? `Time of a step: ${names[i]}` : "Time of a step", note: "milliseconds, of rank 0", marks, smooth: true,
      ...table(keys.map(([key, label, name]) => curve(run, "steps", key, label, name))),
      options: { stackedGraph: true, fillAlpha: 0.75, strokeWidth: 0.5, includeZero: true },
      axis: milliseconds,
    });
  }

  function addEvents(parent) {
    const rows = data.runs.flatMap((run, i) => run.events.map((event) => ({ run, i, event })));
    rows.sort((a, b) => (a.event.time || 0) - (b.event.time || 0));
    const cell = (kind, ...content) => make("td", { class: kind }, ...content);
    const headings = ["Time", "Step", "What", ""];
    if (data.runs.length > 1) headings.splice(2, 0, "Run");
    const lines = rows.map(({ run, i, event }) => make("tr", {},
      cell("number", event.time ? `+${duration(event.time - run.first_time)}` : ""), cell("number", event.step === undefined ? "" : count(event.step)),
      ...(data.runs.length > 1 ? [cell("what", names[i])] : []),
      cell("what", swatch(markColours[event.event] || "other"), ` ${eventNames[event.event] || event.event}`), cell("", eventText(event))));
    parent.append(make("h2", {}, "Events"), make("div", { class: "card scroll" },
      make("table", {}, make("thead", {}, make("tr", {}, ...headings.map((h, i) => make("th", { class: i < 2 ? "number" : "" }, h)))), make("tbody", {}, ...lines))));
  }

  function addRuns() {
    report.append(make("div", { class: "runs" }, ...data.runs.map(describeRun)));
    report.append(make("div", { class: "bar quiet" },
      make("label", {}, "Smoothing ", smoothingSelect), make("label", {}, logarithmsBox, " logarithmic loss"),
      "Drag to zoom. Double-click to reset the zoom. Click a name to hide its curve."));
    const area = make("div", { class: "charts" });
    report.append(area);
    const marksOf = (runs) => runs.flatMap((run) => run.events).filter((event) => marked.includes(event.event));
    const marks = marksOf(data.runs);
    if (data.runs.some((run) => run.steps.loss)) addLosses(area, marks);
    if (data.runs.some((run) => run.evals.top1)) addAccuracies(area, marks);
    if (data.runs.some((run) => run.steps.images_per_second))
      addChart(area, { title: "Throughput", note: "images per second, of all ranks", ...overRuns("steps", "images_per_second"), smooth: true, marks, options: { includeZero: true } });
    data.runs.forEach((run, i) => { if (run.steps.compute_ms) addSplit(area, run, i, marksOf([run])); });
    data.runs.forEach((run, i) => { if (run.diagnoses.step) addDiagnoses(area, run, i, marksOf([run])); });
    if (data.runs.some((run) => run.steps.lr)) addChart(area, { title: "Learning rate", ...overRuns("steps", "lr"), marks });
    if (marks.length > 0)
      report.append(make("p", { class: "quiet" }, "Marks: ", ...marked.filter((kind) => marks.some((m) => m.event === kind))
        .flatMap((kind) => [swatch(markColours[kind]), ` ${eventNames[kind] || kind}  `])));
    addEvents(report);
  }

  // ---- Scaling studies ----

  // One bar per row, as high as the sum of the stack so far. Lower parts are drawn over it.
  function barPlotter({ drawingContext: context, dygraph, points: bars, color }) {
    const width = Math.min(60, 0.6 * (dygraph.toDomXCoord(1) - dygraph.toDomXCoord(0)));
    const base = dygraph.toDomYCoord(0);
    context.fillStyle = color;
    for (const bar of bars) context.fillRect(bar.canvasx - width / 2, bar.canvasy, width, base - bar.canvasy);
  }

  // With few runs an interval may extend below 0, which a logarithmic axis cannot show.
  const interval = ({ median: middle, ci95: [low, high] }) => [Math.max(low, middle / 10), middle, high];

  // Comparable points: weak scaling with the same images per rank, or strong scaling with the same batch.
  function groupsOf(study) {
    const predicted = (study.predictions || []).map((p) => ({ kind: "weak", ranks: p.ranks, global_batch: p.global_batch, predicted: p.images_per_second }));
    const groups = new Map();
    for (const point of [...study.points, ...predicted]) {
      const weak = point.kind === "weak";
      const title = weak ? `Weak scaling, ${count(point.global_batch / point.ranks)} images per rank` : `Strong scaling, ${count(point.global_batch)} images per step`;
      groups.set(title, [...(groups.get(title) || []), point]);
    }
    return [...groups].filter(([, group]) => group.some((p) => p.images_per_second));
  }

  function addStudy(study, title, group) {
    const all = group.sort((a, b) => a.ranks - b.ranks);
    const measured = all.filter((p) => p.images_per_second);
    const area = make("div", { class: "charts three" });
    report.append(make("h2", {}, title, " ", make("span", { class: "quiet" }, study.name)), area);
    const one = measured[0].images_per_second.median / measured[0].ranks;
    // Ranks on a logarithmic axis, with labels at the points.
    const log2 = Math.log2;
    const ranksAxis = {
      axes: { x: { ticker: () => all.map((p) => ({ v: log2(p.ranks), label: count(p.ranks) })), valueFormatter: (x) => `${count(2 ** x)} ranks` } },
      xlabel: "ranks", xLabelHeight: 16, customBars: true, ...points, includeZero: false,
    };
    const exact = (value) => (isNumber(value) ? [value, value, value] : null);
    const colours = ["series-1", "other", "series-2"];
    const curves = (scale) => all.map((p) => [
      log2(p.ranks), p.images_per_second ? interval(p.images_per_second).map((v) => v * scale(p)) : null,
      exact(one * p.ranks * scale(p)), exact(p.predicted === undefined ? null : p.predicted * scale(p))]);
    const labels = ["ranks", "measured, 95 % interval", "ideal", "predicted"];
    const series = { ideal: { strokePattern: [6, 4], drawPoints: false }, predicted: { strokePattern: [2, 3] } };
    addChart(area, { title: "Throughput", note: "images per second; both axes logarithmic", labels, rows: curves(() => 1), colours, steps: false,
                     options: { ...ranksAxis, logscale: true, series } });
    addChart(area, { title: "Efficiency", note: "share of the ideal throughput", labels, rows: curves((p) => 100 / (one * p.ranks)), colours, steps: false,
                     axis: percentAxis, options: { ...ranksAxis, includeZero: true, series } });
    const keys = splitKeys.filter(([key]) => measured.some((p) => isNumber(p[key]))).reverse();
    if (keys.length === 0) return;
    addChart(area, {
      title: "Time of a step", note: "milliseconds", steps: false, axis: milliseconds, colours: keys.map(([, , name]) => name),
      labels: ["ranks", ...keys.map(([, label]) => label)], rows: measured.map((p, i) => [i, ...keys.map(([key]) => p[key] || 0)]),
      options: { stackedGraph: true, includeZero: true, plotter: barPlotter, dateWindow: [-0.6, measured.length - 0.4], xlabel: "ranks", xLabelHeight: 16,
                 axes: { x: { ticker: () => measured.map((p, i) => ({ v: i, label: count(p.ranks) })), valueFormatter: (i) => `${count(measured[Math.round(i)].ranks)} ranks` } } },
    });
  }

  // ---- The whole page ----

  if (data.reload_seconds > 0) setTimeout(() => location.reload(), 1000 * data.reload_seconds);
  const names = nameRuns(data.runs);
  const title = data.runs.length === 1 ? names[0] : data.runs.length > 1 ? `${data.runs.length} runs` : data.evaluations.length > 0 ? "Evaluation" : "Scaling";
  document.title = `${title} · deeper`;
  const last = Math.max(0, ...data.runs.map((run) => run.last_time || 0));
  report.append(make("header", {}, make("h1", {}, title),
    make("span", { class: "quiet" }, `deeper ${data.version}${last ? ` · as of ${date(last)}` : ""}${data.reload_seconds ? ` · live, every ${data.reload_seconds} s` : ""}`)));
  for (const warning of data.warnings) report.append(make("div", { class: "card warning" }, warning));
  if (data.runs.length > 0) addRuns();
  data.evaluations.forEach(addEvaluation);
  for (const study of data.studies)
    for (const [title, group] of groupsOf(study)) addStudy(study, title, group);

