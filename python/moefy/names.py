"""Short names of files and folders that tell each from all others."""

import os
import pathlib


def distinct_names(paths, taken=()):
    """One name a path: of its name without suffix, its name, and as many folders above it as it takes, the
    first that no other path and nothing in `taken` has. The paths lie in different places."""
    spelt = [_spellings(path) for path in paths]
    lengths = [0] * len(spelt)
    while True:
        names = [spellings[length] for spellings, length in zip(spelt, lengths)]
        clashing = [number for number, name in enumerate(names)
                    if (names.count(name) > 1 or name in taken) and lengths[number] + 1 < len(spelt[number])]
        if not clashing:
            return names
        for number in clashing:
            lengths[number] += 1


def _spellings(path):
    """A path from its shortest name on."""
    place = pathlib.Path(os.path.abspath(path))
    parts = place.parts
    spellings = [place.stem if place.is_file() else parts[-1]]
    return spellings + ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def repeated(paths):
    """The paths that lead where one before them leads."""
    places = [pathlib.Path(path).resolve() for path in paths]
    return [path for number, path in enumerate(paths) if places[number] in places[:number]]
