"""Text that came from elsewhere, made safe to show: a site's reason must not steer the reader's terminal."""


def printable(text: str) -> str:
    """Return text with every character that does not print (escape codes, line ends) as a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
