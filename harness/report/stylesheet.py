"""What the report adds to the style of all pages."""

STYLE = """
main{max-width:1160px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
.lead{font-size:1.35rem;line-height:1.4;max-width:46em;margin:0 0 .5rem;text-wrap:pretty}
.ground{max-width:62em;margin:0 0 1rem;text-wrap:pretty}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin-top:1.4rem;font-size:.9rem}
nav a{color:var(--muted);text-decoration:none;padding:.25rem 0}
nav a:hover{color:var(--link);text-decoration:underline}
td a,:is(.lead,.ground,.findings,h3) a{color:inherit;text-decoration:underline 1px var(--muted)}
td a{text-decoration-style:dotted}
td a:hover,:is(.lead,.ground,.findings,h3) a:hover{color:var(--link);
text-decoration-color:var(--link)}
.rank{color:var(--muted);font-weight:400;width:1.5rem}
th button{all:unset;cursor:pointer;line-height:1.2}
th button:focus-visible{outline:2px solid var(--link);outline-offset:3px}
td small{color:var(--muted)}
th small{display:block;font-weight:400;color:var(--muted);font-size:.8em;min-height:1.2em}
th[aria-sort] button{text-decoration:underline;text-underline-offset:3px}
th[aria-sort=ascending] button::after{content:" ↑"}
th[aria-sort=descending] button::after{content:" ↓"}
.sortable tbody tr:hover{background:var(--tint)}
.why{white-space:normal;min-width:16rem;color:var(--muted)}
.open{color:var(--warn);font-weight:600}
.findings{padding:0;margin:0 0 1.2rem;list-style:none;max-width:62em}
.findings li{padding:.3rem 0;text-wrap:pretty}
.bar{min-width:130px}
.interval{width:120px;height:14px;vertical-align:-2px;stroke:var(--ink);stroke-width:1.6;
fill:var(--ink)}
.interval .zero{stroke:var(--muted);stroke-width:1;stroke-dasharray:2 2}
.narrow,.tabs .legend,.one .legend{display:none}
.tablist{display:inline-flex;flex-wrap:wrap;border-bottom:1px solid var(--grid)}
.tablist label{padding:.3rem .9rem;cursor:pointer;color:var(--muted);margin-bottom:-1px;
border-bottom:2px solid transparent}
.panel{display:none}
.tabs input:nth-of-type(1):checked~.panel:nth-of-type(2),
.tabs input:nth-of-type(2):checked~.panel:nth-of-type(3),
.tabs input:nth-of-type(3):checked~.panel:nth-of-type(4),
.tabs input:nth-of-type(4):checked~.panel:nth-of-type(5){display:block}
.tabs input:nth-of-type(1):checked~.tablist label:nth-of-type(1),
.tabs input:nth-of-type(2):checked~.tablist label:nth-of-type(2),
.tabs input:nth-of-type(3):checked~.tablist label:nth-of-type(3),
.tabs input:nth-of-type(4):checked~.tablist label:nth-of-type(4){color:var(--ink);
font-weight:600;border-bottom-color:var(--ink)}
.tabs input{position:absolute;opacity:0}
.tabs input:focus-visible~.tablist{outline:2px solid var(--link);outline-offset:3px}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1.4rem}
figcaption{color:var(--muted);font-size:.85rem;padding-left:.6rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,280px),1fr));gap:1.2rem}
.cards h3{margin:0}.cards .caption{margin:0}
details{border-bottom:1px solid var(--grid)}
summary{cursor:pointer;padding:.55rem 0;font-size:.95rem}
details>:last-child{margin-bottom:1rem}
.config div{scroll-margin-top:3rem}
.config div:target{outline:2px solid var(--link);outline-offset:6px}
mark{background:none;color:inherit;font-weight:700}
.folders{font-size:.875rem;padding:0;margin:0;list-style:none;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1.2rem;font-size:.9rem;margin:0}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:760px){main{padding-top:1.4rem}.lead{font-size:1.12rem}
nav a{padding:.4rem 0}
.wide{display:none}.narrow{display:block}.tabs .legend,.one .legend{display:flex}
.sortable .rank{display:none}th,td{padding:.4rem .5rem}
.sortable .rank+*,.sortable tr>:first-child:not(.rank){position:sticky;left:0;padding-left:0;
background:var(--paper)}
.sortable td:first-child,.sortable .rank+td{min-width:8.2rem;max-width:12rem;white-space:normal;
overflow-wrap:break-word}}
@media print{nav,.tablist{display:none}.panel{display:block}
main{max-width:none}pre{max-height:none}
figure,article,tr{break-inside:avoid}h2,h3{break-after:avoid}}
"""

# What is folded away must open where a link leads into it, and on paper.
UNFOLD_SCRIPT = """
const reveal = () => document.getElementById(location.hash.slice(1))?.closest("details")
  ?.setAttribute("open", "");
addEventListener("hashchange", reveal);
reveal();
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
"""
