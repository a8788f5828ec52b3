"""Times as text: moments for programs, durations for people, no more exact than an estimate is."""

import datetime as dt

MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds


def iso(moment: dt.datetime) -> str:
    """A moment to the second, with its offset from UTC."""
    return moment.isoformat(timespec="seconds")


def in_words(seconds: float) -> str:
    """A few seconds, 40 seconds, 6 minutes, 2 hours 10 minutes, 3 days."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 95:
        return f"{round(seconds / 10) * 10} seconds"
    minutes = round(seconds / MINUTE)
    if minutes < 100:
        return f"{minutes} minutes"
    if seconds >= 2 * DAY:
        return f"{round(seconds / DAY)} days"
    hours, rest = divmod(round(minutes / 10) * 10, 60)
    return f"{hours} hour{'s' * (hours > 1)}" + (f" {rest} minutes" if rest else "")


def about(seconds: float) -> str:
    """The same of an estimate."""
    text = in_words(seconds)
    return text if text.startswith("a few") else f"about {text}"
