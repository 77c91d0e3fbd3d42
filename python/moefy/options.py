"""Options of the package's commands: values and mistakes, presets, and the JSON file that --dump-config
prints and --config reads."""

import argparse
import difflib
import json
import math
import pathlib

from .devices import device_name
from .errors import IoError, UsageError

# They ask for something else than a run, or are not the same for every one.
NOT_STORED = {"help", "help_all", "config", "dump_config"}


def stored_options(command):
    """The options of a command that a file may hold, by their names without dashes."""
    return {action.option_strings[-1].removeprefix("--"): action for action in command._actions
            if action.option_strings and action.dest not in NOT_STORED}


def value_of(option, arguments):
    """The text of an option before anything is parsed; None if it is not given."""
    for place, word in enumerate(arguments):
        if word.startswith(option + "="):
            return word.removeprefix(option + "=")
        if word == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def take_stored(name, command, arguments):
    """Makes the values of a command's --preset, and those of its --config file before them, its defaults.
    What is wrong with them."""
    path = value_of("--config", arguments)
    values, problems = ({}, []) if path is None else read_file(path)
    preset = value_of("--preset", arguments) or values.get("preset", "default")
    return [*take_preset(name, command, preset), *problems, *take(command, values, f"--config {path}")]


def read_file(path):
    """The object of a JSON file; what is wrong with it."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError) as error:
        return {}, [f"--config {path}: {error}"]
    if not isinstance(values, dict):
        return {}, [f"--config {path}: expected a JSON object of options"]
    return values, []


def take_preset(name, command, preset):
    """Makes the values of a preset the defaults of a command. What is wrong with them."""
    if preset == "default":
        return []
    import _moefy  # which commands on stock classes alone can do without

    names = _moefy.preset_names(name)
    if preset not in names:
        return [f"--preset '{preset}' is unknown; valid: {', '.join(names)}"]
    return take(command, json.loads(_moefy.preset_json(name, preset)), f"--preset {preset}")


def take(command, values, source):
    """Makes values the defaults of a command. What is wrong with them."""
    known = stored_options(command)
    problems = [f"option '{name}' is unknown{nearest(name, known)}" for name in values
                if name not in known]
    for name in values.keys() & known.keys():
        try:
            known[name].default = checked(known[name], values[name])
            known[name].required = False
        except (TypeError, ValueError):
            problems.append(f"option '{name}' cannot be {json.dumps(values[name])}")
    return [f"{source}: {problem}" for problem in sorted(problems)]


def checked(action, value):
    """A value of a file as argparse would make it of the command line. ValueError, TypeError."""
    if isinstance(action, argparse._StoreTrueAction):
        if not isinstance(value, bool):
            raise ValueError
        return value
    if action.nargs in ("+", "*"):
        if not isinstance(value, list):
            raise ValueError
        return [one_checked(action, one) for one in value]
    return one_checked(action, value)


def one_checked(action, value):
    if isinstance(value, (list, dict, bool)) or value is None:
        raise ValueError
    if action.choices:
        return choice(action.choices, str(value))
    return (action.type or str)(str(value))


def choice(names, text):
    """The name that text spells, be it with hyphens or underscores. ValueError."""
    for name in names:
        if name.replace("_", "-") == text.replace("_", "-"):
            return name
    raise ValueError(text)


def number(text):
    """A finite number. ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def duration(text):
    """Seconds of "90", "90s", "1.5m" or "2h", as the program reads them. ValueError."""
    for unit, factor in (("min", 60), ("m", 60), ("h", 3600), ("s", 1), ("", 1)):
        if text.endswith(unit):
            seconds = number(text.removesuffix(unit)) * factor
            if seconds <= 0:
                raise ValueError(text)
            return seconds


def counts(text):
    """[4, 8] of "4,8". ValueError."""
    numbers = [int(part) for part in text.split(",") if part]
    if any(number < 1 for number in numbers):
        raise ValueError(text)
    return numbers


def list_of_counts(text):
    """text, if counts() can read it. ValueError."""
    counts(text)
    return text


def number_or_auto(text):
    """-1 of "auto", else the number. ValueError."""
    return -1 if text == "auto" else int(text)


def auto_or_number(text):
    """text, if number_or_auto() can read it. ValueError."""
    number_or_auto(text)
    return text


