"""A comparison as Markdown for a pull request: counts first, then what moved, the
furthest first.
"""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.compare.changes import Finding
from leaderboard.compare.compare import Comparison, TrackComparison
from leaderboard.tables.cells import Record, cut
from leaderboard.tables.github import escape, github_table
from leaderboard.tables.rows import RowKey

SHOWN = 25  # rows of one table: a pull request's text is bounded, and the furthest come first
WIDTH = 120  # of a list of settings, or of a reason
TEXT_COLUMNS = ("model", "models", "method", "setting", "settings", "A", "B")
OTHER_VERSION = (
    "**The versions differ**, and with them rules, splits or code: this shows what changed "
    "between them; no row of one is ranked against rows of the other."
)


def page(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    a, b = comparison.a, comparison.b
    heading = (
        f"## {escape(a.name)} (A, version {escape(a.version)}) and {escape(b.name)} (B, version "
        f"{escape(b.version)})"
    )
    warning = [OTHER_VERSION] if a.version != b.version else []
    sections = [section for track in comparison.tracks for section in _track(track)]
    return "\n\n".join([heading, *warning, _summary(comparison), *sections]) + "\n"


def _summary(comparison: Comparison) -> str:
    lines = {track.track: _counts(track) for track in comparison.tracks}
    lines |= dict.fromkeys(comparison.only_a, "only in A") | dict.fromkeys(
        comparison.only_b, "only in B"
    )
    return "\n".join(f"- **{escape(track)}**: {line}" for track, line in lines.items())


def _counts(track: TrackComparison) -> str:
    """Return a track in one line."""
    if not track.moved:
        within = sum(finding.within_noise for finding in track.findings)
        return (
            f"nothing moved: {track.both} rows in both, "
            f"{f'{within} values differ within noise' if within else 'all values equal'}"
        )
    apart = {
        "of another status": track.statuses,
        "only in A": track.only_a,
        "only in B": track.only_b,
    }
    counts = [_count(finding) for finding in track.findings if finding.moves] + [
        f"{len(rows)} rows {what}" for what, rows in apart.items() if rows
    ]
    return f"{track.both} rows in both. {'; '.join(counts)}"


def _count(finding: Finding) -> str:
    up = sum(move.size > 0 for move in finding.moves)
    counts = {finding.directions[0]: up, finding.directions[1]: len(finding.moves) - up}
    return (
        f"{finding.title}: "
        f"{', '.join(f'{count} {direction}' for direction, count in counts.items() if count)}"
    )


def _track(track: TrackComparison) -> list[str]:
    """Return the sections of a track: what was compared and how, what moved, then the
    rows that have no counterpart.
    """
    told = [
        *(_told(finding) for finding in track.findings),
        *(f"Latency on {escape(reason)}." for reason in track.not_compared),
    ]
    tables = {finding.title: _moves(finding) for finding in track.findings}
    tables["Status"] = [
        _names(change.key)
        | {"A": escape(cut(change.before, WIDTH)), "B": escape(cut(change.after, WIDTH))}
        for change in track.statuses
    ]
    tables |= {"Only in A": _by_method(track.only_a), "Only in B": _by_method(track.only_b)}
    sections = [f"### {escape(track.track)}", "\n".join(f"- {line}" for line in told)]
    return sections + [
        f"#### {escape(title)}\n\n{_table(records)}" for title, records in tables.items() if records
    ]


def _told(finding: Finding) -> str:
    equal = finding.compared - len(finding.moves) - finding.within_noise
    others = {"differ within noise": finding.within_noise, "are equal": equal}
    counts = [
        f"{len(finding.moves)} of {finding.compared} rows moved",
        *(f"{count} {what}" for what, count in others.items() if count),
    ]
    return f"{escape(finding.title)}: {', '.join(counts)}. {finding.how}."


def _moves(finding: Finding) -> list[Record]:
    return [
        _names(move.key) | {"A": move.before, "B": move.after, "change": move.change}
        for move in finding.moves
    ]


def _table(records: Sequence[Record]) -> str:
    more = [f"… and {len(records) - SHOWN} more."] if len(records) > SHOWN else []
    return "\n\n".join([github_table(records[:SHOWN], TEXT_COLUMNS), *more])


def _names(key: RowKey) -> Record:
    model, method, setting = key
    return {"model": escape(model), "method": escape(method), "setting": escape(setting)}


def _by_method(keys: Sequence[RowKey]) -> list[Record]:
    """Return rows of one side taken together by method."""
    records = []
    for method in dict.fromkeys(name for _, name, _ in keys):
        mine = [(model, setting or "-") for model, name, setting in keys if name == method]
        models, settings = (dict.fromkeys(column) for column in zip(*mine, strict=True))
        texts = {"models": ", ".join(models), "settings": cut("; ".join(settings), WIDTH)}
        records.append(
            {"method": escape(method), "rows": str(len(mine))}
            | {name: escape(text) for name, text in texts.items()}
        )
    return records
