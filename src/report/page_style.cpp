#include "page.hpp"

namespace moefy {

const std::string_view kPageStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #f4f5f8; --card: #ffffff; --ink: #1b2230; --soft: #5d6778; --line: #dfe3ea;
  --accent: #2f62d9; --accent-soft: #c9d7f8; --warm: #c8642b; --good: #1d8a5b; --bad: #c03540;
  --shadow: 0 1px 2px rgba(20, 30, 60, .06), 0 4px 16px rgba(20, 30, 60, .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151c; --card: #1a202b; --ink: #e6eaf2; --soft: #97a3b6; --line: #2c3443;
    --accent: #7ba4ff; --accent-soft: #2c4276; --warm: #f0a06a; --good: #58c795; --bad: #ff7f88;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 2px; }
.lead, .note { color: var(--soft); margin: 0; }
.note { font-size: 13px; margin-bottom: 12px; max-width: 78ch; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(12, minmax(0, 1fr)); margin-top: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  box-shadow: var(--shadow); padding: 16px 18px; grid-column: span 6; min-width: 0; }
.card.wide { grid-column: 1 / -1; }
.figures { display: grid; gap: 12px; margin-top: 22px;
  grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  box-shadow: var(--shadow); padding: 12px 14px 13px; }
.figure .label { color: var(--soft); font-size: 12.5px; }
.figure .value { font-size: 25px; font-weight: 650; letter-spacing: -.02em; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.figure .more { color: var(--soft); font-size: 12.5px; line-height: 1.35; }
.good { color: var(--good); } .bad { color: var(--bad); }
.tools { float: right; display: flex; gap: 8px; align-items: center; font-size: 13px;
  color: var(--soft); }
select { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--line);
  border-radius: 7px; padding: 3px 6px; }
svg { display: block; width: 100%; overflow: visible; }
svg text { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.axis { stroke: var(--line); } .zero { stroke: var(--soft); }
canvas { display: block; width: 100%; border-radius: 6px; cursor: crosshair; }
.scale { display: flex; align-items: center; gap: 10px; margin-top: 10px; font-size: 12.5px;
  color: var(--soft); font-variant-numeric: tabular-nums; }
.scale i { flex: 0 0 180px; height: 10px; border-radius: 5px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 12.5px; color: var(--soft);
  margin-top: 8px; }
.legend b { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; }
.scroll { overflow: auto; max-height: 560px; margin: 10px -18px -16px; border-radius: 0 0 12px 12px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { padding-left: 18px; }
th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 600;
  box-shadow: inset 0 -1px var(--line); border-bottom: 0; }
th[data-sort] { cursor: pointer; } th[data-sort]:hover { color: var(--ink); }
th.text, td.text { text-align: left; }
tbody tr:hover { background: color-mix(in srgb, var(--accent) 7%, transparent); }
.pairs td { white-space: normal; overflow-wrap: anywhere; text-align: left; vertical-align: top; }
.pairs td:first-child { color: var(--soft); white-space: nowrap; width: 1%; }
.plain { max-height: none; }
#tip { position: fixed; z-index: 9; pointer-events: none; visibility: hidden; max-width: 320px;
  background: var(--ink); color: var(--page); font-size: 12.5px; line-height: 1.45;
  padding: 7px 10px; border-radius: 8px; font-variant-numeric: tabular-nums; white-space: pre-line; }
footer { margin-top: 28px; color: var(--soft); font-size: 12.5px; }
@media (max-width: 860px) { .card { grid-column: 1 / -1; } main { padding: 18px 12px 48px; } }
@media print { body { background: none; } .card, .figure { box-shadow: none; break-inside: avoid; }
  .scroll { max-height: none; } }
)css";

}  // namespace moefy
