"""The colours of all figures and pages, light and dark, and the rules that give them to the classes of elements.

In: nothing. Out: CSS. Hues are those of Okabe and Ito ("Color Universal Design", 2008), which people with the common kinds of
colour blindness tell apart; what matters differs in pattern or shape as well.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fusec.explain.template import printed


@dataclass(frozen=True)
class Palette:
    """Colours by what they stand for."""

    page: str
    card: str
    ink: str
    muted: str
    rule: str
    accent: str
    tile: str
    halo: str
    other: str  # the neighbouring tile
    other_halo: str
    hatch: str
    hatch_ground: str
    kept: str
    kept_ground: str
    plain: str  # layer by layer, and whatever else is only there to be compared with


LIGHT = Palette(page="#fbfbfa", card="#ffffff", ink="#1b1f24", muted="#5b6470", rule="#e1e4e8", accent="#0b62a4",
                tile="#2f77b4", halo="#b9d5ec", other="#e8b04a", other_halo="#f8e3b8", hatch="#a8430a", hatch_ground="#f6cfae",
                kept="#00664d", kept_ground="#c4eadd", plain="#a9b1bb")
DARK = Palette(page="#12151a", card="#191d24", ink="#e8ebef", muted="#a3adba", rule="#2e353f", accent="#7cc0f5",
               tile="#4f9bd9", halo="#264966", other="#cf9a3c", other_halo="#574521", hatch="#ffab7a", hatch_ground="#6b3a1b",
               kept="#66dbb4", kept_ground="#17493a", plain="#6d7683")


def rules(palette: Palette) -> str:
    """The figures' style sheet."""
    return printed("figure.css.j2", **asdict(palette))
