"""How quality.html looks, in the light and in the dark."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1d2430; --soft: #667085; --line: #e3e7ed;
  --s1: #1b6ca8; --s2: #e08e45; --s3: #5b8c5a; --s4: #b4bac4; --ok: #2e7d4f; --info: #5b6b84; --watch: #a35c00;
  --alarm: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b2129; --ink: #e6e9ee; --soft: #98a2b3;
  --line: #2d3541; --s1: #4f9fdb; --s2: #eda35e; --s3: #7fb37d; --s4: #5a6472; --ok: #2e7d4f; --info: #4b5a72;
  --watch: #a35c00; --alarm: #b3261e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { margin: 0; font-size: 28px; } h2 { margin: 36px 0 10px; font-size: 19px; } h3 { margin: 0; font-size: 15px; }
header p, figcaption p { margin: 2px 0; color: var(--soft); } figcaption p { font-size: 13px; }
.verdict { margin: 14px 0 0; padding: 0; list-style: none; color: var(--ink) !important; }
.verdict li { margin: 5px 0; }
.headline { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0 12px; }
.headline div, figure, table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.headline div { flex: 1 1 130px; padding: 12px 16px; }
.headline b { display: block; font-size: 20px; line-height: 1.3; white-space: nowrap; }
.headline span { color: var(--soft); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 12px; }
figure { margin: 0; padding: 14px 16px 8px; display: flex; flex-direction: column; justify-content: space-between; }
.wide { grid-column: 1 / -1; }
figure > svg { width: 100%; height: auto; margin-top: 8px; overflow: visible; }
.legend span { margin-right: 16px; white-space: nowrap; }
.legend svg { width: 10px; height: 10px; margin-right: 5px; }
svg text { fill: var(--soft); font-size: 11px; font-family: system-ui, sans-serif; }
svg .axis { font-size: 11.5px; }
.grid, .tick { stroke: var(--line); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); }
.s4 { fill: var(--s4); } g:hover rect { opacity: .75; } .area { opacity: .18; }
.line { fill: none; stroke: var(--s1); stroke-width: 2; } .equal { stroke: var(--soft); stroke-dasharray: 4 4; }
.spot { fill: transparent; } .spot:hover { fill: var(--s1); }
table { width: 100%; border-spacing: 0; padding: 6px 8px; }
td, th { padding: 6px 8px; text-align: left; vertical-align: top; font-weight: normal; }
th { color: var(--soft); font-size: 13px; } tr + tr td { border-top: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { width: 34%; vertical-align: middle; } .bar svg { display: block; width: 100%; height: 10px; }
.checks td:first-child { width: 96px; } .checks td:nth-child(2) { width: 34%; }
.checks td:nth-child(4) { color: var(--soft); width: 32%; font-size: 13px; }
.badge { display: inline-block; padding: 1px 8px; border-radius: 9px; color: #fff; font-size: 11px;
  white-space: nowrap; }
.badge.ok { background: var(--ok); } .badge.info { background: var(--info); } .badge.watch { background: var(--watch); }
.badge.alarm { background: var(--alarm); }
"""
