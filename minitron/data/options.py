"""A task's further dials, from the text of --options."""
from ..base.cli import did_you_mean
from ..base.errors import MinitronError


def parse_options(task, ranges, text):
    """"pairs=8,symbols=32" -> {name: number}, the others at their defaults

    ranges: {name: (default, smallest, largest)}.  Raises MinitronError.
    """
    options, names = {name: default for name, (default, _, _) in ranges.items()}, set()
    for part in (text or "").split(","):
        name, _, value = part.partition("=")
        if not part:
            continue
        if name in names:
            raise MinitronError(f"option {name} is given twice in {text!r}: give it once")
        if name not in ranges:
            defaults = ", ".join(f"{name}={default}" for name, (default, _, _) in ranges.items())
            raise MinitronError(f"option {part!r} is unknown to task {task}, whose options are: "
                                f"{defaults or 'none'}{did_you_mean(name, ranges)}")
        names.add(name)
        options[name] = parse_option(task, name, value, *ranges[name])
    return options


def parse_option(task, name, value, default, low, high):
    """The number that a text spells, of the default's type.  Raises MinitronError."""
    try:
        number = type(default)(value)
    except ValueError:
        reason = f"option {name} {value!r} is not a number: use {low} to {high}"
        raise MinitronError(reason) from None
    if not low <= number <= high:               # written so that a NaN fails too
        raise MinitronError(f"option {name} {value} is out of range for task {task}: "
                            f"use {low} to {high}")
    return number
