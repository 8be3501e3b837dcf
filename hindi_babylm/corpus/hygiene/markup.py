"""What HTML, MediaWiki and Markdown leave in text. Code between backticks is kept as written by all of them.

Possessive quantifiers (`*+`) and classes that stop at the next sign of their kind keep every expression linear in the
length of the text, also where a sign is never closed.
"""

import html
import re
from collections.abc import Callable

# Code, which is matched first and put back untouched.
_CODE = r"(?P<code>```.*?```|`[^`\n]++`)"
_LINE_START, _LINE_END = r"(?<![^\n])", r"[ \t]*+(?=\n|\Z)"

_ENTITY = re.compile(rf"{_CODE}|&(?:\#[0-9]{{1,7}}|\#[xX][0-9A-Fa-f]{{1,6}}|[A-Za-z][A-Za-z0-9]{{1,31}});", re.DOTALL)

# Elements of HTML but <s>, which is a token of many tokenizers. A name that is not here is text: <pad>, <unk>, <राम>.
_BLOCK = (
    "article aside blockquote body br center dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 head header "
    "hr html iframe li main meta nav noscript ol p pre section table tbody td tfoot th thead title tr ul"
).replace(" ", "|")
_INLINE = (
    "a abbr b bdi bdo big cite code del dfn em font i img ins kbd noinclude nowiki includeonly onlyinclude q "
    "references rp rt ruby small span strike strong sub sup tt u wbr"
).replace(" ", "|")
# Also words of placeholders, "<source> <label>": tags only with an attribute, or as the end of one.
_WORDS = (
    "audio button canvas caption col colgroup details dialog embed fieldset g input label legend link map object "
    "option param path picture samp select source summary svg template textarea time var video"
).replace(" ", "|")
_ATTRIBUTE = (
    r"""(?:\s++[A-Za-z_:@][\w:.-]*+\s*+=\s*+(?:"[^"<>]*+"|'[^'<>]*+'|[^\s"'<>=]++)"""
    r"|\s++(?:checked|disabled|hidden|selected|controls|async|defer|required|readonly|allowfullscreen|nowrap)\b)"
)
_TAG = re.compile(
    rf"{_CODE}"
    r"|<!--[^<-]*+(?:(?:<(?!!--)|-(?!->))[^<-]*+)*+-->"
    r"|<(?P<hidden>script|style)\b[^<>]*+>[^<]*+(?:<(?!/?(?:script|style)\b)[^<]*+)*+</(?P=hidden)\s*+>"
    r"|<!DOCTYPE\b[^<>]*+>|<\?xml\b[^<>]*+>"
    rf"|</?(?:(?P<block>{_BLOCK})|{_INLINE}){_ATTRIBUTE}*+\s*+/?>"
    rf"|<(?:{_WORDS}){_ATTRIBUTE}++\s*+/?>|</(?:{_WORDS})\s*+>",
    re.DOTALL | re.IGNORECASE,
)

_FILES = "file|image|media|category|चित्र|छवि|फ़ाइल|फाइल|श्रेणी|मीडिया"
_EDIT = "edit|edit source|संपादित करें|सम्पादित करें|संपादन|स्रोत संपादित करें|स्रोत सम्पादित करें|बदलें"
_NEEDED = "citation needed|clarification needed|dead link|उद्धरण चाहिए|उद्धरण आवश्यक|कृपया उद्धरण जोड़ें|मृत कड़ियाँ"
# A template has arguments; without any it is one of these, and else a placeholder: {{name}}.
_BARE = "reflist|clear|stub|toc|commons|commonscat|टिप्पणीसूची|संदर्भ|सन्दर्भ|आधार|उद्धरण आवश्यक"
_TEMPLATE = rf"\{{\{{(?:(?=[^\s{{}}|][^{{}}|]*+\||\#[a-z]++:|[A-Z]++:)[^{{}}]*+|(?i:{_BARE}) ?)\}}\}}"
_WIKI = re.compile(
    rf"{_CODE}"
    rf"| ?\([ ,;]*+(?:{_TEMPLATE}[ ,;]*+)++\)"  # templates alone in brackets take these with them
    rf"|{_TEMPLATE}"
    rf"|{_LINE_START}\{{\|[^{{\n]*+(?:(?:\{{(?!\|)|\n(?!\|\}}))[^{{\n]*+)*+\n\|\}}"
    r"|<ref\b[^<>]*+(?:(?<=/)>|>[^<>]*+</ref>)|__(?:NO)?(?:TOC|EDITSECTION|GALLERY)__|__FORCETOC__"
    rf"|\[\[(?i:{_FILES}) ?:[^\[\]\n]*+\]\]|\[\[[a-z]{{2,3}}(?:-[a-z]++)?:[^\[\]|\n]*+\]\]"
    rf"|\[(?:{_EDIT})\]|\[(?i:{_NEEDED})\]|(?<=[^\s\[(])\[(?:[Nn]ote|नोट|टिप्पणी) ?[0-9०-९]{{1,3}}\]"
    r"|(?<=[\u0900-\u097f.,;:?!\"'”’)])(?:\[[0-9०-९]{1,3}\])++(?!\()"
    r"|\[\[(?![\s\[:])(?:[^\[\]|\n]*+\|)?(?P<link>[^\[\]|\n]++)\]\]"
    r"|\[(?:https?:)?//[^\s\[\]]++(?: (?P<named>[^\[\]\n]*+))?\]"
    r"|'''(?!')(?P<bold>[^'\n]++(?:''?(?!')[^'\n]++)*+)'''(?!')"
    rf"|{_LINE_START}={{2,6}}[ \t]*+(?P<heading>[^=\n]++)={{2,6}}{_LINE_END}",
    re.DOTALL,
)
_WIKI_SIGNS = ("[", "{{", "{|", "'''", "<ref", "__", "==")

