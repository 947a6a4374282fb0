// Charts over time.

import { el, svg } from "./elements.js";
import { table } from "./parts.js";

/** A chart over time. `series` are `{name, kind, values}`, with null for an unknown value; `format` makes a value a text;
 *  `stacked` draws bars. */
export function chart(title, times, series, format, stacked = false) {
  const width = 600, height = 120, step = width / Math.max(1, times.length - (stacked ? 0 : 1));
  const sums = times.map((_, i) => series.reduce((sum, one) => stacked ? sum + (one.values[i] ?? 0) : Math.max(sum, one.values[i] ?? 0), 0));
  const top = niceTop(Math.max(0, ...sums));
  const y = (value) => height - value / top * height;
  const grid = [0.25, 0.5, 0.75].map((part) => svg("line", { class: "grid", x1: 0, x2: width, y1: height * part, y2: height * part }));
  const shownValue = (value) => value == null ? "–" : format(value);
  // Each minute shows its values as a title when the pointer is on it.
  const slot = width / Math.max(1, times.length);
  const minutes = times.map((at, i) => svg("g", {},
    svg("title", {}, `${at}: ${series.map((one) => `${one.name} ${shownValue(one.values[i])}`).join(", ")}`),
    svg("rect", { class: "hit", x: i * slot, y: 0, width: slot, height }), stacked && bars(i)));
  const marks = [minutes, !stacked && series.map((one) => lines(one))];
  function bars(i) {
    let base = 0;
    return series.map((one) => {
      const value = one.values[i] ?? 0;
      base += value;
      return value > 0 && svg("rect", { class: one.kind, x: i * step + step * 0.1, y: y(base), width: step * 0.8, height: value / top * height });
    });
  }
  function lines(one) {
    const parts = [];
    let path = "", drawn = 0;
    const end = (i) => {
      // A single point is drawn as a short line.
      if (drawn === 1) path += `h${-step / 2}`;
      if (path) parts.push(svg("path", { class: one.kind, d: path }));
      path = "";
      drawn = 0;
    };
    one.values.forEach((value, i) => {
      if (value == null) return end(i);
      path += `${drawn ? "L" : "M"}${(i * step).toFixed(1)} ${y(value).toFixed(1)}`;
      drawn += 1;
    });
    end(one.values.length);
    return parts;
  }
  const last = (values) => values.findLast((value) => value != null);
  const summary = series.map((one) => {
    const known = one.values.filter((value) => value != null);
    return known.length ? `${one.name}: last ${format(last(known))}, maximum ${format(Math.max(...known))}` : `${one.name}: no values`;
  }).join("; ");
  return el("figure", {},
    el("figcaption", {}, el("span", {}, title), el("span", { class: "legend" }, series.map((one) => el("span", { class: one.kind }, one.name)))),
    el("div", { class: "plot" },
      el("span", { class: "top" }, format(top)),
      svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}. ${summary}.` }, grid, marks)),
    el("div", { class: "axis" }, el("span", {}, times[0]), el("span", {}, times.at(-1))),
    asTable());
  /** The values as a table, newest first, without the minutes that have only zeros. */
  function asTable() {
    const rows = times.map((at, i) => [at, ...series.map((one) => one.values[i])])
      .filter(([, ...values]) => values.some((value) => value)).reverse();
    return el("details", {}, el("summary", { "aria-label": `${title} as a table` }, "Table"),
      el("div", { class: "figures", tabindex: 0, role: "region", "aria-label": `${title}, minute by minute` },
        table(title, [["Minute"], ...series.map((one) => [one.name, "n"])],
          rows.map(([at, ...values]) => [at, ...values.map(shownValue)]), "Nothing in the last hour.", rows.map(([at]) => at))));
  }
}

/** The smallest of 1, 2, 5, 10, 20, .. that is not below the value. */
function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value);
}
