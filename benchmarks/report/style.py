"""The report's style sheet. Colours are after Okabe and Ito's palette, which colour-blind eyes can tell apart."""

STYLE = """
:root{color-scheme:light dark;--bg:#fbfaf8;--panel:#fff;--ink:#1d1f24;--soft:#5a6068;--line:#e2e0da;--accent:#0b5d8f;
--c0:#0072b2;--c1:#c8501a;--c2:#00805c;--c3:#9a6fb0;--c4:#8a6d00;--c5:#1b8fc4;--c6:#b0306a;--c7:#555}
@media (prefers-color-scheme:dark){:root{--bg:#14161a;--panel:#1c1f25;--ink:#e8e6e1;--soft:#a5abb4;--line:#31363f;
--accent:#7cc4f0;--c0:#56b4e9;--c1:#f08a4b;--c2:#3fc79a;--c3:#cc9fe0;--c4:#e8c534;--c5:#9ad8ff;--c6:#ee86b4;--c7:#b8b8b8}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1000px;margin:0 auto;padding:2.2rem 1.1rem 4rem}
.brand{margin:0;color:var(--accent);font-size:.8rem;font-weight:650;letter-spacing:.08em;text-transform:uppercase}
h1{margin:.1rem 0 .3rem;font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;overflow-wrap:anywhere}
h2{margin:2.6rem 0 .7rem;font-size:1.25rem;line-height:1.25}
h3{margin:0 0 .4rem;font-size:1rem;font-weight:600}
p{margin:.5rem 0;max-width:68ch}
.what,.note{color:var(--soft)}.note{font-size:.9rem}
.headline{margin:1.1rem 0;padding:1rem 1.2rem;max-width:none;background:var(--panel);border:1px solid var(--line);
border-left:4px solid var(--accent);border-radius:6px;font-size:1.12rem;line-height:1.5}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(135px,1fr));gap:.7rem;margin:1rem 0 0;padding:0}
.tiles div{padding:.65rem .85rem;background:var(--panel);border:1px solid var(--line);border-radius:6px}
.tiles dt{color:var(--soft);font-size:.8rem}
.tiles dd{margin:0;font-size:1.05rem;font-weight:600;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin:.7rem 0;background:var(--panel);border:1px solid var(--line);border-radius:6px}
table{width:100%;border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{padding:.65rem .85rem .35rem;color:var(--soft);font-size:.85rem;text-align:left}
th,td{padding:.42rem .85rem;text-align:left;border-top:1px solid var(--line);vertical-align:top}
thead th{border-top:0;color:var(--soft);font-size:.8rem;font-weight:600;white-space:nowrap}
.keep{white-space:nowrap}tbody th{font-weight:600}.num{text-align:right;white-space:nowrap}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:1rem}
figure{margin:0;padding:.9rem .9rem .6rem;max-width:640px;background:var(--panel);border:1px solid var(--line);
border-radius:6px}
figure>svg{display:block;width:100%;height:auto}
figcaption{margin:0 0 .3rem;font-weight:600}
.wide{max-width:none}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;margin:.3rem 0 0;padding:0;list-style:none;font-size:.85rem}
.legend li{display:flex;align-items:center;gap:.4rem;overflow-wrap:anywhere}
.legend.long{max-height:9.5rem;overflow-y:auto;border-top:1px solid var(--line);padding-top:.4rem}
.key{flex:none;width:34px;height:12px}
svg text{fill:var(--ink);font-family:inherit}.tick{font-size:12px;fill:var(--soft)}svg .tick{fill:var(--soft)}
.label{font-size:12.5px}.name{font-size:13px}.grid{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--soft);stroke-width:1}.halo{paint-order:stroke;stroke:var(--panel);stroke-width:4px;stroke-linejoin:round}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.band{opacity:.16}
.reference{stroke-width:1.5;stroke-dasharray:3 4}.ring{fill:var(--panel);stroke-width:2}.seed{opacity:.55}
.shade{fill:var(--c);stroke:var(--panel)}.cell{font-size:11px}.cell.on{fill:var(--bg)}svg .cell.on{fill:var(--bg)}
.bar{fill:var(--c);fill-opacity:.82}.error{stroke:var(--ink);stroke-width:1.2;stroke-opacity:.75}
.diagonal{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:3 4}.spike{stroke:var(--c);stroke-width:1.6;fill:none}
.pixels{image-rendering:pixelated}.lost{fill:var(--line)}
.whisker{stroke-width:2.5;stroke-linecap:round}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}
.c6{--c:var(--c6)}.c7{--c:var(--c7)}
.line,.reference,.ring,.whisker{stroke:var(--c)}.dot,.band{fill:var(--c)}
thead button{padding:0;border:0;background:none;color:inherit;font:inherit;text-align:inherit;cursor:pointer}
thead button::after{content:"\\2195";margin-left:.35em;opacity:.45}
[aria-sort=ascending] button::after{content:"\\2191";opacity:1}
[aria-sort=descending] button::after{content:"\\2193";opacity:1}
thead button:focus-visible,.tools input:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.tools{display:flex;flex-wrap:wrap;gap:.3rem 1rem;margin:.9rem 0 -.3rem;color:var(--soft);font-size:.9rem}
.tools input{max-width:100%;padding:.25rem .5rem;background:var(--panel);color:var(--ink);border:1px solid var(--line);
border-radius:4px;font:inherit}
.alike{stroke:var(--ink)}
details{margin:.5rem 0;background:var(--panel);border:1px solid var(--line);border-radius:6px}
details>*:not(summary){margin-left:1rem;margin-right:1rem}
summary{padding:.6rem .9rem;cursor:pointer;font-weight:600;overflow-wrap:anywhere}
summary:focus-visible,.scroll:focus-visible,pre:focus-visible{outline:3px solid var(--accent);outline-offset:1px}
.facts{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.15rem 1rem;margin-bottom:1rem}
.facts dt,.facts dd{font-size:.88rem;overflow-wrap:anywhere}.facts dt{color:var(--soft)}.facts dd{margin:0}
details h3{margin-top:.6rem}
pre{overflow-x:auto;padding:.8rem 1rem;background:var(--panel);border:1px solid var(--line);border-radius:6px}
pre code{font-size:.88rem}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
dl.how dt{margin-top:.6rem;font-weight:600}dl.how dd{margin:0;max-width:68ch}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
@media (max-width:560px){.facts{grid-template-columns:1fr}.facts dd{margin-bottom:.35rem}th,td{padding:.4rem .6rem}
main{padding-top:1.3rem}
svg .tick{font-size:14.5px}svg .label,svg .name{font-size:15.5px}
figure{padding:.6rem .4rem .5rem}figcaption{padding:0 .4rem}.legend{padding:0 .4rem}}
@media print{:root{color-scheme:light;--bg:#fff;--panel:#fff;--ink:#000;--soft:#444;--line:#ccc;--accent:#0b5d8f;
--c0:#0072b2;--c1:#c8501a;--c2:#00805c;--c3:#9a6fb0;--c4:#8a6d00;--c5:#1b8fc4;--c6:#b0306a;--c7:#555}
main{max-width:none;padding:0}.tools,thead button::after{display:none}
.scroll,.legend.long,pre{overflow:visible;max-height:none}
table{font-size:.75rem}th,td{padding:.3rem .35rem}thead th{font-size:.68rem}
details>*:not(summary){margin-left:0;margin-right:0}
thead th,thead .num,.keep{white-space:normal}thead th{overflow-wrap:anywhere}
pre{white-space:pre-wrap}figure,tr,.tiles div{break-inside:avoid}h2,h3{break-after:avoid}}
"""