# What a value of an option is, by the function that reads it.
EXPECTED = {int: "a whole number", auto_or_number: "auto or a whole number",
            list_of_counts: "whole numbers above 0 such as 4,8", number: "a number",
            duration: "a time such as 90s, 10m or 2h", device_name: "cpu, cuda, or cuda:1 and so on"}


def collect_bad_values(command):
    """From now on values that an option cannot have do not end the parsing: what is wrong with them is
    added to the list that is returned."""
    problems = []
    for action in command._actions:
        if action.type or action.choices:
            action.type = _collecting(action, action.type, problems)
    return problems


def _collecting(action, read, problems):
    def convert(text):
        try:
            return choice(action.choices, text) if action.choices else read(text)
        except ValueError:
            name = action.option_strings[-1]
            if action.choices:
                problems.append(f"{name} '{text}' is unknown; valid: {', '.join(action.choices)}")
            else:
                problems.append(f"{name} '{text}': expected {EXPECTED[read]}")
            return action.default

    return convert


def take_required(command):
    """Makes every option and place of a command optional, so that all that is missing can be told
    at once (and --dump-config needs nothing). Returns what was required."""
    # argparse calls a place that may be taken by any number of words required, too.
    required = [action for action in command._actions if action.required and action.nargs != "*"]
    for action in required:
        action.required = False
        if not action.option_strings and action.nargs is None:
            action.nargs = "?"
    return required


def dump(command, args):
    """All options with their resolved values as a JSON object."""
    values = {name: getattr(args, action.dest) for name, action in stored_options(command).items()}
    return json.dumps({name: value for name, value in values.items() if value is not None},
                      indent=2, sort_keys=True)


def too_small(args, **least):
    """What is below the least value of its option."""
    return [f"--{name.replace('_', '-')} {getattr(args, name)} is below {value}"
            for name, value in least.items() if getattr(args, name) < value]


def not_above_zero(args, *names):
    return [f"--{name.replace('_', '-')} {getattr(args, name)} is not above 0" for name in names
            if not getattr(args, name) > 0]


def missing_texts(args):
    return [f"{path}: no such file" for path in args.text or [] if not pathlib.Path(path).exists()]


def folders_in_place_of(*files):
    """What is wrong with files to be made where folders are."""
    return [f"{path} is a folder; the output is one file" for path in files
            if path and pathlib.Path(path).is_dir()]


def folders_of_something_else(folder):
    """What is wrong with a model to be made where a folder is that holds something and no model: --force
    replaces models, not what else people keep."""
    place = pathlib.Path(folder or "")
    if not folder or not place.is_dir() or (place / "config.json").exists() or not any(place.iterdir()):
        return []
    return [f"{folder} is a folder of something else than a model (it has no config.json); remove it or"
            " choose another place for the output"]


def outputs_of(args):
    return [path for path in (args.output, getattr(args, "plot", None)) if path]


def require_folders(args):
    """IoError unless the folders of all outputs are there."""
    for output in outputs_of(args):
        folder = pathlib.Path(output).resolve().parent
        if not folder.is_dir():
            raise IoError(f"{folder}: no such folder for {output}")


def require_other_places(args):
    """UsageError if an output would take away what the command reads: a model, a text, a folder that
    holds one, or a file of a model. Not even --force allows that."""
    read = [args.model, getattr(args, "teacher", None), *getattr(args, "outputs", []), *args.text]
    for output in outputs_of(args):
        place = pathlib.Path(output).resolve()
        for path in [pathlib.Path(name).resolve() for name in read if name]:
            is_its_file = place.parent == path and place.is_file() and place.suffix != ".h5"
            if place == path or place in path.parents or is_its_file:
                raise UsageError(f"{output}: that is read from {path}; choose another place for the output")


def nearest(name, names):
    near = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def problems(command, args, required, words):
    """What is missing of what is required, and words that no option or place of the command takes."""
    names = ["--" + name for name in stored_options(command)]
    lines = [f"{'/'.join(action.option_strings) or action.metavar} is missing"
             for action in required if not getattr(args, action.dest)]
    for name in [word.split("=")[0] for word in words if word.startswith("-")]:
        lines.append(f"option {name} is unknown" +
                     (nearest(name, names) or "; --help lists them all"))
    if words and not words[0].startswith("-"):
        lines.append(f"'{words[0]}' is one argument too many")
    return lines
