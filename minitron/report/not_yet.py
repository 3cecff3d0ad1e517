"""The settings that no seed learnt, each with the cause that most of its seeds suggest."""
from collections import Counter

from ..data.command_line import training_command
from ..measure import learnt
from . import phase
from .cause import cause


def not_yet(records):
    """[entry]: the settings that no seed learnt, or none beyond the lengths of training"""
    successes = [record for record in records if learnt.has_learnt(record)]
    entries = []
    for diagram in phase.phase_diagrams(records):
        places = sorted(diagram.cells, key=lambda place: tuple(map(phase.sort_key, place)))
        for y, x in places:
            setting = {diagram.y: y} | ({diagram.x: x} if diagram.x else {}) | diagram.fixed
            entries.append(not_yet_entry(setting, diagram.cells[y, x], successes))
    return [entry for entry in entries if entry is not None]


def not_yet_entry(setting, cell, successes):
    """One entry of the list, None for a setting that does not belong on it

    setting: {dial: value}; successes: the records of the ledger that learnt the task
    """
    scores, (learnt_it, failed, _) = cell.scores(), cell.counts()
    causes = [cause(record, successes) for record in cell.records]
    name, count = Counter(each.name for each in causes).most_common(1)[0]
    only_longer_fail = name == "positions" and count == len(causes)
    if not only_longer_fail and (learnt_it or not failed):
        return None
    example = next(i for i, each in enumerate(causes) if each.name == name)
    return {
        "where": ", ".join(f"{dial.replace('_', ' ')} {setting_text(value)}"
                           for dial, value in setting.items()),
        "best": max(scores), "seeds": len(cell.records), "cause": name, "agree": count,
        "evidence": causes[example].evidence, "remedy": causes[example].remedy,
        "command": training_command(cell.records[example]["config"]),
    }


def setting_text(value):
    """A setting as page.html writes it"""
    if isinstance(value, bool):
        return str(value).lower()
    return "n/a" if value is None else str(value) or "(none)"
