"""The tags of a page of HTML, found by one regular expression that RE2 runs as an automaton: a step a byte, whatever the page is made of.

It is the tokenizer of https://html.spec.whatwg.org/multipage/parsing.html#tokenization without what it makes of names and values. An
automaton knows no lookahead and no "first try this": so every part is written such that one reading alone is possible, and where a part
may not be something, that is spelled out (``_names_except``, ``_text_without``).

Pages are bytes, of UTF-8 or of another encoding that has ASCII's characters in ASCII's places, and only there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from string import ascii_letters

import re2

SPACE = r"\t\n\f\r "

# -- from the name of a tag to its end -------------------------------------------------------------------------------------------------

_VALUE = rf"""(?:"[^"]*"|'[^']*'|[^{SPACE}>"'][^{SPACE}>]*[{SPACE}])"""
# Names without values, and the space after them: only the first of them may begin with "=".
_NAMES = rf"[^{SPACE}/>][^{SPACE}/>=]*(?:[{SPACE}]+[^{SPACE}/>=][^{SPACE}/>=]*)*[{SPACE}]*"
_ATTRIBUTES = rf"[{SPACE}/]*(?:{_NAMES}(?:/|=[{SPACE}]*{_VALUE})[{SPACE}/]*)*"
_END = rf"""(?:>|[{SPACE}/]{_ATTRIBUTES}(?:>|{_NAMES}(?:>|=[{SPACE}]*(?:[^{SPACE}>"'][^{SPACE}>]*)?>)))"""

# -- comments --------------------------------------------------------------------------------------------------------------------------

# Two dashes that begin no end of the comment, with what shows it.
_DASHES = r"--(?:-|!--)*(?:[^-!>]|![^->]|!-[^-])"
_COMMENT_END = r"--(?:-|!--)*!?>"
_COMMENT = rf"!--(?:-?>|(?:[^->]|-[^->]|{_DASHES})(?:[^-]|-[^-]|{_DASHES})*{_COMMENT_END}|{_COMMENT_END})"
_BOGUS_COMMENT = r"(?:!(?:-?>|[^->\[][^>]*>|-[^->][^>]*>)|\?[^>]*>|/(?:[^a-zA-Z>][^>]*)?>)"


def _either(*parts: str) -> str:
    return f"(?:{'|'.join(parts)})"


def _names_except(names: Collection[str]) -> str:
    """Any name of a tag but these, which are in lower case."""

    def go_on(rests: list[str], others: str) -> str:
        """What may come where these rests of names would still make one of them."""
        heads = sorted({rest[0] for rest in rests if rest})
        known = [f"(?i:{head}){go_on([rest[1:] for rest in rests if rest[:1] == head], '')}" for head in heads]
        other = f"[{others}]" if others else rf"[^{SPACE}/>{''.join(heads + [head.upper() for head in heads])}]"
        found = _either(*known, rf"{other}[^{SPACE}/>]*")
        return found if "" in rests or others else f"{found}?"

    heads = {name[0] for name in names}
    return go_on(sorted(names), "".join(letter for letter in ascii_letters if letter.lower() not in heads))


def _text_without(*words: str) -> str:
    """Any text in which none of these words stands, which begin with "<" and are in lower case; up to a "<" that may begin one of them.

    Each of these is told by the character in which it differs from the words: ``<``, ``</``, ``</s`` …
    """
    begun = sorted({word[:n] for word in words for n in range(1, len(word))})
    letters = {text: {word[len(text)] for word in words if word.startswith(text)} for text in begun}
    # A word that is whole but for the end of its name: it is none if the name goes on.
    ends = {word: SPACE + "/>" for word in words if word[-1].isalpha()}
    following = {**{text: "".join(re.escape(c + c.upper()) for c in sorted(found)) for text, found in letters.items()}, **ends}
    broken_off = f"(?i:{'|'.join(sorted({*begun, *ends}))})"
    other = _either(*(f"(?i:{text})[^<{stop}]" for text, stop in sorted(following.items())))
    return f"(?:[^<]|{broken_off}*{other})*{broken_off}*"


#: Tags that matter: images and the base; what is not part of the page; SVG, where other rules hold.
_NAMED = frozenset({"base", "image", "img", "plaintext", "svg", "template"})
_ENDED = frozenset({"svg", "template"})
_FIGURES = frozenset({"figcaption", "figure"})
#: Elements whose content is no markup, and the one of them that may have comments, within which its end is none.
RAW = frozenset({"iframe", "noembed", "noframes", "style", "textarea", "title", "xmp"})
SCRIPT = "script"


@cache
def tag_scanner(*, figures: bool, foreign: bool) -> re2.Pattern:
    """Matches, from any place that is no part of a tag, up to the next tag that matters and the one character behind its name; or up to
    the ``[`` of ``<![``; or to the ``<!--`` of a script that has one. Elements whose content is no markup are passed over, but in
    ``foreign`` ones (SVG) they matter, since there they may end where they begin. With ``figures`` these and their captions matter too."""
    named, ended = ({*names, *(_FIGURES if figures else ())} for names in (_NAMED, _ENDED))
    raw = [f"(?i:{name}){_END}{_text_without(f'</{name}')}</(?i:{name}){_END}" for name in sorted(RAW)]
    script = f"(?i:{SCRIPT}){_END}{_text_without(f'</{SCRIPT}', '<!--')}"
    passed = [
        f"{_names_except({*named, *RAW, SCRIPT})}{_END}",
        f"/{_names_except(ended)}{_END}",
        _COMMENT,
        _BOGUS_COMMENT,
        "[^<a-zA-Z!?/]",
    ]
    noticed = [f"/(?i:{'|'.join(sorted(ended))})[{SPACE}/>]", r"!\["]
    if foreign:
        named |= {*RAW, SCRIPT}
    else:
        passed += [*raw, f"{script}</(?i:{SCRIPT}){_END}"]
        noticed.append(f"{script}<!--")
    noticed.append(f"(?i:{'|'.join(sorted(named))})[{SPACE}/>]")
    return re2.compile(f"(?:[^<]|<+{_either(*passed)})*?<+{_either(*noticed)}".encode())


#: A tag or a comment, or what begins one that does not end; the first group holds its name if it ends a line.
MARKUP = re2.compile(
    (
        rf"<(?:/?(?:((?i:address|br|div|dd|dt|h[1-6]|hr|li|p|t[dhr]))|[a-zA-Z][^{SPACE}/>]*){_END}|{_COMMENT}|{_BOGUS_COMMENT}"
        r"|[a-zA-Z/!?](?s:.*))"
    ).encode()
)