# The target of a link: an address, an anchor or a file, so that "[राम](सीता)" and "f[0](x)" are text.
_TARGET = (
    r"(?:[a-z]{2,10}://|mailto:|\.{0,2}/|\#|www\.|[\w-]++(?:\.[\w-]++)*\.[a-z]{2,5}\b)"
    r'[^()\s]*+(?:\([^()\s]*+\)[^()\s]*+)*+(?: "[^"\n]*+")?'
)
# A cell of the row under the head of a table.
_RULE_CELL = r"[ \t]*+(?::-++:?|-++:|-{3,}+)[ \t]*+"
_MARKDOWN = re.compile(
    rf"{_CODE}"
    rf"|!\[[^\[\]\n]*+\]\({_TARGET}\)"
    rf"|\[(?P<link>[^\[\]\n]++|\[[^\[\]\n]*+\])\]\({_TARGET}\)"
    r"|(?<=[^\s\[(])\[\^[\w-]{1,20}\](?!:)"
    r"|(?<![\w*])\*\*(?=[^\s*])(?P<strong>[^*\n]+)(?<=\S)\*\*(?![\w*])"
    rf"|{_LINE_START}(?:\#{{1,6}}|>(?: ?>)*+)[ \t]++(?=[^\s\#>])"
    rf"|{_LINE_START}(?:-{{3,}}+|={{3,}}+|_{{3,}}+){_LINE_END}"
    rf"|{_LINE_START}\|?{_RULE_CELL}(?:\|{_RULE_CELL})++\|?{_LINE_END}",
    re.DOTALL,
)
_MARKDOWN_SIGNS = ("](", "**", "#", ">", "[^", "---", "===", "___")


# Marks stand within marks: a template in a template, a link in a caption.
_DEPTH = 10


def entities(text: str) -> str | None:
    """Decode the entities of HTML that end in a semicolon; "AT&T" and "&copy" are text."""
    if "&" not in text or ";" not in text:
        return text
    return _mend(_ENTITY, lambda match: html.unescape(match.group()), text)


def tags(text: str) -> str | None:
    """Take away tags of HTML with their attributes, comments, scripts and styles; a block's tag ends the line.

    Only names of elements count: "</s>", "<pad>", "<|endoftext|>", "<3" and "a < b" are text.
    """
    if "<" not in text or ">" not in text:
        return text
    return _mend(_TAG, lambda match: "\n" if match["block"] else "", text)


def wiki(text: str) -> str | None:
    """Take away templates, tables, references, file links and edit marks of MediaWiki; of links keep the text."""
    if not any(sign in text for sign in _WIKI_SIGNS):
        return text
    return _mend(
        _WIKI,
        lambda match: (match["link"] or match["named"] or match["bold"] or match["heading"] or "").strip(),
        text,
    )


def markdown(text: str) -> str | None:
    """Take away images, rules, and the marks of headings, quotes, strong words and footnotes; of links keep the text.

    Bullets, single stars and underscores, rows of tables and addresses that stand by themselves are text.
    """
    if not any(sign in text for sign in _MARKDOWN_SIGNS):
        return text
    return _mend(_MARKDOWN, lambda match: match["link"] or match["strong"] or "", text)


def _mend(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str | None:
    """Replace outside of code until nothing is left; None for marks `_DEPTH` deep, which nobody writes."""
    for _ in range(_DEPTH):
        mended = pattern.sub(lambda match: match["code"] or replace(match), text)
        if mended == text:
            return text
        text = mended
    return None
