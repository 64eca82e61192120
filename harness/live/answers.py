"""The API of the live page: queries (GET) and commands (POST), answered as JSON."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from harness.common import contained
from harness.config.comments import summaries
from harness.live import trainings
from harness.live.curves import AXES
from harness.live.listing import SORTS, STATUS_WORDS, listing
from harness.live.trainings import Trainings
from harness.live.watch import LiveRun, LiveRuns
from harness.report.drawing.style import DASHES
from harness.runs import process

MOST_CURVES = 256
MOST_FIELDS = 2 * MOST_CURVES  # of a query
CURVES_SECONDS = 0.5  # to read on, for one answer
MOST_POINTS = 500
MOST_HISTOGRAMS = 32
MOST_OPENED = 64
# What other commands left in a run's folder, to be opened in a window of its own.
PAGES = {
    "calibration": ("calibration.html", "text/html; charset=utf-8"),
    "inside": ("inside.png", "image/png"),
}
GROUPS = ("experiment", "data", "tokenizer", "model", "optimizer", "schedule")

Query = Mapping[str, list[str]]
Order = Mapping[str, str]


class Refused(Exception):
    """A request that is answered with an HTTP error: its status and the reason."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Answers:
    """About the runs of some folders and of trainings that the page started. Each method raises
    Refused for a question without an answer. Thread-safe."""

    def __init__(self, runs: LiveRuns) -> None:
        self.runs = runs
        self._trainings = Trainings(Path.cwd())
        self._listed: list[str] = []
        self._opened: dict[str, tuple[Path, str]] = {}
        self.questions: dict[str, Callable[[Query], Any]] = {
            "/api/setup": self._setup,
            "/api/runs": self._list,
            "/api/run": self._run,
            "/api/curves": self._curves,
            "/api/histograms": self._histograms,
            "/api/training": self._training,
        }
        self.orders: dict[str, Callable[[Order], Any]] = {
            "/api/start": lambda order: self._started(trainings.split(order.get("command", ""))),
            "/api/resume": self._resume,
            "/api/stop": self._stop,
            "/api/cancel": self._cancel,
            "/api/open": self._open,
        }

    def _find(self, name: str) -> LiveRun:
        found = self.runs.get(name)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such run any more")
        return found

    # Queries

    def _setup(self, query: Query) -> Any:
        """What a page needs once."""
        return {
            "folders": [str(folder) for folder in self.runs.folders],
            "dashes": DASHES,
            "axes": AXES,
            "statuses": STATUS_WORDS,
            "choices": {group: summaries(group) for group in GROUPS},
        }

    def _list(self, query: Query) -> Any:
        """The runs that match, sorted: the first of them, and how many there are. See listing.py;
        `known`: how many runs were found, `unread` of them not read yet, and `beyond` not to be."""
        sort = query.get("sort", [None])[0]
        if sort is not None and sort not in SORTS:
            raise Refused(HTTPStatus.BAD_REQUEST, f"sort is one of {', '.join(SORTS)}")
        for folder in self._trainings.folders():
            self.runs.add(folder)
        wanted = dict.fromkeys(query.get("run", []))
        runs = self.runs.look((*wanted, *self._listed))
        cards = [run.card for run in runs if run.card is not None]
        words = query.get("words", [""])[0].casefold().split()
        up = query.get("up", ["0"])[0] == "1"
        found = listing(cards, words, sort, up, set(wanted))
        self._listed = [card["id"] for card in found["runs"]]  # these are kept up to date first
        unread = len(runs) - len(cards)
        return {**found, "known": len(runs), "unread": unread, "beyond": self.runs.beyond}

    def _run(self, query: Query) -> Any:
        run = self._find(query.get("run", [""])[0])
        metrics = self.runs.metrics(run)
        metrics.read()
        return {
            **run.details(),
            "complaint": metrics.complaint(),
            "names": metrics.names(),
            "snapshot_names": metrics.snapshot_names(),
            "pages": [name for name, (file, _) in PAGES.items() if (run.folder / file).is_file()],
        }

    def _curves(self, query: Query) -> Any:
        """For each run the requested curves, thinned, and `read`, the share of its file that is
        read. `names`: of every curve that any of these runs has."""
        names, wanted = query.get("name", []), query.get("run", [])
        if max(len(names), 1) * len(wanted) > MOST_CURVES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"more than {MOST_CURVES} curves at once")
        axis = query.get("axis", ["missing"])[0]
        if axis not in AXES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"axis is one of {', '.join(AXES)}")
        start = _number(query, "start", -math.inf)
        end = _number(query, "end", math.inf)
        answer: dict[str, Any] = {}
        every_name: dict[str, None] = {}
        for run in filter(None, map(self.runs.get, dict.fromkeys(wanted))):
            metrics = self.runs.metrics(run)
            read = metrics.read(CURVES_SECONDS / len(wanted))
            found = {name: metrics.points(name, axis, MOST_POINTS, start, end) for name in names}
            curves = {name: points for name, points in found.items() if points}
            answer[run.id] = {"read": read, "curves": curves}
            every_name |= dict.fromkeys(metrics.names())
        return {"runs": answer, "names": list(every_name)}

    def _histograms(self, query: Query) -> Any:
        names = query.get("name", [])
        if len(names) > MOST_HISTOGRAMS:
            raise Refused(HTTPStatus.BAD_REQUEST, f"more than {MOST_HISTOGRAMS} at once")
        run = self._find(query.get("run", [""])[0])
        metrics = self.runs.metrics(run)
        metrics.read()
        return {name: metrics.snapshots(name) for name in names}

    def _training(self, query: Query) -> Any:
        """The state of a training that this page started: its runs, exit code and error."""
        state = self._trainings.state(_number(query, "training", 0))
        if state is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such training")
        runs = [self.runs.add(folder).id for folder in state.pop("folders")]
        return {**state, "runs": runs}

    def page(self, name: str) -> tuple[bytes, str]:
        """A page that was opened, and its kind."""
        found = self._opened.get(name)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "open it again from its run")
        path, kind = found
        try:
            return contained.read(path), kind
        except OSError as error:
            raise Refused(HTTPStatus.NOT_FOUND, f"{path.name} can't be read: {error}") from error

    # Commands

    def _open(self, order: Order) -> Any:
        """The address of a page, which nobody else can guess: a window sends no key."""
        run = self._find(order.get("run", ""))
        if order.get("page", "") not in PAGES:
            raise Refused(HTTPStatus.NOT_FOUND, f"page is one of {', '.join(PAGES)}")
        file, kind = PAGES[order["page"]]
        name = secrets.token_urlsafe(24)
        self._opened[name] = (run.folder / file, kind)
        for old in list(self._opened)[:-MOST_OPENED]:
            self._opened.pop(old, None)
        return {"address": f"/opened/{name}"}

    def _started(self, arguments: list[str]) -> Any:
        return {"training": self._trainings.start(arguments)}

    def _resume(self, order: Order) -> Any:
        return self._started(trainings.resume(self._find(order.get("run", "")).folder))

    def _stop(self, order: Order) -> Any:
        process.stop(self._find(order.get("run", "")).folder)
        return {}

    def _cancel(self, order: Order) -> Any:
        number = order.get("training", "")
        if not (number.isascii() and number.isdigit() and self._trainings.stop(float(number))):
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such training")
        return {}


def _number(query: Query, name: str, otherwise: float) -> float:
    try:
        number = float(query.get(name, [otherwise])[0])
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is not a number")
    return number
