#include "page.hpp"

namespace moefy {

const std::string_view kPageScript = R"js(
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const layers = data.layers;
const byId = id => document.getElementById(id);
const tip = byId('tip');
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => matchMedia('(prefers-color-scheme: dark)').matches;
const known = value => value !== null && value !== undefined;
const fixed = (value, digits) => known(value) ? value.toFixed(digits) : '–';
const short = value => {
  if (!known(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
};

function showTip(event, text) {
  tip.textContent = text;
  tip.style.visibility = 'visible';
  const box = tip.getBoundingClientRect();
  const x = event.clientX + 14 + box.width > innerWidth ? event.clientX - 12 - box.width
                                                        : event.clientX + 14;
  const y = event.clientY + 16 + box.height > innerHeight ? event.clientY - 10 - box.height
                                                          : event.clientY + 16;
  tip.style.left = Math.max(4, x) + 'px';
  tip.style.top = Math.max(4, y) + 'px';
}
const hideTip = () => { tip.style.visibility = 'hidden'; };

// Colours: one ramp for values, light to dark (dark to light on a dark page).
const ramps = {
  light: [[240, 244, 252], [164, 196, 240], [84, 140, 222], [38, 84, 176], [18, 38, 96]],
  dark: [[30, 38, 54], [36, 70, 132], [58, 116, 206], [124, 172, 246], [220, 234, 255]]
};
function rampColour(t) {
  const ramp = isDark() ? ramps.dark : ramps.light;
  const at = Math.min(Math.max(t, 0), 1) * (ramp.length - 1);
  const i = Math.min(Math.floor(at), ramp.length - 2);
  const mix = k => Math.round(ramp[i][k] + (at - i) * (ramp[i + 1][k] - ramp[i][k]));
  return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
}
const depthColour = (i, n) => {
  const t = n < 2 ? 0 : i / (n - 1);
  return `hsl(${(218 + 168 * t) % 360}, ${isDark() ? 72 : 62}%, ${isDark() ? 66 : 46}%)`;
};

// Axes.
function ticks(low, high, count) {
  const span = high - low;
  const raw = span / Math.max(1, count);
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw * 0.999);
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * span; ++k) {
    out.push(+(k * step).toPrecision(12));
  }
  return out;
}
function widen(low, high, toZero) {
  if (toZero) low = Math.min(0, low);
  if (high - low < 1e-12 * Math.max(1, Math.abs(high))) {
    const pad = Math.abs(high) * 0.05 || 1;
    return [toZero ? low : low - pad, high + pad];
  }
  const pad = (high - low) * 0.06;
  return [toZero && low === 0 ? 0 : low - pad, high + pad];
}

const svgName = ['http:', '', 'www.w3.org', '2000', 'svg'].join('/');
function make(parent, tag, attributes, text) {
  const node = document.createElementNS(svgName, tag);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

// A frame with axes: x runs over integers first..last or bands, y over values.
function frame(id, options) {
  const host = byId(id);
  host.textContent = '';
  const width = Math.max(260, host.clientWidth);
  const height = options.height || 236;
  const box = { left: 56, right: width - 10, top: 10, bottom: height - 34 };
  const svg = make(host, 'svg', { viewBox: `0 0 ${width} ${height}`, height, role: 'img',
    'aria-label': options.label });
  const [low, high] = options.range;
  const y = v => box.bottom - (v - low) / (high - low) * (box.bottom - box.top);
  for (const t of ticks(low, high, 5)) {
    make(svg, 'line', { class: t === options.base ? 'zero' : 'axis', x1: box.left, x2: box.right,
      y1: y(t), y2: y(t) });
    make(svg, 'text', { x: box.left - 8, y: y(t) + 4, 'text-anchor': 'end' },
      options.format ? options.format(t) : String(t));
  }
  const count = options.count;
  const band = (box.right - box.left) / Math.max(1, options.bands ? count : count - 1);
  const x = i => box.left + (options.bands ? i + 0.5 : i) * band;
  const room = Math.floor((box.right - box.left) / 34);
  const stride = [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 200, 500]
    .find(s => count / s <= room) || count;
  for (let i = 0; i < count; i += stride) {
    make(svg, 'text', { x: x(i), y: box.bottom + 16, 'text-anchor': 'middle' }, options.name(i));
  }
  make(svg, 'text', { x: (box.left + box.right) / 2, y: height - 3, 'text-anchor': 'middle' },
    options.xLabel);
  return { svg, x, y, band, box };
}

// Hover over bands: nearest layer, one text.
function hover(chart, count, bands, text) {
  const { svg, box, band } = chart;
  const mark = make(svg, 'rect', { x: 0, y: box.top, width: bands ? band : 1,
    height: box.bottom - box.top, fill: css('--accent'), opacity: 0 });
  const area = make(svg, 'rect', { x: box.left, y: box.top, width: box.right - box.left,
    height: box.bottom - box.top, fill: 'transparent' });
  area.addEventListener('mousemove', event => {
    const rect = area.getBoundingClientRect();
    const at = (event.clientX - rect.left) / rect.width * (box.right - box.left) / band;
    const i = Math.min(count - 1, Math.max(0, bands ? Math.floor(at) : Math.round(at)));
    mark.setAttribute('x', box.left + (bands ? i * band : i * band - 0.5));
    mark.setAttribute('opacity', bands ? 0.1 : 0.6);
    showTip(event, text(i));
  });
  area.addEventListener('mouseleave', () => { mark.setAttribute('opacity', 0); hideTip(); });
}

const layerName = i => String(layers[i].index);

// Dots on stems, one a layer; optionally a second, hollow dot.
function stems(id, options) {
  const first = layers.map(options.value);
  const second = options.second ? layers.map(options.second) : [];
  const all = first.concat(second).filter(known);
  if (all.length === 0) return absent(id);
  if (known(options.base)) all.push(options.base);
  const range = widen(Math.min(...all), Math.max(...all), false);
  if (known(options.base) && Math.min(...all) === options.base) range[0] = options.base;
  const chart = frame(id, { label: options.label, range, base: options.base, count: layers.length,
    bands: true, name: layerName, xLabel: 'layer', format: options.format });
  const radius = Math.min(5, Math.max(2, chart.band * 0.28));
  const foot = chart.y(known(options.base) ? options.base : range[0]);
  first.forEach((v, i) => {
    if (!known(v)) return;
    make(chart.svg, 'line', { x1: chart.x(i), x2: chart.x(i), y1: foot, y2: chart.y(v),
      stroke: css('--accent'), 'stroke-width': Math.min(3, Math.max(1, chart.band * 0.12)),
      opacity: 0.55 });
    if (known(second[i])) {
      make(chart.svg, 'circle', { cx: chart.x(i), cy: chart.y(second[i]), r: radius,
        fill: css('--card'), stroke: css('--warm'), 'stroke-width': 1.6 });
    }
    make(chart.svg, 'circle', { cx: chart.x(i), cy: chart.y(v), r: radius, fill: css('--accent') });
  });
  hover(chart, layers.length, true, options.text);
}

function absent(id) {
  const host = byId(id);
  host.textContent = '';
  const note = document.createElement('p');
  note.className = 'note';
  note.textContent = 'The map holds no such figures.';
  host.appendChild(note);
}

function drawTraces() {
  const traces = layers.map(l => l.trace.filter(known));
  const longest = Math.max(0, ...traces.map(t => t.length));
  if (longest === 0) return absent('traces');
  const scaled = traces.map(t => t.map(v => t[0] > 0 ? v / t[0] : 1));
  const all = scaled.flat();
  const range = widen(Math.min(...all), Math.max(...all), false);
  range[1] = Math.max(1, Math.max(...all)) + (range[1] - range[0]) * 0.02;
  const chart = frame('traces', { label: 'inertia by E-step', range, count: Math.max(2, longest),
    bands: false, name: i => String(i + 1), xLabel: 'E-step', height: 270,
    format: v => String(+v.toPrecision(5)) });
  scaled.forEach((trace, i) => {
    if (trace.length === 0) return;
    const points = trace.map((v, k) => `${chart.x(k).toFixed(1)},${chart.y(v).toFixed(1)}`);
    const colour = depthColour(i, layers.length);
    make(chart.svg, 'polyline', { points: points.join(' '), fill: 'none', stroke: colour,
      'stroke-width': layers.length > 40 ? 1 : 1.5, opacity: 0.85, 'stroke-linejoin': 'round' });
    const end = trace.length - 1;
    make(chart.svg, 'circle', { cx: chart.x(end), cy: chart.y(trace[end]), r: 2.4, fill: colour });
  });
  hover(chart, longest, false, k => {
    const there = scaled.map((t, i) => [t[k], i]).filter(p => known(p[0])).sort((a, b) => a[0] - b[0]);
    if (there.length === 0) return `E-step ${k + 1}`;
    const [best, worst] = [there[0], there[there.length - 1]];
    return `E-step ${k + 1}: ${there.length} of ${layers.length} layers\n` +
      `lowest ${best[0].toFixed(4)} (layer ${layers[best[1]].index})\n` +
      `highest ${worst[0].toFixed(4)} (layer ${layers[worst[1]].index})`;
  });
  byId('traces-legend').style.background = 'linear-gradient(90deg,' +
    [0, 1, 2, 3, 4, 5, 6].map(i => depthColour(i, 7)).join(',') + ')';
}

function drawSizes() {
  const chart = frame('sizes', { label: 'expert sizes', count: layers.length, bands: true,
    range: widen(0, Math.max(1, ...layers.map(l => Math.max(...l.size, 0))), true),
    name: layerName, xLabel: 'layer' });
  const width = Math.min(16, Math.max(2, chart.band * 0.55));
  layers.forEach((l, i) => {
    const low = Math.min(...l.size), high = Math.max(...l.size);
    make(chart.svg, 'rect', { x: chart.x(i) - width / 2, y: chart.y(low), width,
      height: Math.max(0, chart.box.bottom - chart.y(low)), rx: 2, fill: css('--accent-soft') });
    make(chart.svg, 'rect', { x: chart.x(i) - width / 2, y: chart.y(high) - 1, width,
      height: Math.max(2.5, chart.y(low) - chart.y(high) + 2), rx: 1, fill: css('--accent') });
  });
  hover(chart, layers.length, true, i => {
    const l = layers[i];
    const low = Math.min(...l.size), high = Math.max(...l.size);
    return `layer ${l.index}\nsizes ${low === high ? low : low + ' to ' + high}` +
      (l.shared ? `\n${l.shared} shared neurons` : '');
  });
}

// The heat map: a canvas, one cell an expert.
const metrics = [
  ['spread', 'spread (mean squared distance to the centroid)'],
  ['size', 'size (neurons)'],
  ['price', 'price of the capacity'],
  ['norm', 'norm of the router row']
].filter(([key]) => layers.some(l => l[key] && l[key].length > 0));
let metric = metrics.length > 0 ? metrics[0][0] : 'size';

function drawHeat() {
  const canvas = byId('heat');
  const columns = Math.max(1, ...layers.map(l => l.size.length));
  const left = 34;
  const width = canvas.parentNode.clientWidth;
  const row = Math.max(7, Math.min(22, Math.round(520 / Math.max(1, layers.length))));
  const height = layers.length * row + 22;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = height + 'px';
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const cell = (width - left) / columns;
  const gap = cell > 6 && row > 8 ? 1 : 0;
  const all = layers.flatMap(l => l[metric] || []).filter(known);
  const low = all.reduce((a, b) => Math.min(a, b), Infinity);
  const high = all.reduce((a, b) => Math.max(a, b), -Infinity);
  layers.forEach((l, i) => {
    (l[metric] || []).forEach((v, e) => {
      if (!known(v)) return;
      pen.fillStyle = rampColour(high > low ? (v - low) / (high - low) : 0.5);
      pen.fillRect(left + e * cell, i * row, Math.max(0.5, cell - gap), row - gap);
    });
  });
  pen.fillStyle = css('--soft');
  pen.font = '11px system-ui, sans-serif';
  pen.textBaseline = 'middle';
  pen.textAlign = 'right';
  const step = Math.max(1, Math.ceil(14 / row));
  layers.forEach((l, i) => { if (i % step === 0) pen.fillText(l.index, left - 7, (i + .5) * row); });
  pen.textAlign = 'center';
  const every = [1, 2, 4, 8, 16, 32, 64, 128].find(s => s * cell >= 26) || 256;
  for (let e = 0; e < columns; e += every) {
    pen.fillText(e, left + (e + .5) * cell, layers.length * row + 12);
  }
  byId('heat-low').textContent = all.length ? short(low) : '';
  byId('heat-high').textContent = all.length ? short(high) : '';
  byId('heat-ramp').style.background = 'linear-gradient(90deg,' +
    [0, .25, .5, .75, 1].map(rampColour).join(',') + ')';
  canvas.onmousemove = event => {
    const box = canvas.getBoundingClientRect();
    const e = Math.floor((event.clientX - box.left - left) / cell);
    const l = layers[Math.floor((event.clientY - box.top) / row)];
    if (!l || e < 0 || e >= l.size.length) return hideTip();
    const lines = [`layer ${l.index}, expert ${e}`, `${l.size[e]} neurons`];
    if (known(l.spread[e])) lines.push(`spread ${l.spread[e].toFixed(4)}`);
    if (known(l.price[e])) lines.push(`price ${short(l.price[e])}`);
    if (known(l.norm[e])) lines.push(`router row norm ${short(l.norm[e])}`);
    showTip(event, lines.join('\n'));
  };
  canvas.onmouseleave = hideTip;
}

function drawSeconds() {
  const host = byId('seconds');
  if (!host) return;
  host.textContent = '';
  const width = Math.max(260, host.clientWidth);
  const total = data.seconds.reduce((sum, p) => sum + p[1], 0);
  const svg = make(host, 'svg', { viewBox: `0 0 ${width} 30`, height: 30, role: 'img',
    'aria-label': 'seconds by phase' });
  const legend = document.createElement('div');
  legend.className = 'legend';
  let at = 0;
  data.seconds.forEach(([phase, seconds], i) => {
    const colour = depthColour(i, data.seconds.length);
    const wide = total > 0 ? seconds / total * width : 0;
    const bar = make(svg, 'rect', { x: at, y: 2, width: Math.max(0, wide - 1), height: 26, rx: 3,
      fill: colour });
    const text = `${phase}: ${short(seconds)} s`;
    bar.addEventListener('mousemove', event =>
      showTip(event, `${text} (${(100 * seconds / total).toFixed(1)} %)`));
    bar.addEventListener('mouseleave', hideTip);
    at += wide;
    const entry = document.createElement('span');
    const swatch = document.createElement('b');
    swatch.style.background = colour;
    entry.append(swatch, text);
    legend.appendChild(entry);
  });
  host.appendChild(legend);
}

function drawAll() {
  if (layers.length === 0) return;
  drawHeat();
  drawTraces();
  stems('against-random', { label: 'inertia over random', value: l => l.overRandom,
    second: l => known(l.overRandom) && known(l.priceOfBalance) ? l.overRandom / l.priceOfBalance
                                                                : null,
    format: v => String(+v.toPrecision(5)),
    text: i => `layer ${layers[i].index}\ninertia / random ${fixed(layers[i].overRandom, 4)}\n` +
      `inertia ${short(layers[i].inertia)}, random ${short(layers[i].random)}` });
  stems('price', { label: 'price of balance', base: 0, format: v => v + ' %',
    value: l => known(l.priceOfBalance) ? 100 * (l.priceOfBalance - 1) : null,
    text: i => `layer ${layers[i].index}\nbalance costs ` +
      (known(layers[i].priceOfBalance) ? (100 * (layers[i].priceOfBalance - 1)).toFixed(3) + ' %'
                                       : '–') });
  drawSizes();
  stems('router', { label: 'mean cosine of router rows', base: 0, value: l => l.cosine,
    format: v => v.toFixed(3),
    text: i => `layer ${layers[i].index}\nmean cosine ${fixed(layers[i].cosine, 4)}\n` +
      `logit spread ${short(layers[i].logitStd)}` });
  drawSeconds();
}

const choice = byId('metric');
for (const [key, name] of metrics) choice.append(new Option(name, key));
choice.addEventListener('change', () => { metric = choice.value; drawHeat(); });

for (const head of document.querySelectorAll('th[data-sort]')) {
  head.addEventListener('click', () => {
    const table = head.closest('table');
    const at = [...head.parentNode.children].indexOf(head);
    const sign = head.dataset.sort === 'up' ? -1 : 1;
    head.dataset.sort = sign > 0 ? 'up' : 'down';
    const key = row => row.children[at].dataset.value ?? row.children[at].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = key(a), y = key(b);
      const both = x !== '' && y !== '' && !isNaN(x) && !isNaN(y);
      return sign * (both ? x - y : x.localeCompare(y));
    });
    table.tBodies[0].append(...rows);
  });
}

let waiting = 0;
addEventListener('resize', () => { cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(drawAll); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
drawAll();
)js";

}  // namespace moefy
