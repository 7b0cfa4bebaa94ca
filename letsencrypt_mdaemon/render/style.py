"""The style sheet of a report: light and dark, for a screen and for A4."""

STYLE = """
:root {
  color-scheme: light dark;
  --back: #fff; --text: #1b1f24; --soft: #545d68; --line: #c9d1d9; --band: #f3f5f8;
  --link: #0b57b0; --ok: #1a6b34; --warning: #8a5300; --critical: #b3181c;
  --unknown: #5a3d99; --bar: #2a6f97;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14181d; --text: #e6e9ed; --soft: #a8b1bc; --line: #3a434e; --band: #1d232a;
    --link: #8ab8ff; --ok: #6fd08c; --warning: #f0b45a; --critical: #ff8f8a;
    --unknown: #c4a8ff; --bar: #6db3dc;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 100rem; background: var(--back);
  color: var(--text); font: 1rem/1.45 "Segoe UI", system-ui, sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: 0 0 .5rem; color: var(--soft); }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
[tabindex="-1"]:focus { outline: none; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--back); padding: .25rem .5rem; }
.counts { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; list-style: none;
  margin: .75rem 0 0; padding: 0; font-size: 1.1rem; }
.verdict { white-space: nowrap; }
.ok { color: var(--ok); }
.warning { color: var(--warning); }
.critical { color: var(--critical); }
.unknown { color: var(--unknown); }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: var(--soft); padding: 0 0 .4rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem;
  border-bottom: 1px solid var(--line); }
thead th { background: var(--band); white-space: nowrap; }
tbody th { font-weight: 600; min-width: 8em; }
td:nth-child(n+4):nth-child(-n+7) .value { white-space: nowrap; }
td:nth-child(3) { min-width: 11em; }
td:nth-child(9) { min-width: 15em; }
.label { display: none; }
small { display: block; color: var(--soft); }
.bar { width: 8rem; height: .6rem; vertical-align: baseline; fill: var(--bar); }
.bar.expiries { fill: var(--critical); }
details { border-bottom: 1px solid var(--line); }
summary { padding: .5rem .25rem; cursor: pointer; }
details > div { padding: 0 .25rem 1rem 1.25rem; }
dl { margin: 0 0 1rem; }
dl > div { display: grid; grid-template-columns: 11rem 1fr; gap: 0 1rem;
  padding: .15rem 0; }
dt { color: var(--soft); }
dd { margin: 0; grid-column: 2; }
@media screen and (max-width: 64rem) {
  table, tbody, tr, th, td { display: block; }
  caption { display: block; }
  thead { position: absolute; left: -100rem; }
  tbody tr { border: 1px solid var(--line); border-radius: .4rem; margin: 0 0 .75rem;
    padding: .4rem 0; }
  th, td { border: 0; padding: .2rem .75rem; display: grid;
    grid-template-columns: 6.5rem 1fr; gap: 0 .5rem; }
  .label { display: block; color: var(--soft); font-weight: 400; }
  td.empty { display: none; }
  tbody th, td:nth-child(3), td:nth-child(9) { min-width: 0; }
  dl > div { grid-template-columns: 1fr; }
  dd { grid-column: 1; }
}
@page { size: A4 landscape; margin: 12mm; }
@media print {
  :root { --back: #fff; --text: #000; --soft: #333; --line: #999; --band: #eee;
    --link: #000; --ok: #1a6b34; --warning: #8a5300; --critical: #b3181c;
    --unknown: #5a3d99; --bar: #2a6f97; }
  body { padding: 0; max-width: none; font-size: 8.5pt; }
  th, td { padding: .2rem .4rem; }
  h1 { font-size: 14pt; }
  h2 { font-size: 11pt; }
  .counts { font-size: 10pt; }
  thead { display: table-header-group; }
  tr, summary { break-inside: avoid; }
  a { text-decoration: none; }
  .skip, details:not([open]) { display: none; }
  #details:not(:has([open])) { display: none; }
}
"""
