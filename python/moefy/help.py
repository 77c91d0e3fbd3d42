"""Help pages of the package's commands, laid out as those of the program."""

import textwrap

# Of every command, only on --help-all.
RARE_OF_ALL = {"architecture", "config", "dump-config", "log", "log-level", "no-verify", "preset",
               "timeout"}
COLUMN = 26
WIDTH = 120


def left_column(action):
    value = action.metavar or ("NAME" if action.choices else action.dest.upper())
    names = ", ".join(sorted(action.option_strings, key=len))
    return names if action.nargs == 0 else f"{names} {value}"


def right_column(action):
    choices = f": {', '.join(action.choices)}" if action.choices else ""
    text = textwrap.wrap(f"{action.help}{choices}", WIDTH - COLUMN - 3)
    return ("\n" + " " * (COLUMN + 3)).join(text)


def command_help(name, module, parser, everything):
    """What --help (one screen) or --help-all of a command prints."""
    lines = [f"moefy {name}: {module.DESCRIPTION}", "",
             f"usage: moefy {name} {module.USAGE} [options]", ""]
    for action in parser._actions:
        option = action.option_strings[-1].removeprefix("--") if action.option_strings else None
        rare = option in RARE_OF_ALL or option in module.RARE_OPTIONS
        if option is None or option == "help" or (rare and not everything):
            continue
        lines.append(f"  {left_column(action):<{COLUMN}} {right_column(action)}")
    return "\n".join([*lines, "", f"example: {module.EXAMPLE}"])
