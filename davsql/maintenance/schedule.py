"""When something is to happen: `hourly`, `daily`, `weekly`, or five fields of cron in local time."""

from __future__ import annotations

from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

_WORDS = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0"}
_FIELDS = 5
_SLACK = timedelta(minutes=1)  # clocks are set back a little all the time


class Schedule:
    """Moments that come again and again."""

    def __init__(self, text: str) -> None:
        """Args: text: `daily`, or `30 3 * * 1-5`; see crontab(5).

        Raises:
            ValueError: it cannot be understood, or never happens.
        """
        self._expression = _WORDS.get(text.strip().lower(), text)
        remedy = "expected hourly, daily, weekly or five fields of cron such as '30 3 * * *'"
        if len(self._expression.split()) != _FIELDS:
            raise ValueError(f"{remedy}, found {text!r}")
        try:
            next(CronSim(self._expression, datetime(2000, 1, 1)))  # noqa: DTZ001  # on the clock, wherever it is
        except CronSimError as error:
            raise ValueError(f"{error}: {remedy}, found {text!r}") from error
        except StopIteration:
            raise ValueError(f"{text!r} never happens") from None

    def is_due(self, now: datetime, last: datetime | None) -> bool:
        """True when one of the moments has come since `last`, and when there is no last time.

        Both are looked at as the local clock showed them. So when the clock is set back for winter, what was done in
        the hour that comes twice is not done again; what lies in the hour that spring leaves out is done right after.

        Args:
            now, last: with a time zone. A `last` in the future tells of a clock that was wrong, and of nothing else.
        """
        if last is None or last > now + _SLACK:
            return True
        local_last = last.astimezone().replace(tzinfo=None)
        moment: datetime = next(CronSim(self._expression, local_last))
        return moment <= now.astimezone().replace(tzinfo=None)
