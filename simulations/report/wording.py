"""How names and figures are written, the same in page, plots and terminal."""

from collections.abc import Sequence

from fedcad.simulations.report.records import Interval

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
NOT_MADE = "\N{EM DASH}"

_ACRONYMS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "ece": "ECE",
    "f1": "F1",
    "ppv": "PPV",
    "npv": "NPV",
    "mcc": "MCC",
}


def shown(name: str, limit: int = 64) -> str:
    """Return a name that is safe to print: control and direction characters out, long names shortened.

    Guarantees:
        At most ``limit`` characters, all printable, so that a hostile name can neither move the cursor of
        a terminal nor reverse the text around it.
    """
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def metric_label(name: str) -> str:
    """Return ``macro_auroc`` as ``macro AUROC``."""
    return shown(" ".join(_ACRONYMS.get(word, word) for word in name.split("_")))


def metric_title(name: str) -> str:
    """Return ``macro_auroc`` as ``Macro AUROC``, for the start of a line."""
    label = metric_label(name)
    return label[:1].upper() + label[1:]


def figure(value: float, digits: int = 3) -> str:
    """Write a figure with a real minus sign; never ``-0.000``."""
    text = f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """Write a difference with its sign; zero has none."""
    text = figure(value, digits)
    return text if text.startswith(MINUS) or float(text) == 0.0 else f"+{text}"


def interval_text(interval: Interval, *, with_sign: bool = False, digits: int = 3) -> str:
    """Write an interval as ``0.812 to 0.901``; empty where there is none."""
    if interval is None:
        return ""
    write = signed if with_sign else figure
    return f"{write(interval[0], digits)} to {write(interval[1], digits)}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Write ``1 case``, ``1,204 cases``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def enumeration(items: Sequence[str], limit: int = 6) -> str:
    """Write ``a, b and c``; beyond the limit, ``a, b and 7 more``."""
    if len(items) > limit:
        rest = len(items) - (limit - 1)
        return f"{', '.join(items[: limit - 1])} and {rest} more"
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def data_size(size_bytes: float) -> str:
    """Write bytes with a decimal unit: ``3.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def duration(seconds: float) -> str:
    """Write seconds as ``41.3 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
