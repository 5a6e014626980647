// SPDX-License-Identifier: Apache-2.0
#include "common/web/page.h"

namespace sallyport::page {

absl::string_view StyleSheet() {  // NOLINT(readability-function-size): one literal.
  return R"css(:root {
  color-scheme: light dark;
  --canvas: #f3f5f3; --surface: #fff; --sunken: #f8f9f8; --hover: #f1f3f1; --press: #e7eae7;
  --line: #e1e5e1; --line-strong: #c8cfc9; --line-input: #868f89;
  --ink: #151b18; --ink-2: #444e48; --ink-3: #5f6a64; --act: #1a221e; --act-hover: #303b35; --on-act: #fff;
  --one: #1c58a6; --one-soft: #eaf1fa; --two: #8b2c69; --two-soft: #f9edf4;
  --ok: #17693a; --ok-soft: #e7f4ec; --warn: #7a5000; --warn-soft: #fcf3dc; --warn-line: #e6cd8f;
  --bad: #b0241c; --bad-soft: #fcedeb; --bad-line: #ecbcb7; --focus: #1c58a6;
  --shadow: 0 1px 2px rgb(21 27 24 / .06), 0 24px 48px -32px rgb(21 27 24 / .2);
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) { :root {
  --canvas: #0c0f0e; --surface: #131716; --sunken: #101413; --hover: #1b211f; --press: #232a27;
  --line: #252c29; --line-strong: #3a4440; --line-input: #6f7a74;
  --ink: #eaefec; --ink-2: #b6c0ba; --ink-3: #8f9a94; --act: #e8edea; --act-hover: #fff; --on-act: #101413;
  --one: #8ab8f5; --one-soft: #14233a; --two: #ea9dcb; --two-soft: #321a2a;
  --ok: #74d198; --ok-soft: #11291b; --warn: #e9c069; --warn-soft: #2c230d; --warn-line: #5c4a1d;
  --bad: #f6958d; --bad-soft: #351614; --bad-line: #6d2f2a; --focus: #8ab8f5;
  --shadow: 0 1px 2px rgb(0 0 0 / .4), 0 24px 48px -32px rgb(0 0 0 / .8);
} }
*, *::before, *::after { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; grid-template-rows: 1fr auto; justify-items: center;
  padding: 24px 16px 20px; background: var(--canvas); color: var(--ink); font: .875rem/1.25rem var(--sans); }
h1, p, ul, dl, dd, pre, fieldset { margin: 0; padding: 0; }
ul { list-style: none; }
fieldset { border: 0; min-width: 0; }
a { color: inherit; text-decoration-color: var(--line-strong); text-underline-offset: 3px; }
a:hover { text-decoration-color: currentColor; }
code, pre { font: .78125rem/1.25rem var(--mono); font-variant-ligatures: none; overflow-wrap: anywhere; }
button, input { font: inherit; color: inherit; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
svg { display: block; flex: none; }
.i { width: 16px; height: 16px; fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linecap: round;
  stroke-linejoin: round; }
.room { align-self: center; width: 100%; max-width: 440px; }
.room.wide { max-width: 520px; }
.passage { width: 100%; height: 88px; margin-bottom: 14px; overflow: visible; }
.passage .w { stroke: var(--line-strong); stroke-width: 2; fill: none; }
.passage .way { stroke: var(--ink-3); stroke-width: 1.25; stroke-dasharray: 1.5 5; stroke-linecap: round; }
.passage .closed { stroke: var(--ink-3); stroke-width: 3; }
.passage .l1 { stroke: var(--one); stroke-width: 3; fill: none; }
.passage .l2 { stroke: var(--two); stroke-width: 3; fill: none; }
.passage .a1 { stroke: var(--one); fill: var(--one-soft); }
.passage .a2 { stroke: var(--two); fill: var(--two-soft); }
.passage .you { fill: var(--ink); stroke: var(--canvas); stroke-width: 3; }
.passage text { font: 500 11px var(--sans); fill: var(--ink-3); }
.card { background: var(--surface); border: 1px solid var(--line); border-radius: 14px; box-shadow: var(--shadow);
  padding: 28px 30px 26px; overflow-wrap: anywhere; }
h1 { font: 600 1.375rem/1.75rem var(--sans); letter-spacing: -.016em; text-wrap: balance; }
.lead { color: var(--ink-2); margin-top: 6px; }
.stack { display: grid; gap: 16px; margin-top: 20px; }
.stack .stack { margin-top: 0; }
.tight { gap: 8px; }
.muted { color: var(--ink-3); }
.small { font: .8125rem/1.25rem var(--sans); }
.tiny { font: .75rem/1rem var(--sans); }
.center { text-align: center; justify-self: center; }
.btn { display: flex; align-items: center; justify-content: center; gap: 8px; min-height: 42px; padding: 6px 14px;
  border: 1px solid var(--line-strong); border-radius: 6px; background: var(--surface); font-weight: 500;
  text-decoration: none; cursor: pointer; }
.btn:hover { background: var(--hover); }
.btn:active { background: var(--press); }
.btn.wide { width: 100%; }
.btn.primary { background: var(--act); border-color: var(--act); color: var(--on-act); }
.btn.primary:hover { background: var(--act-hover); border-color: var(--act-hover); }
.btn.quiet { border-color: transparent; background: transparent; color: var(--ink-2); }
.idp { justify-content: flex-start; gap: 12px; }
.idp .i { color: var(--ink-3); }
.idp .last { margin-left: auto; font: .75rem/1rem var(--sans); color: var(--ink-3); }
.or { display: flex; align-items: center; gap: 12px; color: var(--ink-3); font: .75rem/1rem var(--sans); }
.or::before, .or::after { content: ""; height: 1px; background: var(--line); flex: 1; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
.whoami { display: flex; align-items: center; gap: 10px; padding: 10px 12px; border: 1px solid var(--line);
  border-radius: 8px; background: var(--sunken); font: .8125rem/1.25rem var(--sans); }
.whoami small { display: block; color: var(--ink-3); font: .75rem/1rem var(--sans); }
.whoami a { margin-left: auto; white-space: nowrap; }
.face { width: 28px; height: 28px; border-radius: 50%; background: var(--press); color: var(--ink-2); display: grid;
  place-items: center; font: 600 .6875rem/1 var(--sans); flex: none; }
.facts { display: grid; grid-template-columns: 132px minmax(0, 1fr); gap: 9px 16px; }
.facts dt { color: var(--ink-3); font: .8125rem/1.25rem var(--sans); }
.host { font-weight: 600; }
.may { display: grid; gap: 8px; }
.may li { display: grid; grid-template-columns: 18px minmax(0, 1fr); gap: 9px; }
.may .i { margin-top: 2px; color: var(--ink-2); }
.note { padding: 11px 14px; border: 1px solid var(--line); border-radius: 8px; background: var(--sunken);
  color: var(--ink-2); font: .8125rem/1.25rem var(--sans); }
.note b { color: var(--ink); font-weight: 600; }
.note.ok { background: var(--ok-soft); border-color: transparent; color: var(--ink); }
.note.warn { background: var(--warn-soft); border-color: var(--warn-line); color: var(--ink); }
.note.bad { background: var(--bad-soft); border-color: var(--bad-line); color: var(--ink); }
.field { display: grid; gap: 4px; }
.field label { font-weight: 500; }
.pick { display: flex; gap: 10px; padding: 10px 12px; border: 1px solid var(--line); border-radius: 8px; cursor: pointer; }
.pick:hover { background: var(--hover); }
.pick input { margin: 3px 0 0; accent-color: var(--act); flex: none; }
.input { width: 100%; height: 38px; padding: 0 10px; border: 1px solid var(--line-input); border-radius: 6px;
  background: var(--surface); }
.input:focus { outline: 2px solid var(--focus); outline-offset: -1px; border-color: var(--focus); }
.input[aria-invalid="true"] { border-color: var(--bad); }
.code { border: 1px solid var(--line); border-radius: 8px; background: var(--sunken); padding: 11px 12px;
  white-space: pre-wrap; color: var(--ink-2); }
hr { border: 0; border-top: 1px solid var(--line); margin: 20px 0; }
footer { display: flex; gap: 8px; align-items: center; padding-top: 20px; color: var(--ink-3);
  font: .75rem/1rem var(--sans); }
footer svg { width: 16px; height: 16px; fill: currentColor; }
@media (max-width: 760px) {
  body { grid-template-rows: auto auto; align-content: start; padding: 12px 12px 16px; }
  .card { padding: 22px 20px 20px; }
  .facts { grid-template-columns: minmax(0, 1fr); gap: 1px; }
  .facts dd { margin-bottom: 10px; }
}
@media (forced-colors: active) { .btn, .note, .input { border: 1px solid; } }
)css";
}

}  // namespace sallyport::page
