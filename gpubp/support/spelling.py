"""Text for an output whose encoding lacks some of its characters, such as δ in cp1252 or ASCII."""

from __future__ import annotations

import codecs
import unicodedata

NAME = "gpubp.spelling"  # of the handler among those of Python's codecs
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "η": "eta", "λ": "lambda", "μ": "mu",
    "π": "pi", "σ": "sigma", "Δ": "Delta", "Σ": "Sigma",
}  # fmt: skip
_SIGNS = _GREEK | {
    "−": "-", "–": "-", "—": "-", "─": "-", "│": "|", "×": "x", "·": "*", "⊙": ".*", "⁄": "/", "√": "sqrt ",
    "±": "+-", "≤": "<=", "≥": ">=", "→": "->", "←": "<-", "∂": "d", "∇": "grad ", "‖": "||", "′": "'",
    "°": " degrees", "\u0302": "^",
    **dict.fromkeys("▏▎▍▌▋▊▉█", "#"),
}  # fmt: skip
_TABLE = str.maketrans(_SIGNS)


def spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Spell out what cannot be encoded: δ as delta, W² as W^2, ≤ as <=, and letters of other scripts as escapes."""
    assert isinstance(error, UnicodeEncodeError)
    if (
        "\udc80" <= error.object[error.start] <= "\udcff"
    ):  # a byte of a file's name that Python could not decode
        return bytes([ord(error.object[error.start]) - 0xDC00]), error.start + 1
    text, raised = "", False
    for character in error.object[error.start : error.end]:
        above = unicodedata.decomposition(character).startswith("<super>")
        spelt = unicodedata.normalize("NFKC", character).translate(_TABLE)
        text += ("^" if above and not raised else "") + spelt.encode("ascii", "backslashreplace").decode()
        raised = above
    return text, error.end


codecs.register_error(NAME, spell)
