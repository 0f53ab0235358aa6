  // ---- Evaluations ----

  // {label, samples, right, takenFor, mistaken}: by label, and the most frequent wrong class and its number.
  function classesOf({ confusion }) {
    const classes = new Map();
    for (const [label, predicted, samples] of confusion) {
      const row = classes.get(label) || { label, samples: 0, right: 0, takenFor: null, mistaken: 0 };
      classes.set(label, row);
      row.samples += samples;
      if (predicted === label) row.right = samples;
      else if (samples > row.mistaken) [row.takenFor, row.mistaken] = [predicted, samples];
    }
    return [...classes.values()];
  }

  const nameOfClass = (evaluation, label) => evaluation.classes[label] || `class ${label}`;
  const shade = (share) => `background:color-mix(in srgb, var(--series-1) ${(100 * share).toFixed(1)}%, transparent)`;
  const heading = (text, kind = "") => make("th", { class: kind }, text);

  function addClasses(parent, evaluation, classes) {
    const rows = [...classes].sort((a, b) => a.right / a.samples - b.right / b.samples).map((row) => make("tr", {},
      make("td", { class: "what" }, nameOfClass(evaluation, row.label)),
      make("td", { class: "number" }, count(row.samples)),
      make("td", { class: "number" }, percent(row.right / row.samples)),
      make("td", {}, row.takenFor === null ? "" : `${nameOfClass(evaluation, row.takenFor)}, ${percent(row.mistaken / row.samples)}`)));
    const head = make("tr", {}, heading("Class"), heading("Images", "number"), heading("Top-1", "number"), heading("Most often taken for"));
    parent.append(make("div", { class: "card scroll tall" }, make("h3", {}, "Classes, least accurate first"),
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
  }

  const mostOfMatrix = 30; // classes; a larger matrix is not readable
  function addMatrix(parent, evaluation, classes) {
    const counts = new Map(evaluation.confusion.map(([label, predicted, samples]) => [`${label} ${predicted}`, samples]));
    const labels = [...new Set(evaluation.confusion.flatMap(([label, predicted]) => [label, predicted]))].sort((a, b) => a - b);
    if (labels.length > mostOfMatrix) return;
    const samples = new Map(classes.map((row) => [row.label, row.samples]));
    const name = (label) => nameOfClass(evaluation, label);
    const cell = (label, predicted) => {
      const n = counts.get(`${label} ${predicted}`) || 0;
      const share = n / (samples.get(label) || 1);
      return make("td", { class: "number", style: shade(0.7 * Math.sqrt(share)), title: `${name(label)} taken for ${name(predicted)}: ${percent(share)}` },
        n ? count(n) : "");
    };
    const head = make("tr", {}, heading("label, predicted"), ...labels.map((label) => heading(name(label), "number")));
    const rows = labels.map((label) => make("tr", {}, heading(name(label), "what"), ...labels.map((predicted) => cell(label, predicted))));
    parent.append(make("div", { class: "card scroll" }, make("h3", {}, "Confusion matrix"),
      make("table", { class: "matrix" }, make("thead", {}, head), make("tbody", {}, ...rows))));
  }

  function addMistakes(parent, evaluation) {
    if (evaluation.mistakes.length === 0) return;
    const pictures = evaluation.mistakes.map((mistake) => make("div", { class: "mistake", title: mistake.name },
      make("img", { src: `data:image/jpeg;base64,${mistake.jpeg}`, alt: mistake.name }),
      make("b", {}, `${nameOfClass(evaluation, mistake.predicted)}, ${percent(mistake.probability)}`),
      make("span", { class: "quiet" }, `label: ${nameOfClass(evaluation, mistake.label)}`)));
    parent.append(make("div", { class: "card" }, make("h3", {}, "The most confident mistakes"), make("div", { class: "mistakes" }, ...pictures)));
  }

  function addEvaluation(evaluation) {
    const e = evaluation;
    const facts = [`top-1 ${percent(e.top1)}, top-5 ${percent(e.top5)}, loss ${short(e.loss)} over ${count(e.count)} images of split ${e.split}`,
                   `${e.model}: ${e.weights}, step ${count(e.step)}`, ...(e.tta === "none" ? [] : [`test-time augmentation: ${e.tta}`])];
    const area = make("div", { class: "evaluation" }, ...facts.map((fact) => make("div", {}, fact)));
    report.append(make("h2", {}, "Evaluation ", make("span", { class: "quiet" }, e.name)), area);
    const classes = classesOf(e);
    addClasses(area, e, classes);
    addMatrix(area, e, classes);
    addMistakes(area, e);
  }
