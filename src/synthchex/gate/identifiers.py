"""Who a text could name: identifiers of the public radiograph sets, of hospitals' systems, marks of de-identification.

Patterns are the published forms of each set. Those in `STRONG` mean one thing wherever they stand; the others (dates,
long numbers) are looked for only where no number of that kind belongs: prompts, names, other free text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

STRONG: dict[str, str] = {
    "MIMIC-CXR dicom_id": r"(?<![0-9a-f-])[0-9a-f]{8}(?:-[0-9a-f]{8}){4}(?![0-9a-f-])",
    "MIMIC-CXR subject": r"(?<![0-9a-z])p1\d{7}(?!\d)",
    "MIMIC-CXR study": r"(?<![0-9a-z])s5\d{7}(?!\d)",
    "CheXpert patient": r"(?<![a-z])patient\d{5}(?!\d)(?:/study\d+)?",
    "NIH ChestX-ray14 film": r"(?<!\d)\d{8}_\d{3}(?!\d)",
    "Open-i film": r"(?<![a-z])cxr\d{1,5}_im-\d{4}(?:-\d{4,5})*",
    "PadChest film": r"(?<!\d)\d{20,}_[0-9-]{6,}",
    "UUID": r"(?<![0-9a-f-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f-])",
    "DICOM UID": r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){5,}(?![\d.]*\d)",
    "path on a machine": r"(?<![\w./:)\]<-])(?<!\]\()/(?:[\w.@+-]+/)+[\w.@+-]+"
    r"|(?<!\w)[a-z]:\\(?:[\w.@+-]+\\)*[\w.@+-]+",
}
WEAK: dict[str, str] = {
    "date": r"(?<!\d)(?:(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:19|20)\d\d)(?!\d)",
    "long number": r"(?<![\w.])\d{7,}(?![\w.]*\w)",
    "VinDr-CXR film": r"(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])",
}
# As they are written, so capitals count: MIMIC-CXR's blanks, Open-i's, MIMIC-III's brackets.
MARKS = re.compile(r"_{3,}|(?<![A-Za-z])X{4,}(?![A-Za-z])|\[\*\*")
_STRONG = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in STRONG.items()}
_ALL = _STRONG | {name: re.compile(pattern, re.IGNORECASE) for name, pattern in WEAK.items()}
MARK, PATH = "mark of de-identification", "path on a machine"


def named(text: str, *, strong: bool = False) -> list[str]:
    """Kinds of identifiers that a text holds, each once.

    Args:
        text: anything.
        strong: look only for what means one thing wherever it stands, and for no marks of de-identification.
    """
    found = [kind for kind, pattern in (_STRONG if strong else _ALL).items() if pattern.search(text)]
    return found if strong or not MARKS.search(text) else [*found, MARK]


def without_folders(text: str) -> str:
    """A text in which paths on a machine are their last part."""
    return _STRONG[PATH].sub(lambda found: re.split(r"[/\\]", found[0])[-1], text)


def count(texts: Iterable[str], *, strong: bool = False) -> Mapping[str, int]:
    """How many of some texts hold each kind of identifier."""
    return Counter(kind for text in texts for kind in named(text, strong=strong))
