"""The files of a configuration directory that an import has no use for, and what each is: none is passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from typing import NamedTuple


class Known(NamedTuple):
    """What usually lies there: by path below the directory, and by the directory it lies in."""

    files: Mapping[str, str]
    directories: tuple[str, ...]
    beside: str  # what lies in those directories


_COPIES = (".db", ".old", ".bak", "~", ".dpkg-dist", ".dpkg-old")

OF_POSTFIX = Known(
    {
        "dynamicmaps.cf": "Postfix's list of table types",
        "makedefs.out": "how Postfix was built",
        "post-install": "for the package",
        "postfix-files": "for the package",
        "postfix-script": "for the package",
        "main.cf.proto": "Postfix's prototype",
        "master.cf.proto": "Postfix's prototype",
    },
    ("dynamicmaps.cf.d/", "postfix-files.d/", "sasl/"),
    "for the package, or for programs beside Postfix",
)
OF_SENDMAIL = Known(
    {
        "sendmail.cf": "made by m4 from sendmail.mc",
        "submit.cf": "made by m4 from submit.mc",
        "submit.mc": "for the program that submits mail: gatepost-sendmail takes its place",
        "sendmail.conf": "Debian's settings of sendmail's processes",
        "Makefile": "for make",
        "databases": "Debian's list of tables",
        "helpfile": "the text of HELP",
        "statistics": "counters",
        "trusted-users": "there are no trusted users: who submits mail is known by its uid or its login",
        "aliases.db": "made from aliases",
        "service.switch": "how sendmail looks up names",
        "service.switch-nodns": "how sendmail looks up names",
        "address.resolve": "how sendmail looks up names",
    },
    ("tls/", "sasl/", "smrsh/", "peers/"),
    "keys, programs and settings beside sendmail's own configuration",
)


def other_files(directory: str, seen: Container[str], known: Known) -> Iterator[tuple[str, str, str]]:
    """Path, path below the directory, and what it is ("" if that is not known), of each regular file that was not seen."""
    for parent, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not os.path.isfile(path) or path in seen:
                continue
            short = os.path.relpath(path, directory)
            if short.startswith(known.directories):
                yield path, short, known.beside
            else:
                yield (
                    path,
                    short,
                    known.files.get(short) or ("an old or compiled copy" if name.endswith(_COPIES) else ""),
                )
