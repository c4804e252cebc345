"""Words on a picture, in the first font at hand that has all of their letters."""

from collections.abc import Iterator

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
INSTALLED = ("DejaVuSans.ttf", "segoeui.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-zenhei.ttc", "wqy-microhei.ttc",
             "msyh.ttc", "malgun.ttf", "Hiragino Sans GB.ttc", "Arial Unicode.ttf")  # of Linux, Windows and macOS, in whose folders Pillow looks
IN_NO_FONT = "\U0010ffff"  # drawn as the sign for a missing letter
LIGHT, DARK = (255, 255, 255), (0, 0, 0)


def font_for(text: str, size: int) -> Font:
    """Pillow's own font, which has ASCII and is the same everywhere, or else an installed one with all letters of `text`; `size` in pixels.

    ValueError that names the letters which no single font has.
    """
    letters = sorted({letter for letter in text if not letter.isspace()})
    missing = letters
    for font in _fonts(size):
        missing = min((missing, [letter for letter in letters if not _has(font, letter)]), key=len)
        if not missing:
            return font
    raise ValueError(f"captions has letters that no font here can draw: {' '.join(missing)}. Write it in ASCII, or install a font that has them and "
                     "start ComfyUI again: Noto Sans CJK has nearly all.")


def shortened(text: str, font: Font, width: int) -> str:
    """The text, cut where it is longer than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def write(canvas: ImageDraw.ImageDraw, text: str, place: tuple[int, int], font: Font) -> None:
    """Light letters with a dark rim, which stand out from any picture; `place` is their lower left corner (x, y)."""
    canvas.text(place, text, LIGHT, font, anchor="ld", stroke_width=2, stroke_fill=DARK)


def _fonts(size: int) -> Iterator[Font]:
    yield ImageFont.load_default(size)
    for name in INSTALLED:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:  # not installed
            continue
        yield font


def _has(font: Font, letter: str) -> bool:
    return _glyph(font, letter) != _glyph(font, IN_NO_FONT)


def _glyph(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
